"""How a text table is laid out, read off its first lines: separator, decimal mark, header, columns that are none."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sparseflows.data.files.reading import is_number
from sparseflows.data.text.cells import (
    COMMA_NUMBER,
    MISSING,
    NUMBER,
    THOUSANDS,
    decimal_mark,
    kind_of,
    kind_of_column,
    plain,
    points_group_digits,
)
from sparseflows.data.text.header import Header, find_header, is_index, names_rows
from sparseflows.errors import InputError

SEPARATORS = ("\t", ";", "|", ",")
BLANKS = " "  # any number of them
SHOWN = 400  # lines that the layout is read off
# What a spreadsheet writes in place of a number begins like a comment, but a separator follows.
_ERROR = re.compile(r"#(N/?A|NV|DIV/0!|[^\W\d_]{2,8}[!?])\s*([,;|\t]|$)")
REMARK = re.compile(r"\s*(%+|//+)(?=\s)")  # above all rows, a comment too
_EXCELS = re.compile(r'"?sep=(.)"?')  # a line above the header that tells Excel the separator


@dataclass(frozen=True)
class Layout:
    """The layout of a text table.

    Attributes:
        separator: between cells; BLANKS stands for any number of blanks.
        decimal: the decimal mark.
        skip: lines above the first row.
        width: cells of a row.
        names: of the columns, without those of `index` and `empty`; None where the file has none.
        places: of the columns among the cells of a row.
        index: names of the columns that are no data but an index, as far as their names tell.
        kinds: what each column holds, and its first cell of that kind.
        notes: what was decided that could have been decided otherwise, one line each.
        decided: what an earlier reader, which knew commas and headers of text alone, would have read otherwise.
    """

    separator: str
    decimal: str
    skip: int
    width: int
    names: tuple[str, ...] | None
    places: tuple[int, ...]
    index: tuple[str, ...]
    kinds: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    decided: tuple[str, ...]


def split_lines(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    """The cells of each line (of each row, where a quoted cell has line ends in it)."""
    if separator != BLANKS:
        yield from csv.reader(lines, delimiter=separator, skipinitialspace=True)
        return
    yield from csv.reader((" ".join(line.split()) for line in lines), delimiter=" ")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends, as a file has them: `str.splitlines` knows more ends than these."""
    return list(io.StringIO(text, newline=""))


def is_comment(line: str) -> bool:
    """Whether the line is a comment: it begins with `#`, and not with `#DIV/0!` or another error in a first cell."""
    bare = line.lstrip()
    return bare[:1] == "#" and not _ERROR.match(bare)


def find_layout(text: str, source: str, header: str | bool = "auto", index: str | bool = "auto") -> Layout:
    """The layout of the table that begins with `text`, whole lines.

    Args:
        text: the first lines; blank ones and comments (`# …`) are passed over.
        source: the file, for messages.
        header: whether the first line is one; `auto` decides by what stands in it and below.
        index: whether the first column is left out as an index; `auto` leaves out what has no name and counts, or
            what names rows.

    Raises:
        InputError: no lines.
    """
    numbered = [(k, line) for k, line in enumerate(lines_of(text), 1) if line.strip()]
    everything = [(k, line) for k, line in numbered if not is_comment(line)]
    everything = list(itertools.dropwhile(lambda one: REMARK.match(one[1]), everything)) or everything
    given = _EXCELS.fullmatch(everything[0][1].strip()) if len(everything) > 1 else None
    everything = everything[1:] if given else everything
    filled = everything[:SHOWN]
    if not filled:
        return Layout(",", ".", 0, 0, None, (), (), (), (), ())
    separator = given[1] if given else _separator([line for _, line in filled])
    try:
        rows = list(split_lines([line for _, line in filled], separator))
        # Fractions may be rare: the decimal mark is looked for in all that is here.
        cells = [
            cell for row in split_lines([line for _, line in everything[1:] or everything], separator) for cell in row
        ]
    except csv.Error as error:
        raise InputError(f"{source}: line {filled[0][0]}: {error}") from None
    last = filled[_lines_of_first(filled, separator) - 1][0]  # of the first row
    decimal = decimal_mark(cells, separator)
    comment = [REMARK.sub("", line.lstrip().removeprefix("#")) for k, line in numbered if k < filled[0][0]][-1:]
    comment = [] if given else comment
    above = next(split_lines(comment, separator), None) if comment else None
    found = find_header(rows, above, decimal, header)
    body = rows[1:] if found.is_line else rows
    width = Counter(map(len, body or rows)).most_common(1)[0][0]
    names = _fit(found, body, width, halves=separator == "," and not any("." in cell for cell in cells))
    width = width if names is None else len(names)
    kinds = [_kind(body, place, decimal, separator) for place in range(width)]
    left_out, notes = _index_places(names, body, kinds, index)
    empty = _empty_end(names, body, width)
    places = tuple(k for k in range(width) if k not in left_out and k not in empty)
    index_names = tuple((names[k] or "without a name") if names else f"column {k + 1}" for k in sorted(left_out))
    halves = _said_of_halves(rows) if separator == "," and not found.is_line else []
    own = None if names is None else [names[k].strip() or f"column {k + 1}" for k in places]
    notes = [*found.notes, *notes, *_said_of_twins(own), *_said_of_commas(cells, decimal), *halves]
    decided = [*(["header"] if found.unusual else []), *(["index"] if left_out else [])]
    return Layout(
        separator,
        decimal,
        last if found.is_line else filled[0][0] - 1,
        width,
        None if own is None else tuple(unique(own)),
        places,
        index_names,
        tuple(kinds[k] for k in places),
        tuple(notes),
        tuple(decided),
    )


