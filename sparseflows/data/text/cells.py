"""What a cell of a text table holds: a number, nothing, or something that is no number, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from sparseflows.data.files.reading import is_number

# Written in place of a number.
MISSING_MARKS = frozenset(
    {"", "na", "n/a", "n.a.", "nan", "null", "none", "?", "-", ".", "#n/a", "#na", "<na>", "nat", "missing"}
    | {"#n/a n/a", "(null)", "\\n", "-nan(ind)", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}  # databases, Windows
)

NUMBER, MISSING, BOOLEAN, DATE, THOUSANDS, TEXT = "number", "missing", "boolean", "date", "thousands", "text"

# What the kinds are called in messages, and what can be done beside leaving the column out.
HOLDS = {
    BOOLEAN: "yes and no",
    DATE: "dates or times",
    THOUSANDS: "numbers with thousands separators",
    TEXT: "text",
}
INSTEAD = {
    BOOLEAN: "two values have no density",
    DATE: "or turn them into numbers, such as days since the first",
    THOUSANDS: "or write them without: 1234.5",
    TEXT: "a flow takes numbers",
}

COMMA_NUMBER = re.compile(r"[+-]?(\d+,\d*|,\d+)([eEdD][+-]?\d+)?")
_FORTRAN = re.compile(r"([+-]?(?:\d+[.,]\d*|[.,]\d+))[dD]([+-]?\d{1,3})")
POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eEdD][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:([,.'’\s\u00a0\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d+)?")
_BOOLEANS = frozenset({"true", "false", "yes", "no", "t", "f", "y", "n"})
_DATES = re.compile(
    r"\d{4}[-/.]\d{1,2}([-/.]\d{1,2}([T ].*)?)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?|\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?"
    r"|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}( .*)?|[A-Za-z]{3,9} \d{1,2},? \d{4}( .*)?|\d{4}[-]?[WQ]\d{1,2}"
)


def is_missing(cell: str) -> bool:
    """Whether the cell stands for a value that is not there."""
    return cell.strip().lower() in MISSING_MARKS


def is_value(cell: str, decimal: str) -> bool:
    """Whether the cell is a number with this decimal mark, infinities among them."""
    return not (decimal == "," and "." in cell) and is_number(plain(cell, decimal))


def plain(cell: str, decimal: str) -> str:
    """A number as Python writes it: with a decimal point, and an exponent after e where Fortran has written a D."""
    found = _FORTRAN.sub(r"\1e\2", cell) if "d" in cell or "D" in cell else cell
    return found.replace(",", ".", 1) if decimal == "," else found


def is_whole(cell: str) -> bool:
    """Whether the cell is written as a whole number is, without a decimal mark or an exponent."""
    return re.fullmatch(r"\s*[+-]?\d+\s*", cell) is not None


def kind_of(cell: str, decimal: str) -> str:
    """What the cell holds."""
    bare = cell.strip()
    if is_missing(bare):
        return MISSING
    if is_value(bare, decimal):
        return NUMBER
    if bare.lower() in _BOOLEANS:
        return BOOLEAN
    if _DATES.fullmatch(bare) and not (decimal == "." and is_number(bare)):
        return DATE
    return THOUSANDS if _GROUPED.fullmatch(bare) else TEXT


def kind_of_column(cells: Iterable[str], decimal: str) -> str:
    """What a column holds whose first cells these are: numbers, where half of them are; else what most are.

    A single cell that is no number is for whoever reads the column to find, by line.
    """
    counts = Counter(kind_of(cell, decimal) for cell in cells)
    counts.pop(MISSING, None)
    if not counts or 2 * counts[NUMBER] >= counts.total():
        return NUMBER
    del counts[NUMBER]
    return counts.most_common(1)[0][0]


def decimal_mark(cells: Iterable[str], separator: str) -> str:
    """The decimal mark of these cells: a comma where some have one between digits and none a point.

    Where the comma separates cells too, those with one in them were in quotes, and group digits as often as not: it is
    the decimal mark where some are no groups of three."""
    cells = list(cells)
    if separator == "," and not any("," in cell for cell in cells):
        return "."
    commas = points = 0
    grouped, hundreds = True, False
    for cell in cells:
        bare = cell.strip()
        if COMMA_NUMBER.fullmatch(bare):
            commas += 1
            grouped = grouped and re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", bare) is not None
        points += POINT_NUMBER.fullmatch(bare) is not None
        hundreds = hundreds or re.fullmatch(r"[+-]?[1-9]\d\d", bare) is not None
    # Where every comma groups three digits, numbers of three digits without one tell that it does no more than that.
    return "," if commas and not points and not (grouped and (hundreds or separator == ",")) else "."


def points_group_digits(cells: Iterable[str]) -> bool:
    """Whether the points in a column group digits: every one has three behind it, and some whole numbers have three."""
    bare = [cell.strip() for cell in cells if not is_missing(cell)]
    pointed = [cell for cell in bare if not is_whole(cell)]
    hundreds = any(re.fullmatch(r"[+-]?[1-9]\d\d", cell) for cell in bare)
    return len(pointed) > 1 and hundreds and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}\.\d{3}", cell) for cell in pointed)
