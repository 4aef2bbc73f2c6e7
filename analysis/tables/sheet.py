"""A table as cells of text, whatever it is about; `text`, `markup` and `rows` write it down."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sheet:
    """What a table shows: every row of `body` has a cell for every name in `heading`; "-" where there is none.

    Attributes:
        title: what it is about.
        legend: what the numbers are.
        heading: a name for each column; the first column names the rows.
        body: the cells.
        label: for references in LaTeX.
        notes: footnotes, a line each.
        marks: the cells (row, column) that are set in bold (an asterisk in text), and `marked_is` what that means.
        spans: titles above several columns each, from the second column on; empty where there are none.
        groups: row → the title of the group that begins there.
        whole_names: keep the first column whole even where the table becomes too wide for the terminal.
    """

    title: str
    legend: str
    heading: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    label: str
    notes: tuple[str, ...] = ()
    marks: frozenset[tuple[int, int]] = frozenset()
    marked_is: str = "best NLL"
    spans: tuple[tuple[str, int], ...] = ()
    groups: Mapping[int, str] = field(default_factory=dict)
    whole_names: bool = False

    def legend_with(self, mark: str) -> str:
        """The legend, which says what `mark` (a word or a sign) means where a cell has it."""
        return f"{self.legend}; {mark.format(self.marked_is)}" if self.marks else self.legend

    def blocks(self) -> Iterator[tuple[str, range]]:
        """The columns that stay together when a table is broken: a span's, or each by itself."""
        start = 1
        for title, columns in self.spans or [("", 1)] * (len(self.heading) - 1):
            yield title, range(start, start + columns)
            start += columns
