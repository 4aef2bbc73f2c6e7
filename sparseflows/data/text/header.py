"""Whether the first line of a text table names its columns, and whether a column only names its rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sparseflows.data.text.cells import NUMBER, is_missing, is_value, is_whole, kind_of_column, plain

AT_LEAST = 3  # columns whose numbers 0, 1, 2, … are names, whatever stands below
MANY = 20  # rows beyond all of which no number of another row lies in three columns but by a chance of (2/21)³


@dataclass(frozen=True)
class Header:
    """What was found of a header.

    Attributes:
        names: of the columns, empty where a cell is; None: there are none.
        is_line: the first line is the header; else it is a row, and names, if any, come from a comment above.
        unusual: text in the first line made no header of it, or numbers made one.
        notes: what was decided, one line each.
    """

    names: tuple[str, ...] | None
    is_line: bool
    unusual: bool = False
    notes: tuple[str, ...] = ()


def find_header(rows: Sequence[Sequence[str]], above: Sequence[str] | None, decimal: str, wanted: str | bool) -> Header:
    """The header of a table.

    The first line is one if a cell of it is text, unless it has text and numbers just where the rows below do.
    Where all are whole numbers, it is one if they count on by one (three or more, and no row below is the same; two
    above columns of fractions), if three or more rise above columns of fractions, and if they stand behind a first
    cell without a name above what names rows. Three or more fractions are one if they rise by one step, as no row
    below does, or if they rise and each lies beyond all numbers below it.

    Args:
        rows: the cells of the first lines.
        above: the cells of the comment right above, if there is one.
        decimal: the decimal mark.
        wanted: `auto` decides; True and False are what the user says.
    """
    first, below = [cell.strip() for cell in rows[0]], rows[1:]
    names = tuple(first)
    if wanted is True:
        return Header(names, True)
    commented = None
    if above is not None and wanted == "auto" and len(above) == len(first):
        bare = tuple(cell.strip() or "#" * (k == 0) for k, cell in enumerate(above))  # the mark is a name, too
        commented = bare if all(bare) and not any(is_value(cell, decimal) for cell in bare) else None
    if wanted is False:
        return Header(None, False)
    if any(not is_value(cell, decimal) and not is_missing(cell) for cell in first):
        said = f"the first line, {_shown(names)}, is"
        if _is_row(first, below, decimal):
            said = f"{said} read as a row like those below; data.header: yes takes it for names"
            return Header(None, False, True, (said,))
        numbers = any(is_value(cell, decimal) and not is_missing(cell) for cell in first)
        return Header(names, True, False, (f"{said} taken for names; data.header: no reads it as a row",) * numbers)
    found = _of_numbers(names, below, decimal)
    return found if found.is_line or commented is None else Header(commented, False)


def _is_row(first: Sequence[str], below: Sequence[Sequence[str]], decimal: str) -> bool:
    """Whether a first line with text in it is a row: it has text and numbers where the rows below have them, and its
    words come again below, or its numbers are none that name columns, as years do."""
    rows = [row for row in below if len(row) == len(first)]
    numbers = []
    again = False
    for place, cell in enumerate(first):
        column = [row[place].strip() for row in rows]
        holds_numbers = kind_of_column(column, decimal) == NUMBER
        if is_value(cell, decimal) != holds_numbers and not is_missing(cell):
            return False
        if holds_numbers and not is_missing(cell):
            numbers.append(cell)
        again = again or (not holds_numbers and cell in column)
    if not numbers or not rows:
        return False
    values = [float(plain(cell, decimal)) for cell in numbers]
    if all(map(is_whole, numbers)) and _all_fractions([[c for c in row if is_value(c, decimal)] for row in rows]):
        return again
    return again or not _rises(values) or not (all(map(is_whole, numbers)) or len(numbers) >= AT_LEAST)


def _of_numbers(names: tuple[str, ...], below: Sequence[Sequence[str]], decimal: str) -> Header:
    """The header, if it is one, that has no text in it."""
    unnamed = 0
    while unnamed < len(names) - 1 and names[unnamed] == "":
        unnamed += 1
    cells = names[unnamed:]
    if not below or not all(is_whole(cell) for cell in cells):
        return _of_fractions(names, unnamed, below, decimal)
    numbers = [int(cell) for cell in cells]
    counts = numbers == list(range(numbers[0], numbers[0] + len(numbers))) and all(c == str(int(c)) for c in cells)
    firsts = [row[0] for row in below if row]
    named_rows = unnamed > 0 and is_index(firsts, named=not (counts and (len(numbers) > 1 or numbers[0] == 0)))
    if named_rows and len(set(cells)) == len(cells):
        return Header(names, True, True)
    if unnamed or len(set(cells)) < len(cells):
        return Header(None, False)
    fractions = _all_fractions(below)
    shown = _shown(names)
    several, from_0 = len(numbers) >= AT_LEAST, numbers[0] == 0
    # One column that is called 0 is told by the fractions below it; another number alone is none.
    above_fractions = fractions and (
        (counts and (len(numbers) > 1 or from_0)) or (several and numbers == sorted(numbers))
    )
    if above_fractions or (
        counts and several and not any([cell.strip() for cell in row] == list(names) for row in below)
    ):
        said = f"the first line, {shown}, is taken for column numbers; data.header: no reads it as a row"
        return Header(names, True, True, (said,))
    if fractions or (counts and (from_0 or len(numbers) > 1)):
        said = f"the first line, {shown}, is read as a row like those below; data.header: yes takes it for names"
        return Header(None, False, False, (said,))
    return Header(None, False)


def _of_fractions(names: tuple[str, ...], unnamed: int, below: Sequence[Sequence[str]], decimal: str) -> Header:
    """The header, if it is one, of numbers that are not all whole: a grid of times or wavelengths, say."""
    numbers = _numbers(names[unnamed:], decimal)
    rows = [row for row in below if len(row) == len(names)]
    if not numbers or not rows or not _rises(numbers):
        return Header(None, False)
    if unnamed and is_index([row[0] for row in rows]):
        return Header(names, True, True)
    if unnamed or len(numbers) < AT_LEAST:
        return Header(None, False)
    whole = [found for found in (_numbers(row, decimal) for row in rows) if found]
    beyond = len(whole) >= MANY and all(
        not min(column) <= number <= max(column) for number, *column in zip(numbers, *whole, strict=True)
    )
    even = _even(numbers) and not any(map(_even, whole))
    rounder = max(map(_digits, names)) < max(_digits(cell) for row in rows for cell in row)
    said = f"the first line, {_shown(names)}, is"
    if beyond or (even and (rounder or len(numbers) > AT_LEAST)):
        return Header(names, True, True, (f"{said} taken for names of columns; data.header: no reads it as a row",))
    notes = (f"{said} read as a row like those below; data.header: yes takes it for names",) if even else ()
    return Header(None, False, False, notes)


def _digits(cell: str) -> int:
    """How many characters follow the decimal mark."""
    return len(cell.strip().replace(",", ".").partition(".")[2])


def _numbers(cells: Sequence[str], decimal: str) -> list[float]:
    """The numbers in all of the cells, or nothing where one of them is none."""
    known = all(is_value(cell.strip(), decimal) and not is_missing(cell) for cell in cells)
    return [float(plain(cell.strip(), decimal)) for cell in cells] if known else []


def _rises(numbers: Sequence[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(numbers))


def _even(numbers: Sequence[float]) -> bool:
    """Whether numbers rise by one step."""
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return bool(steps) and min(steps) > 0 and max(steps) - min(steps) <= 1e-6 * max(steps)


def _shown(names: Sequence[str]) -> str:
    return ",".join(names[:6]) + (",…" if len(names) > 6 else "")


def _all_fractions(rows: Sequence[Sequence[str]]) -> bool:
    """Whether no cell of a column is written as a whole number, or but a few of many."""
    cells = [cell for row in rows for cell in row if not is_missing(cell)]
    whole = sum(is_whole(cell) for cell in cells)
    return len(cells) > 0 and whole <= 0.05 * len(cells)


def is_index(cells: Sequence[str], named: bool = True) -> bool:
    """Whether a column may name rows: whole numbers each of which is there once, or that mostly count on by one (parts
    put one below the other), or no numbers at all; where only the others are `named`, whole or rising numbers of any
    kind."""
    bare = [cell.strip() for cell in cells]
    if not bare or any(is_missing(cell) for cell in bare):
        return False
    whole = [is_whole(cell) or (cell.endswith(".0") and is_whole(cell[:-2])) for cell in bare]
    if not any(is_value(cell, ".") for cell in bare):
        return True
    if not all(whole):
        return not named and len(bare) > 1 and _rises(_numbers(bare, "."))
    numbers = [int(float(cell)) for cell in bare]
    if not named:
        return True
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return len(set(numbers)) == len(numbers) or sum(step == 1 for step in steps) > len(steps) / 2


def names_rows(cells: Sequence[str], all_numbers: bool) -> bool:
    """Whether a column that the header has no cell for names rows, as R writes it: by words, by 1, 2, 3, …, or by
    whole numbers in `all_numbers` of orders."""
    counted = all(cell.strip() == str(k) for k, cell in enumerate(cells, 1))
    return is_index(cells) and (all_numbers or counted or not any(is_value(cell, ".") for cell in cells))
