"""A table of the user's own becomes standardised training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import counted
from sparseflows.data.findings.finding import findings
from sparseflows.data.known import TABLE
from sparseflows.data.parts import Splits, refuse_too_many
from sparseflows.data.tables.choosing import Reading, Sheet, choose, place_of_label
from sparseflows.data.tables.copies import any_copies, groups_of, row_hashes, split_groups
from sparseflows.data.tables.loading import Table, refuse_header
from sparseflows.data.tables.mapped import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VALIDATION,
    MappedRows,
    Rows,
    assign,
    check_table,
    fit_columns,
    shape_of,
)
from sparseflows.data.tables.tabular import Names, Standardiser
from sparseflows.data.text.cells import NUMBER
from sparseflows.data.transforms.transformed import TransformedStandardiser, Wanted, fit_transformed, refuse_unmappable
from sparseflows.errors import InputError
from sparseflows.rng import numpy_generator

FEW = 3  # rows of a part whose mean says nothing yet
IN_ORDER = 5_000  # rows of a large file that are looked at one after the other
LOOKED_THROUGH = 200_000  # rows of a large file that notes, and maps of columns, are made from

Fractions = tuple[float, float]


def table_splits(
    table: Table,
    source: str,
    n_train: int | None,
    fractions: Fractions,
    split_by: np.random.Generator,
    reading: Reading,
    transform: Wanted,
) -> Splits:
    """The parts of a table in memory, shuffled by groups of equal rows.

    Args:
        table: the table.
        source: its file, for messages.
        n_train: training rows, the first so many; None: all.
        fractions: of the rows, for validation and for the test set.
        split_by: of the shuffle.
        reading: what becomes of rows that are there more than once.
        transform: maps by column.

    Raises:
        InputError: a part without rows, fewer training rows than asked for, a map that does not fit its column.
    """
    values, notes, decided = table.values, list(table.notes), list(table.decided)
    groups = groups_of([row_hashes(values)])
    copies = len(values) - int(groups.max()) - 1
    if copies and reading.copies == "drop":
        first = np.unique(groups, return_index=True)[1]
        values, groups = values[np.sort(first)], np.arange(len(first))
        notes.append(f"left out {copies:,} of {len(table.values):,} rows that are copies of others (data.copies: drop)")
    elif copies:
        decided.append("copies")
    places = _places(transform, table.called, values.shape[1], source)
    warnings = findings(values, table.called, transformed=places)
    refuse_unmappable(values, transform, table.called, source)
    train, validation, test = split_groups(groups, *fractions, split_by)
    refuse_too_many(n_train, len(train), TABLE)
    notes += _few_rows(len(validation), len(test))
    train = train[:n_train]
    standardiser = fit_transformed(values[train], transform, table.called, f"{TABLE}, {len(train)} training rows")
    standardiser.check(values, table.called, source)
    return Splits.standardised(
        TABLE,
        standardiser,
        (values[train], values[validation], values[test]),
        warnings=tuple(warnings),
        notes=tuple(notes),
        columns=table.names,
        decided=tuple(decided),
    )


def large_splits(
    file: Path, n_train: int | None, fractions: Fractions, seed: int, reading: Reading, transform: Wanted
) -> Splits:
    """The parts of a large .npy file, which stays on disk; arguments and errors as `table_splits`.

    Copies are found by the hashes of all rows, notes and maps are made from a seeded choice of 200,000.
    """
    rows, width = shape_of(file)
    left_out = int(reading.index is True and width > 1)
    refuse_header(file, reading)
    taken = choose(Sheet(None, ((NUMBER, ""),) * (width - left_out)), reading, str(file)).places
    chosen = tuple(place + left_out for place in taken)
    in_file = [place + 1 for place in chosen]
    columns = None if chosen == tuple(range(width)) else chosen
    hashes, missing = check_table(file, columns, reading.missing == "drop")
    kept = np.flatnonzero(~missing) if missing.any() else slice(None)
    notes, decided, used = [], [], int((~missing).sum())
    groups = groups_of([hashes[kept]]) if any_copies(hashes[kept]) else None
    count = used if groups is None else int(groups.max()) + 1
    copies = used - count
    labels = np.full(rows, LEFT_OUT, dtype=np.uint8)
    if missing.any():
        notes.append(
            f"left out {int(missing.sum()):,} of {rows:,} rows in which a value is missing (data.missing: drop)"
        )
    by_group = assign(count, *fractions, numpy_generator(seed, f"data/{TABLE}/split"))
    labels[kept] = by_group if groups is None else by_group[groups]
    if groups is not None and reading.copies == "drop":
        again = np.ones(used, dtype=bool)
        again[np.unique(groups, return_index=True)[1]] = False
        labels[np.arange(rows)[kept][again]] = LEFT_OUT
        notes.append(f"left out {copies:,} of {rows:,} rows that are copies of others (data.copies: drop)")
    elif copies:
        decided.append("copies")
    whole = MappedRows(file, labels, TRAIN, columns=columns)
    train: Rows = whole
    if n_train is not None:
        train = some_of(train, n_train, TABLE, numpy_generator(seed, f"data/{TABLE}/n_train"))
    source = f"{TABLE}, {len(train)} training rows"
    standardiser = _standardiser_of(train, transform, in_file, source, seed)
    looked = np.unique(numpy_generator(seed, f"data/{TABLE}/look").integers(rows, size=min(rows, LOOKED_THROUGH)))
    some = MappedRows(file, columns=columns)[looked[labels[looked] != LEFT_OUT]]
    places = _places(transform, in_file, whole.shape[1], str(file))
    counted = (0 if reading.copies == "drop" else copies, used)
    together = MappedRows(file, columns=columns)[:IN_ORDER]
    warnings = findings(
        some, in_file, transformed=places, copies=counted, in_order=together[labels[:IN_ORDER] != LEFT_OUT]
    )
    validation, test = (MappedRows(file, labels, part, standardiser, columns=columns) for part in (VALIDATION, TEST))
    if isinstance(standardiser, TransformedStandardiser):
        for part in (validation, test):  # a value that a map does not take is refused now, not amid a run
            for number in range(part.blocks):
                part.block(number)
    return Splits(
        TABLE,
        replace_standardiser(train, standardiser) if isinstance(train, MappedRows) else standardiser.apply(train),
        validation,
        test,
        standardiser,
        warnings=tuple(warnings),
        notes=tuple(notes),
        decided=tuple(decided),
    )


def replace_standardiser(rows: MappedRows, standardiser: Standardiser) -> MappedRows:
    """The same rows (N, D), standardised by another."""
    return MappedRows(rows.file, rows.labels, rows.part, standardiser, rows.block_rows, rows.columns)


def some_of(rows: Rows, n: int, name: str, generator: np.random.Generator) -> NDArray[np.float64]:
    """A seeded choice of `n` of the rows (N, D), in their order: (n, D).

    Raises:
        InputError: there are fewer.
    """
    refuse_too_many(n, len(rows), name)
    return np.asarray(rows[np.sort(generator.choice(len(rows), n, replace=False))])


def _standardiser_of(train: Rows, transform: Wanted, labels: Names, source: str, seed: int) -> Standardiser:
    """Of rows in memory, or of those on disk: maps from a choice of them, mean and deviation from all."""
    if not isinstance(train, MappedRows):
        return fit_transformed(train, transform, labels, source)
    plain = fit_columns(train, source, labels)
    if not transform:
        return plain
    few = some_of(train, min(len(train), LOOKED_THROUGH), TABLE, numpy_generator(seed, f"data/{TABLE}/maps"))
    fitted = fit_transformed(few, transform, labels, source)
    if not isinstance(fitted, TransformedStandardiser):
        raise InputError(f"{source}: no map was fitted")
    width = train.shape[1]
    mapped = replace(fitted, shift=plain.shift, scale=plain.scale, inner=Standardiser(np.zeros(width), np.ones(width)))
    return replace(mapped, inner=fit_columns(replace_standardiser(train, mapped), source, labels))


def _few_rows(validation: int, test: int) -> list[str]:
    """What is said of parts with hardly any row."""
    few = [f"{counted(n, 'row')} to {what}" for n, what in ((validation, "validate"), (test, "test")) if n < FEW]
    return [f"{' and '.join(few)}: an NLL over so few says nothing yet; more rows are needed"] if few else []


def _places(transform: Wanted, names: Names, columns: int, source: str) -> Sequence[int]:
    return [place_of_label(column, names, columns, source, "data.transform") for column in transform]
