"""Tables of files: the numbers to train on or to score, with the names of their columns and what is to be said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import FilePath, existing_file, one_line, read_npy
from sparseflows.data.tables.choosing import (
    Choice,
    Expected,
    Labels,
    Reading,
    Sheet,
    called,
    choose,
    choose_expected,
    label,
    other_columns,
    quoted,
)
from sparseflows.data.tables.frames import FRAME_SUFFIXES, read_frame
from sparseflows.data.tables.tabular import Names, finite_matrix, real_matrix, validate
from sparseflows.data.text.cells import NUMBER
from sparseflows.data.text.layout import find_layout
from sparseflows.data.text.opened import PACKED_SUFFIXES, TEXT_SUFFIXES, bare_suffix
from sparseflows.data.text.parse import REMEDIES, head_of, parse
from sparseflows.errors import InputError

Array = NDArray[np.float64]
Chooser = Callable[[Sheet], Choice]

COUNTS = "left out column 1, which counts the rows as an index does (data.index: no keeps it)"
COUNTED_ROWS = 8  # so many that a first column of 0, 1, 2, … is no chance
DEFAULT = Reading()


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    Attributes:
        values: (N, D) float64.
        names: of the columns; None where the file has none.
        notes: what was decided in reading it, one line each.
        decided: what makes these numbers others than an earlier reader would have found in the same file.
        labels: places of the columns in the file, from 1, where they have no names and some were left out.
    """

    values: Array
    names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    decided: tuple[str, ...] = ()
    labels: Labels = None

    @property
    def called(self) -> Labels:
        """The names, or the places in the file."""
        return self.names if self.names is not None else self.labels


def load_table(path: FilePath, reading: Reading = DEFAULT) -> Table:
    """The table in a file, fit to train on.

    Args:
        path: a .npy file; .csv, .tsv or .txt, which may be packed (.gz, .bz2, .xz, .zip); .parquet, .feather, .xlsx.
        reading: how to read it.

    Raises:
        InputError: the file cannot be read, a column holds no numbers, or its table cannot be trained on (`validate`).
    """
    refuse_header(path, reading)
    table = _read(path, reading, lambda sheet: choose(sheet, reading, str(path)), None)
    return replace(table, values=validate(table.values, str(path), table.called, copy=False))


def refuse_header(path: FilePath, reading: Reading) -> None:
    """Raise InputError where `data.header` decides about a first line that the file cannot have."""
    suffix = Path(path).suffix.lower()
    if reading.header != "auto" and suffix in (".npy", ".parquet", ".feather"):
        raise InputError(f"{path}: data.header is for text and workbooks; a {suffix} file has no first line of names")


def load_points(path: FilePath, expected: Expected, reading: Reading = DEFAULT) -> Table:
    """Points to score or to map, in a run's columns; few rows, constant columns and infinite values are fine here, and
    missing ones where the run left such rows out.

    Args:
        path: as for `load_table`.
        expected: the columns that the run was trained on.
        reading: how the run read its own table.

    Raises:
        InputError: as for `load_table`; other columns than the run's.
    """
    kept = reading.missing == "drop"  # a row is not dropped here, where each has its place: it is one of NaN
    strict = replace(reading, missing="keep" if kept else "never")

    def read(how: Reading) -> Table:
        return _read(path, how, lambda sheet: choose_expected(sheet, reading, expected, str(path)), expected)

    try:
        table = read(strict)
    except InputError:
        if reading.index is not True:
            raise
        table = read(replace(strict, index=False))  # the run's own file has an index, others need not have
    if kept:
        return replace(table, values=real_matrix(table.values, str(path), copy=False))
    # An infinite value has its own outcome, as any row beyond all numbers.
    values = finite_matrix(table.values, str(path), table.called, copy=False, infinite=True)
    return replace(table, values=values)


def _read(path: FilePath, reading: Reading, chooser: Chooser, expected: Expected | None) -> Table:
    file = existing_file(path)
    suffix = file.suffix.lower()
    try:
        if suffix == ".npy":
            return _of_array(file, reading, chooser, expected)
        inner = bare_suffix(file) if suffix in PACKED_SUFFIXES else suffix
        if inner in TEXT_SUFFIXES:
            return _of_text(file, reading, chooser, expected)
        if suffix in FRAME_SUFFIXES:
            return _of_frame(file, reading, chooser, expected)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or one_line(error)})") from error
    known = ", ".join((".npy", *TEXT_SUFFIXES, *FRAME_SUFFIXES))
    packed = ", ".join(PACKED_SUFFIXES)
    raise InputError(f"{file}: the suffix '{file.suffix}' is not known; give one of {known}, text also as {packed}")


def _of_array(file: Path, reading: Reading, chooser: Chooser, expected: Expected | None) -> Table:
    values = real_matrix(read_npy(file), str(file), copy=False)
    left_out = int(reading.index is True and values.shape[1] > 1)
    values = values[:, left_out:]
    choice = chooser(Sheet(None, ((NUMBER, ""),) * values.shape[1]))
    taken = values if choice.places == tuple(range(values.shape[1])) else values[:, list(choice.places)]
    labels = [place + 1 + left_out for place in choice.places]
    values, notes = _without_missing(taken, reading, labels, str(file))
    return Table(values, None, (*choice.notes, *notes), labels=labels)


