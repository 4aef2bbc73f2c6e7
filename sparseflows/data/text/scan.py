"""The first fault of a text table, by line and column: a slow reading of lines that a quick one has stumbled on."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import counted
from sparseflows.data.text.cells import COMMA_NUMBER, THOUSANDS, is_missing, is_value, is_whole, kind_of, plain
from sparseflows.data.text.layout import BLANKS, REMARK, Layout, is_comment

# Said of a first row without a number in it.
NO_ROW = "{!r} is not a number, nor are the other cells of this line; put # before a line above or below the header"


@dataclass(frozen=True)
class Scan:
    """What a reading of lines came to.

    Attributes:
        fault: the first one, in words; empty where there is none.
        missing: rows in which a cell of the chosen columns is missing.
        first_missing: where the first of them is, in words.
        commented: lines that are comments (`#`) and would be rows without that mark.
        first_commented: the number of the first of them; 0 where there is none.
    """

    fault: str
    missing: int = 0
    first_missing: str = ""
    commented: int = 0
    first_commented: int = 0


def scan(lines: Iterable[str], layout: Layout, chosen: Sequence[int]) -> Scan:
    """Read lines of a table, header and all, for faults in the cells at the `chosen` places of each row."""
    missing, first_missing, first, commented = 0, "", True, list[int]()

    def ended(fault: str) -> Scan:
        return Scan(fault, missing, first_missing, len(commented), commented[0] if commented else 0)

    def passed(number: int, line: str) -> None:
        if _is_row(line, layout, chosen):
            commented.append(number)

    named = dict(zip(layout.places, layout.names or (), strict=False))
    rows = _numbered(lines, layout, passed)
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return ended("")
        except csv.Error as error:
            return ended(str(error))
        if any("\n" in cell and holds_rows(cell, layout) for cell in row):
            return ended(f"line {number}: a quotation mark is not closed there or above, and a cell goes on over rows")
        if len(row) != layout.width:
            return ended(_ragged(number, row, layout, first))
        gone = False
        for place in chosen:
            cell = row[place]
            if is_missing(cell):
                where = f"line {number}, column {place + 1}{_name(named, place)}: a value is missing ({cell!r})"
                gone, first_missing = True, first_missing or where
            elif not is_value(cell.strip(), layout.decimal):
                where = f"line {number}, column {place + 1}{_name(named, place)}"
                words = first and not any(is_value(one.strip(), layout.decimal) for one in row)
                said = NO_ROW.format(cell[:40]) if words else _no_number(cell, layout)
                return ended(f"{where}: {said}")
        missing += gone
        first = False


def numbers(lines: Iterable[str], layout: Layout, chosen: Sequence[int]) -> NDArray[np.float64]:
    """The numbers (N, D) in the cells at the D `chosen` places, NaN where one is missing, of lines without a fault.

    It is slow, and takes all that `scan` takes: comments between rows, blanks around marks for what is missing.
    """
    found = array("d")
    for _, row in _numbered(lines, layout):
        for place in chosen:
            cell = row[place].strip()
            found.append(math.nan if is_missing(cell) else float(plain(cell, layout.decimal)))
    return np.array(found, dtype=np.float64).reshape(-1, len(chosen))


def _is_row(comment: str, layout: Layout, chosen: Sequence[int]) -> bool:
    """Whether a comment would be a row without its mark: as many cells, and numbers where they are wanted."""
    bare = REMARK.sub("", comment.strip().removeprefix("#"))
    if layout.width == 1 and bare[:1].isspace():  # `# 2020`
        return False
    line = " ".join(bare.split()) if layout.separator == BLANKS else bare
    try:
        row = next(csv.reader([line], delimiter=layout.separator, skipinitialspace=True), [])
    except csv.Error:
        return False
    return len(row) == layout.width and all(is_value(row[place].strip(), layout.decimal) for place in chosen)


def _numbered(
    lines: Iterable[str], layout: Layout, passed: Callable[[int, str], None] = lambda number, line: None
) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header with their numbers of lines, blank lines and comments passed over.

    `passed` is told the comments, above the header, too.
    """
    at, begun = 0, False  # a line that goes on within quotation marks is no comment

    def below() -> Iterator[str]:
        nonlocal at, begun
        for number, line in enumerate(lines, 1):
            if number <= layout.skip or (not begun and (not line.strip() or is_comment(line))):
                if is_comment(line) or REMARK.match(line):
                    passed(number, line)
                continue
            at, begun = number, True
            yield " ".join(line.split()) if layout.separator == BLANKS else line

    reader = csv.reader(below(), delimiter=layout.separator, skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {at}: {error}") from None
        yield at, row
        begun = False


def holds_rows(cell: str, layout: Layout) -> bool:
    """Whether a cell goes on over what looks like rows."""
    return any(line.count(layout.separator) >= max(1, layout.width - 1) for line in cell.splitlines()[1:])


def _name(named: dict[int, str], place: int) -> str:
    return f" ('{named[place]}')" if place in named else ""


def _ragged(number: int, row: Sequence[str], layout: Layout, first: bool) -> str:
    said = f"line {number} has {counted(len(row), 'cell')}, the first line has {layout.width}"
    if layout.separator == "," and len(row) == 2 * layout.width and all(map(is_whole, row)):
        return f"{said}; where the comma is a decimal mark, separate cells by ';' or tabs"
    if first and layout.skip:
        return f"{said}; put # before lines above the header"
    return f"{said}; every line needs as many"


def _no_number(cell: str, layout: Layout) -> str:
    shown = repr(cell[:40])
    if kind_of(cell, layout.decimal) == THOUSANDS:
        return f"{shown} has a thousands separator; write numbers without, as 1234.5"
    if layout.decimal == "." and layout.separator != "," and COMMA_NUMBER.fullmatch(cell.strip()):
        return f"{shown} has a decimal comma, and the numbers above have none; write decimal points throughout"
    if layout.separator == "," and "," in cell:
        return f"{shown} has a comma in it; write a decimal point, or separate cells by ';'"
    between = {"\t": "tabs", BLANKS: "blanks", ",": "commas"}.get(layout.separator, f"'{layout.separator}'")
    return f"{shown} is not a number; give numbers, separated by {between} as here"
