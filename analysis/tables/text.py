"""Sheets for the terminal: aligned columns, `±` below `±`, an asterisk at what is marked."""

import textwrap
from collections.abc import Sequence

from analysis.tables.sheet import Sheet

WIDTH = 100
_GAP = "  "
_LEAST_FIRST = 14  # characters of the first column, which is cut where the table would be too wide


def text(*sheets: Sheet, width: int = WIDTH) -> str:
    """Tables of at most `width` characters where the first column can give way, one below the other.

    Titles over several columns keep these together: what does not fit beside the others goes on in a block below.
    """
    return "\n".join(_text(sheet, width) for sheet in sheets)


def wrapped(line: str, width: int = WIDTH) -> str:
    """A sentence on several lines; a number stays with its unit and its error."""
    return textwrap.fill(held(line), width, subsequent_indent="  ").replace("\N{NO-BREAK SPACE}", " ")


def held(line: str) -> str:
    """A line in which a number stays with its unit and its error: with no-break spaces between them."""
    return line.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _text(sheet: Sheet, width: int) -> str:
    columns = [_column(sheet, number) for number in range(len(sheet.heading))]
    widths = [max(map(len, column)) for column in columns]
    if not (sheet.spans or sheet.whole_names):
        room = width - _breadth(widths, range(len(widths))) + widths[0]
        widths[0] = max(min(_LEAST_FIRST, widths[0]), min(widths[0], room))
    widths[0] = max([widths[0], *map(len, sheet.groups.values())])
    columns[0] = [name if len(name) <= widths[0] else f"{name[: widths[0] - 1]}…" for name in columns[0]]
    out = [textwrap.shorten(sheet.title, width, placeholder=" …")]
    out += textwrap.wrap(sheet.legend_with("* {}"), width) if sheet.legend else []
    for block in _blocks(sheet, widths, width):
        out += ["", *_block(sheet, columns, widths, block)]
    notes = [textwrap.fill(note, width, subsequent_indent="  ") for note in sheet.notes]
    return "\n".join([*out, *([""] if notes else []), *notes]) + "\n"


def _column(sheet: Sheet, column: int) -> list[str]:
    """The heading of a column and its cells: those without an error end where the others' values end."""
    cells = [row[column] for row in sheet.body]
    tail = max((len(cell.partition(" ± ")[2]) for cell in cells), default=0)
    lined = []
    for cell in cells:
        value, sign, se = cell.partition(" ± ")
        blank = not cell or not tail
        lined.append(f"{value}{sign}{se:>{tail}}" if sign else value if blank else value + " " * (tail + 3))
    marked = {row for row, place in sheet.marks if place == column}
    if not marked:
        return [sheet.heading[column], *lined]
    room = max(len(cell) for cell in (sheet.heading[column], *lined))
    shown = [f"{'*' if row in marked else ' '} {cell:>{room}}" for row, cell in enumerate(lined)]
    return [f"  {sheet.heading[column]:>{room}}", *shown]


def _breadth(widths: Sequence[int], columns: Sequence[int]) -> int:
    return sum(widths[column] for column in columns) + len(_GAP) * (len(columns) - 1)


def _blocks(sheet: Sheet, widths: list[int], width: int) -> list[list[tuple[str, range]]]:
    """The columns of each block; a title that is wider than its columns widens the last of them."""
    blocks: list[list[tuple[str, range]]] = [[]]
    used = widths[0]
    for title, columns in sheet.blocks():
        inner = _breadth(widths, columns)
        widths[columns[-1]] += max(0, len(title) - inner)
        needed = max(inner, len(title)) + len(_GAP)
        if sheet.spans and blocks[-1] and used + needed > width:
            blocks.append([])
            used = widths[0]
        blocks[-1].append((title, columns))
        used += needed
    return blocks


def _block(
    sheet: Sheet, columns: Sequence[Sequence[str]], widths: Sequence[int], block: Sequence[tuple[str, range]]
) -> list[str]:
    places = [column for _, several in block for column in several]

    def line(row: int) -> str:
        cells = [columns[place][row].rjust(widths[place]) for place in places]
        return _GAP.join([columns[0][row].ljust(widths[0]), *cells]).rstrip()

    out = []
    if sheet.spans:
        titles = [title.center(_breadth(widths, several)) for title, several in block]
        out.append(_GAP.join([" " * widths[0], *titles]).rstrip())
    out.append(line(0))
    rule = "-" * _breadth(widths, (0, *places))
    group = ""
    for row, cells in enumerate(sheet.body):
        group = sheet.groups.get(row, group)
        if sheet.spans and all(cells[place] == "-" for place in places):
            continue  # nothing of this row is in this block
        if group:
            out += [rule, group]
            group = ""
        out.append(line(row + 1))
    return [*out, rule] if sheet.groups else out