def _said_of_twins(names: Sequence[str] | None) -> list[str]:
    twins = [(a, b) for a, b in zip(names or (), unique(names or ()), strict=True) if a != b]
    return [f"several columns are called '{twins[0][0]}'; the next is '{twins[0][1]}' here"] if twins else []


def unique(names: Iterable[str]) -> list[str]:
    """The names, those that were there before with `.1`, `.2` and so on behind them."""
    found: list[str] = []
    for name in names:
        taken, number = name, 0
        while taken in found:
            number += 1
            taken = f"{name}.{number}"
        found.append(taken)
    return found


def _separator(lines: Sequence[str]) -> str:
    """The separator under which most lines have the same number of cells and most cells are numbers."""
    best, chosen = (0.0, 0.0), ","
    for separator in (*SEPARATORS, BLANKS):
        try:
            rows = list(split_lines(lines, separator))
        except csv.Error:
            continue
        below = rows[1:] or rows
        widths = Counter(map(len, below))
        width, count = widths.most_common(1)[0]
        if max(map(len, rows)) < 2 or (separator == BLANKS and width < 2):
            continue
        cells = [cell for row in below for cell in row]
        # Blanks within cells or groups of digits, unless the marks are decimal ones.
        marked = separator == BLANKS and any(mark in lines[0] for mark in SEPARATORS)
        if marked and not all(COMMA_NUMBER.fullmatch(cell) or is_number(cell) for cell in rows[0]):
            continue
        decimal = decimal_mark(cells, separator)
        known = sum(kind_of(cell, decimal) in (NUMBER, THOUSANDS, MISSING) for cell in cells) / len(cells)
        even = count / len(below) if width > 1 else 0.0
        # A header agrees with its rows, or lacks the cell above the names of rows.
        header = len(rows[0]) in (width, width - 1, width + 1)
        found = (even * (0.1 + known) * (1.0 if header else 0.5), known)
        if found > best:
            best, chosen = found, separator
    return chosen


def _fit(found: Header, body: Sequence[Sequence[str]], width: int, halves: bool) -> list[str] | None:
    """The names for cells of rows: one more where rows begin with a name that the header has no cell for, or end in
    a separator; `halves` says that two cells may be halves of a number with a decimal comma."""
    names = None if found.names is None else list(found.names)
    if names is None or len(names) == width:
        return names
    if len(names) == width - 1 and body:
        rows = [row for row in body if len(row) == width]
        if all(row[-1].strip() == "" for row in rows):
            return [*names, ""]
        firsts = [row[0] for row in rows]
        if found.is_line and (width > 2 or not halves) and names_rows(firsts, all_numbers=width > 2 and not halves):
            return ["", *names]
    if len(names) == width + 1 and names[-1].strip() == "":
        return names[:-1]
    return names if found.is_line else None


