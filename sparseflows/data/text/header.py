"""Whether the first line of a text table names its columns, and whether a column only names its rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from sparseflows.data.text.cells import is_missing, is_value, is_whole

AT_LEAST = 3  # columns whose numbers 0, 1, 2, … are names, whatever stands below


@dataclass(frozen=True)
class Header:
    """What was found of a header.

    Attributes:
        names: of the columns, empty where a cell is; None: there are none.
        is_line: the first line is the header; else it is a row, and names, if any, come from a comment above.
        by_numbers: the names are numbers, so that the line could have been a row.
        notes: what was decided, one line each.
    """

    names: tuple[str, ...] | None
    is_line: bool
    by_numbers: bool = False
    notes: tuple[str, ...] = ()


def find_header(rows: Sequence[Sequence[str]], above: Sequence[str] | None, decimal: str, wanted: str | bool) -> Header:
    """The header of a table.

    The first line is one if a cell of it is text. Where all are whole numbers, it is one if they count on by one (three
    or more, and no row below is the same; two above columns of fractions), if three or more rise above columns of
    fractions, and if they stand behind a first cell without a name above what names rows.

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
        bare = tuple(cell.strip() for cell in above)
        commented = bare if all(bare) and not any(is_value(cell, decimal) for cell in bare) else None
    if wanted is False:
        return Header(None, False)
    if any(not is_value(cell, decimal) and not is_missing(cell) for cell in first):
        return Header(names, True)
    if commented is not None:
        return Header(commented, False)
    return _of_numbers(names, below, decimal)


def _of_numbers(names: tuple[str, ...], below: Sequence[Sequence[str]], decimal: str) -> Header:
    """The header, if it is one, that has no text in it."""
    unnamed = 0
    while unnamed < len(names) - 1 and names[unnamed] == "":
        unnamed += 1
    cells = names[unnamed:]
    if not below or not all(is_whole(cell) for cell in cells):
        return Header(None, False)
    numbers = [int(cell) for cell in cells]
    counts = numbers == list(range(numbers[0], numbers[0] + len(numbers))) and all(c == str(int(c)) for c in cells)
    named_rows = unnamed > 0 and is_index([row[0] for row in below if row])
    if named_rows and len(set(cells)) == len(cells):
        return Header(names, True, True)
    if unnamed or len(set(cells)) < len(cells):
        return Header(None, False)
    fractions = _all_fractions(below)
    shown = ",".join(names[:6]) + (",…" if len(names) > 6 else "")
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
    if len(numbers) > 1 and (fractions or (counts and from_0)):
        said = f"the first line, {shown}, is read as a row like those below; data.header: yes takes it for names"
        return Header(None, False, False, (said,))
    return Header(None, False)


def _all_fractions(rows: Sequence[Sequence[str]]) -> bool:
    """Whether no cell of a column is written as a whole number, or but a few of many."""
    cells = [cell for row in rows for cell in row if not is_missing(cell)]
    whole = sum(is_whole(cell) for cell in cells)
    return len(cells) > 0 and whole <= 0.05 * len(cells)


def is_index(cells: Sequence[str]) -> bool:
    """Whether a column without a name may name rows: whole numbers each of which is there once, or that mostly count
    on by one (parts put one below the other), or no numbers at all."""
    bare = [cell.strip() for cell in cells]
    if not bare or any(is_missing(cell) for cell in bare):
        return False
    whole = [is_whole(cell) or (cell.endswith(".0") and is_whole(cell[:-2])) for cell in bare]
    if not any(whole):
        return not any(is_value(cell, ".") for cell in bare)
    if not all(whole):
        return False
    numbers = [int(float(cell)) for cell in bare]
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    return len(set(numbers)) == len(numbers) or sum(step == 1 for step in steps) > len(steps) / 2


def names_rows(cells: Sequence[str]) -> bool:
    """Whether a column that the header has no cell for names rows, as R writes it: by words, or by 1, 2, 3, …"""
    counted = all(cell.strip() == str(k) for k, cell in enumerate(cells, 1))
    return is_index(cells) and (counted or not any(is_value(cell, ".") for cell in cells))
