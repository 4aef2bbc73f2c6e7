"""HEPMASS: simulated collisions, the signal class, its discrete columns left out."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.rawtext import after_header, column_names, numbers
from sparseflows.data.files.streaming import blocks, moments
from sparseflows.data.recipes.base import Kit, Made, Recipe, Table, limit, standardised, unspiked
from sparseflows.errors import InputError

RAW_COLUMNS = 28  # the label and 27 features; the test file may have one more, which nothing uses


def read(member: Member, kit: Kit) -> dict[str, Table]:
    """The signal rows (N, 27) of one of the two files."""
    columns = [f"f{k}" for k in range(RAW_COLUMNS - 1)]
    return {member.wanted.key: Table(kit.on_disk(_signal(member), member.name), columns, True, member.name)}


def make(tables: dict[str, Table], kit: Kit) -> Made:
    """Standardise by the training signal, drop what has a spike at its smallest value, split validation off."""
    table, test = tables["train"], tables["test"].rows
    rows = table.rows
    if len(rows) < 11:
        raise InputError(f"{table.name}: {len(rows)} signal rows are too few to split; at least 11 are wanted")
    kept, cut = unspiked(rows, table.name), len(rows) - len(rows) // 10
    spans = ((rows, 0, cut), (rows, cut, len(rows)), (test, 0, len(test)))
    return standardised(table, spans, moments(lambda: blocks(rows), ddof=1), kept)


def _signal(member: Member) -> Iterator[np.ndarray]:
    name, test = member.name, member.wanted.key == "test"
    widths = {RAW_COLUMNS, RAW_COLUMNS + 1} if test else {RAW_COLUMNS}
    for where, lines in after_header(member.stream, name, partial(column_names, delimiter=",")):
        if test and lines and lines[0].rstrip("\r").endswith(","):
            lines = [line.rstrip("\r").removesuffix(",") for line in lines]
        found = numbers(lines, where, widths, ",", name)
        if not len(found):
            continue
        widths, labels = {found.shape[1]}, found[:, 0]
        if not ((labels == 0) | (labels == 1)).all():
            raise InputError(f"{name}: the first column should be the label, 0 or 1; give the published file")
        yield found[labels == 1, 1:RAW_COLUMNS]


PUBLISHED = 7_000_000 * 28 * 25  # of the larger edition of the training file
RECIPE = Recipe(
    (
        Wanted("train", "1000_train.csv", limit(PUBLISHED), raw=True),
        Wanted("test", "1000_test.csv", limit(PUBLISHED // 2), raw=True),
    ),
    read,
    make,
)
