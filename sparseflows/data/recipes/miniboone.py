"""MINIBOONE: the signal events of a neutrino detector, outliers and discrete columns left out."""

from collections.abc import Iterator

import numpy as np

from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.rawtext import copy_npy, numbers, text_blocks
from sparseflows.data.files.reading import counted
from sparseflows.data.files.streaming import blocks, finite_blocks, moments
from sparseflows.data.recipes.base import Kit, Made, Recipe, Table, limit, standardised, tenths, unspiked
from sparseflows.errors import InputError

RAW_COLUMNS = 50
OUTLIER = -100  # below this in the first column, the event is none
CLEANED_COLUMNS = 43


def read(member: Member, kit: Kit) -> dict[str, Table]:
    """Rows in the file's order: the archive's (N, 43), or the signal rows of the text (N, 50)."""
    name = member.name
    if member.wanted.raw:
        rows, columns = kit.on_disk(_signal(member), name), [f"pid_{k}" for k in range(RAW_COLUMNS)]
    else:
        copied = copy_npy(member.stream, name, CLEANED_COLUMNS, kit.free_path(), member.wanted.limit)
        rows = kit.on_disk(finite_blocks(copied, name), name)
        columns = [f"column_{k + 1}" for k in range(CLEANED_COLUMNS)]
    return {"rows": Table(rows, columns, member.wanted.raw, name)}


def make(tables: dict[str, Table], kit: Kit) -> Made:
    """Drop what has a spike at its smallest value, split, standardise by train + validation."""
    table = tables["rows"]
    kept = unspiked(table.rows, table.name) if table.raw else None
    spans = tenths(table.rows, table.name)
    return standardised(table, spans, moments(lambda: blocks(table.rows, 0, spans[2][1])), kept)


def _signal(member: Member) -> Iterator[np.ndarray]:
    """The signal events of the text that are no outliers."""
    name, signal, total, done = member.name, 0, 0, 0
    for number, lines in text_blocks(member.stream, name):
        if number == 1:
            signal, total = _counts(lines[0], name)
            number, lines = 2, lines[1:]
        found = numbers(lines, range(number, number + len(lines)), {RAW_COLUMNS}, None, name)
        events = found[: max(0, signal - done)]
        yield events[events[:, 0] >= OUTLIER]
        done += len(found)
    if done != total:
        raise InputError(f"{name}: holds {counted(done, 'event')}, its first line says {total:,}; is it cut off?")


def _counts(line: str, name: str) -> tuple[int, int]:
    """Signal events, and all events."""
    cells = line.split()
    if len(cells) != 2 or not all(cell.isdecimal() for cell in cells):
        raise InputError(f"{name}: line 1 should hold two counts, of signal and of background; give the published text")
    signal, background = map(int, cells)
    return signal, signal + background


RECIPE = Recipe(
    (
        Wanted("rows", "miniboone/data.npy", limit(36_488 * 43 * 8)),
        Wanted("rows", "MiniBooNE_PID.txt", limit(91_000_000), raw=True),
    ),
    read,
    make,
)