def _lines_of_first(filled: Sequence[tuple[int, str]], separator: str) -> int:
    """How many lines the first row takes: more than one where a quoted cell has line ends in it."""
    if separator == BLANKS:
        return 1
    reader = csv.reader((line for _, line in filled), delimiter=separator, skipinitialspace=True)
    next(reader, None)
    return reader.line_num


def _kind(body: Sequence[Sequence[str]], place: int, decimal: str, separator: str) -> tuple[str, str]:
    cells = [row[place] for row in body if place < len(row)]
    kind = kind_of_column(cells, decimal)
    if kind == NUMBER and decimal == "." and separator == ";" and points_group_digits(cells):
        return THOUSANDS, next(cell for cell in cells if "." in cell)
    return kind, next((cell for cell in cells if kind_of(cell, decimal) == kind), "")


def _empty_end(names: Sequence[str] | None, body: Sequence[Sequence[str]], width: int) -> set[int]:
    """The place of the last column where every row ends in a separator, with nothing behind it."""
    nameless = names is None or (len(names) == width and names[-1].strip() == "")
    rows = [row for row in body if len(row) == width]
    several = width > 1 and len(rows) > 0
    return {width - 1} if several and nameless and all(row[-1].strip() == "" for row in rows) else set()


def _index_places(
    names: Sequence[str] | None, body: Sequence[Sequence[str]], kinds: Sequence[tuple[str, str]], index: str | bool
) -> tuple[set[int], list[str]]:
    """The places of the columns that are an index, and what is said of them.

    Of a file with names these are the first columns, as long as they have none of their own (or the one that pandas
    gives to such) and hold whole or rising numbers or what is no number. Of a file without, the column of numbers that
    count the rows is found when all rows are read.
    """
    if index is False:
        return set(), []
    if index is True:
        return {0}, []
    found: set[int] = set()
    kept: list[str] = []
    for place, name in enumerate(names or ()):
        bare = name.strip()
        if (bare not in ("", "#") and not re.fullmatch(r"Unnamed: \d+", bare)) or place == len(kinds) - 1:
            break
        cells = [row[place] for row in body if place < len(row)]
        if kinds[place][0] == NUMBER and not is_index(cells, named=False):
            shown = ", ".join(cell.strip() for cell in cells[:3])
            kept.append(
                f"column {place + 1}, which has no name and holds {shown}, …, is kept: it does not look like an "
                f"index (data.drop: [column {place + 1}] leaves it out)"
            )
            break
        found.add(place)
    said = ("the first column, which has no name and holds", "an index does (data.index: no keeps it)")
    if not found:
        return found, kept
    shown = ", ".join(row[0].strip() for row in body[:3] if row)
    return found, [f"left out {said[0]} {shown}, … as {said[1]}", *kept]


def _said_of_halves(rows: Sequence[Sequence[str]]) -> list[str]:
    """What is said of rows of whole numbers every second of which may be the decimals of the one before: some of those
    begin with 0, follow −0 or have an exponent, as no whole number does."""
    width = len(rows[0])
    if width % 2 or any(len(row) != width for row in rows):
        return []
    fronts, backs = ([cell.strip() for row in rows for cell in row[first::2]] for first in (0, 1))
    if not all(re.fullmatch(r"[+-]?(0|[1-9]\d*)", cell) for cell in fronts):
        return []
    if not all(re.fullmatch(r"\d+([eE][+-]?\d+)?", cell) for cell in backs) or (
        not any(cell == "-0" for cell in fronts) and not any(re.fullmatch(r"0\d+|\d+[eE].*", cell) for cell in backs)
    ):
        return []
    shown = ",".join(rows[0][:2])
    return [f"cells such as {shown} look like halves of numbers with decimal commas; if so, separate numbers by ';'"]


def _said_of_commas(cells: Sequence[str], decimal: str) -> list[str]:
    if decimal == ".":
        return []
    cell = next(cell.strip() for cell in cells if COMMA_NUMBER.fullmatch(cell.strip()))
    return [f"the comma is read as the decimal mark: {cell} is {float(plain(cell, ',')):g}"]
