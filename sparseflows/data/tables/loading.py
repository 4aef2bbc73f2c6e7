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
    table = _read(path, reading, lambda sheet: choose(sheet, reading, str(path)), None)
    return replace(table, values=validate(table.values, str(path), table.called, copy=False))


def load_points(path: FilePath, expected: Expected, reading: Reading = DEFAULT) -> Table:
    """Points to score or to map, in a run's columns; few rows and constant columns are fine here.

    Args:
        path: as for `load_table`.
        expected: the columns that the run was trained on.
        reading: how the run read its own table.

    Raises:
        InputError: as for `load_table`; other columns than the run's.
    """
    strict = replace(reading, missing="never")
    table = _read(path, strict, lambda sheet: choose_expected(sheet, reading, expected, str(path)), expected)
    return replace(table, values=finite_matrix(table.values, str(path), table.called, copy=False))


def _read(path: FilePath, reading: Reading, chooser: Chooser, expected: Expected | None) -> Table:
    file = existing_file(path)
    suffix = file.suffix.lower()
    try:
        if suffix == ".npy":
            return _of_array(file, reading, chooser)
        inner = bare_suffix(file) if suffix in PACKED_SUFFIXES else suffix
        if inner in TEXT_SUFFIXES:
            return _of_text(file, reading, chooser, expected)
        if suffix in FRAME_SUFFIXES:
            return _of_frame(file, reading, chooser)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or one_line(error)})") from error
    known = ", ".join((".npy", *TEXT_SUFFIXES, *FRAME_SUFFIXES))
    packed = ", ".join(PACKED_SUFFIXES)
    raise InputError(f"{file}: the suffix '{file.suffix}' is not known; give one of {known}, text also as {packed}")


def _of_array(file: Path, reading: Reading, chooser: Chooser) -> Table:
    values = real_matrix(read_npy(file), str(file), copy=False)
    choice = chooser(Sheet(None, ((NUMBER, ""),) * values.shape[1]))
    taken = values if choice.places == tuple(range(values.shape[1])) else values[:, list(choice.places)]
    labels = [place + 1 for place in choice.places]
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
    counting = expected is not None and layout.names is None and len(layout.places) == expected.columns + 1
    chosen_by_place = any(str(one).isdecimal() for one in (*reading.columns, *reading.drop))
    if counting and not chosen_by_place:  # an index before the columns of the run, perhaps
        choice = Choice(tuple(range(len(layout.places))))
    else:
        choice = chooser(Sheet(layout.names, layout.kinds))
    cells = [layout.places[place] for place in choice.places]
    values = parse(file, head, layout, cells, reading.missing)
    names = None if layout.names is None else tuple(layout.names[place] for place in choice.places)
    notes, decided = [*layout.notes, *choice.notes], list(layout.decided)
    ask = layout.names is None and reading.index == "auto" and not chosen_by_place
    if (
        ask
        and values.shape[1] > 1
        and (counting if expected else len(values) >= COUNTED_ROWS)
        and _counts(values[:, 0])
    ):
        values, cells = values[:, 1:], cells[1:]
        notes.append("left out column 1, which counts the rows as an index does (data.index: no keeps it)")
        decided.append("index")
    elif counting and expected is not None:
        raise other_columns(values.shape[1], expected, str(file))
    labels = [cell + 1 for cell in cells]
    values, said = _without_missing(values, reading, names or labels, str(file))
    return Table(values, names, (*notes, *said), tuple(decided), labels)


def _of_frame(file: Path, reading: Reading, chooser: Chooser) -> Table:
    frame = read_frame(file, reading.header, reading.index)
    choice = chooser(frame.sheet)
    names = None if frame.sheet.names is None else tuple(frame.sheet.names[place] for place in choice.places)
    values = frame.numbers(choice.places)
    bad = np.isnan(values)
    if bad.any() and reading.missing != "drop":
        row, column = np.argwhere(bad)[0]
        where = f"{file}: row {row + 1}, {called(int(column), names)}"
        raise InputError(f"{where}: a value is missing; drop the row or fill it in{REMEDIES[reading.missing]}")
    values, said = _without_missing(values, reading, names, str(file))
    return Table(values, names, (*frame.notes, *choice.notes, *said))


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