def _of_text(file: Path, reading: Reading, chooser: Chooser, expected: Expected | None) -> Table:
    head = head_of(file)
    layout = find_layout(head, str(file), reading.header, reading.index)
    if not layout.kinds:
        return Table(np.empty((0, 0)))
    if layout.names is None and expected is not None and expected.names is not None and reading.header == "auto":
        named = find_layout(head, str(file), True, reading.index)  # names may be numbers
        layout = named if set(expected.names) <= set(named.names or ()) else layout
    if "header" in layout.decided and expected is not None and not set(layout.names or ()) & set(expected.names or ()):
        layout = replace(layout, names=None)  # numbers of columns are no names to find others by
    choice, one_more = _choice(Sheet(layout.names, layout.kinds), reading, chooser, expected)
    cells = [layout.places[place] for place in choice.places]
    values, passed = parse(file, head, layout, cells, reading.missing)
    names = None if layout.names is None else tuple(layout.names[place] for place in choice.places)
    notes, decided = [*layout.notes, *choice.notes, *passed], list(layout.decided)
    if layout.names is None and _begins_with_an_index(values, reading, expected, one_more, file):
        values, cells = values[:, 1:], cells[1:]
        notes.append(COUNTS)
        decided.append("index")
    labels = [cell + 1 for cell in cells]
    values, said = _without_missing(values, reading, names or labels, str(file))
    return Table(values, names, (*notes, *said), tuple(decided), labels)


def _choice(sheet: Sheet, reading: Reading, chooser: Chooser, expected: Expected | None) -> tuple[Choice, bool]:
    """The columns that are taken, and whether they are one more than the run's, perhaps an index before them."""
    one_more = expected is not None and sheet.names is None and len(sheet.kinds) == expected.columns + 1
    if one_more and not _by_place(reading):
        return Choice(tuple(range(len(sheet.kinds)))), True
    return chooser(sheet), one_more


def _by_place(reading: Reading) -> bool:
    return any(str(one).isdecimal() for one in (*reading.columns, *reading.drop))


def _begins_with_an_index(
    values: Array, reading: Reading, expected: Expected | None, one_more: bool, file: Path
) -> bool:
    """Whether the first column of a table (N, D) without names is an index.

    Raises:
        InputError: it would be one that the run has no column for, but does not count the rows; or it does, and is
            taken by its place.
    """
    counts = values.shape[1] > 1 and _counts(values[:, 0])
    by_place = _by_place(reading)
    index = counts and reading.index == "auto" and not by_place
    if expected is None:
        return index and len(values) >= COUNTED_ROWS
    if one_more and (counts if by_place else not index):
        raise other_columns(expected.columns + 1, expected, str(file))
    return one_more and index


def _of_frame(file: Path, reading: Reading, chooser: Chooser, expected: Expected | None) -> Table:
    frame = read_frame(file, reading.header, reading.index)
    choice, one_more = _choice(frame.sheet, reading, chooser, expected)
    names = None if frame.sheet.names is None else tuple(frame.sheet.names[place] for place in choice.places)
    values = frame.numbers(choice.places)
    bad = np.isnan(values)
    if bad.any() and reading.missing in REMEDIES:
        row, column = np.argwhere(bad)[0]
        where = f"{file}: row {row + 1}, {called(int(column), names)}"
        raise InputError(f"{where}: a value is missing; drop the row or fill it in{REMEDIES[reading.missing]}")
    notes, decided, labels = [*frame.notes, *choice.notes], [], [place + 1 for place in choice.places]
    if names is None and _begins_with_an_index(values, reading, expected, one_more, file):
        values, labels = values[:, 1:], labels[1:]
        notes.append(COUNTS)
        decided.append("index")
    values, said = _without_missing(values, reading, names or labels, str(file))
    return Table(values, names, (*notes, *said), tuple(decided), labels)


def _without_missing(values: Array, reading: Reading, names: Names, source: str) -> tuple[Array, list[str]]:
    """The rows (N, D) without a missing value, where these are to be dropped, and what is said of the others.

    Raises:
        InputError: none is left.
    """
    if reading.missing != "drop":
        return values, []
    whole = ~np.isnan(values).any(axis=1)
    gone = len(values) - int(whole.sum())
    if gone and gone == len(values):
        shares = np.isnan(values).mean(axis=0)
        worst = int(shares.argmax())
        raise InputError(
            f"{source}: a value is missing in every row, in {shares[worst]:.0%} of them in {called(worst, names)}; "
            f"leave it out with data.drop: [{quoted(str(label(worst, names)))}]"
        )
    said = f"left out {gone:,} of {len(values):,} rows in which a value is missing (data.missing: drop)"
    return (values[whole], [said]) if gone else (values, [])


def _counts(column: Array) -> bool:
    """Whether a column is 0, 1, 2, … or 1, 2, 3, …"""
    return len(column) > 0 and column[0] in (0, 1) and bool((np.diff(column) == 1).all())
