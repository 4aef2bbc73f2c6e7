"""A table as cells of text, and how it is written down: for the terminal, as Markdown, as LaTeX (booktabs).

Pure: strings in, strings out. What the cells say is decided in `formats` and `hessian_table`.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.tables.means import Mean

TEXT_WIDTH = 100

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"Δ": r"$\Delta$", "κ": r"$\kappa$", "λ": r"$\lambda$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "†": r"$\dagger$"},
}


@dataclass(frozen=True)
class Sheet:
    """What a table shows: every row of `body` has a cell for every name in `heading`; "-" where there is none.

    `best` says which rows have their cell in column `marked` set in bold (an asterisk in text), and
    `best_is` what that means. `label` is for references in LaTeX.
    """

    title: str
    legend: str
    heading: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    label: str
    notes: tuple[str, ...] = ()
    marked: int = 0
    best: frozenset[int] = frozenset()
    best_is: str = "best NLL"


def text(sheet: Sheet) -> str:
    """Aligned columns, at most 100 characters wide where the first column can give way; `*` before the best."""
    body = [list(row) for row in sheet.body]
    for column in range(len(sheet.heading)):
        _line_up(body, column)
    lines = [list(sheet.heading), *body]
    legend = sheet.legend
    if sheet.best:
        legend = f"{legend}; * {sheet.best_is}"
        room = max(len(line[sheet.marked]) for line in lines)
        for number, line in enumerate(lines):
            mark = "*" if number - 1 in sheet.best else " "
            line[sheet.marked] = f"{mark} {line[sheet.marked]:>{room}}"
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[0] = max(min(14, widths[0]), min(widths[0], TEXT_WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    out = [textwrap.shorten(sheet.title, TEXT_WIDTH, placeholder=" …"), *textwrap.wrap(legend, TEXT_WIDTH), ""]
    for line in lines:
        name = line[0] if len(line[0]) <= widths[0] else f"{line[0][: widths[0] - 1]}…"
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    notes = [textwrap.fill(note, TEXT_WIDTH, subsequent_indent="  ") for note in sheet.notes]
    return "\n".join([*out, *([""] if notes else []), *notes]) + "\n"


def markdown(sheet: Sheet) -> str:
    """GitHub-flavoured Markdown, the best in bold."""
    legend = f"{sheet.legend}; {sheet.best_is} in bold" if sheet.best else sheet.legend
    lines = [f"**{escape_markdown(sheet.title)}**: {escape_markdown(legend)}.", ""]
    lines += [f"| {' | '.join(escape_markdown(name) for name in sheet.heading)} |"]
    lines += ["|:--|" + "--:|" * (len(sheet.heading) - 1)]
    for number, row in enumerate(sheet.body):
        cells = [escape_markdown(cell) for cell in row]
        if number in sheet.best:
            cells[sheet.marked] = f"**{cells[sheet.marked]}**"
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {escape_markdown(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    r"""A `table` environment (needs booktabs), the best `\textbf`."""
    legend = f"{sheet.legend}; {sheet.best_is} in bold" if sheet.best else sheet.legend
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{escape_latex(sheet.title)}: {escape_latex(legend)}.}}",
        f"  \\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', sheet.label).strip('-')}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(sheet.heading) - 1)}}}",
        "    \\toprule",
        f"    {' & '.join(escape_latex(name) for name in sheet.heading)} \\\\",
        "    \\midrule",
    ]
    for number, row in enumerate(sheet.body):
        cells = ["--" if cell == "-" else escape_latex(cell) for cell in row]
        if number in sheet.best:
            cells[sheet.marked] = f"\\textbf{{{cells[sheet.marked]}}}"
        lines.append(f"    {' & '.join(cells)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    lines += [f"  \\par\\smallskip{{\\footnotesize {escape_latex(note)}}}" for note in sheet.notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def percent(ratio: float | None) -> str:
    """A prune ratio to 0.1 %."""
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def count(value: float | None) -> str:
    """A count with its thousands apart."""
    return "-" if value is None else f"{value:,.0f}"


def nats(mean: Mean | None, sign: bool = False) -> str:
    """Nats to 0.001, with the standard error; `sign` shows a plus sign too."""
    if mean is None:
        return "-"
    plus = "+" if sign else ""
    value = f"{mean.value:{plus}.3f}" if abs(mean.value) < 1e5 else f"{mean.value:{plus}.3e}"
    if mean.se is None:
        return value
    if 0 < mean.se < 0.0005:  # "± 0.000" would read as certainty
        return f"{value} ± <0.001"
    return f"{value} ± {mean.se:.3f}" if mean.se < 1e5 else f"{value} ± {mean.se:.3e}"


def measure(mean: Mean | None) -> str:
    """A number of any size: to two digits of its standard error, or to three digits where it has none."""
    if mean is None:
        return "-"
    largest = max(abs(mean.value), mean.se or 0.0)
    if mean.se is None or mean.se == 0:
        shown = _digits(mean.value)
        return shown if mean.se is None else f"{shown} ± 0"
    if largest >= 1e6 or 0 < largest < 1e-3:
        return f"{mean.value:.2e} ± {mean.se:.0e}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(mean.se))))
    if mean.se >= 0.1 * abs(mean.value):  # one digit of a large error is enough
        decimals = max(0, decimals - 1)
    return f"{mean.value:,.{decimals}f} ± {mean.se:,.{decimals}f}"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _line_up(body: Sequence[list[str]], column: int) -> None:
    # Where some numbers have their "± …", those without end where the others' means end.
    tail = max((len(line[column].partition(" ± ")[2]) for line in body), default=0)
    for line in body:
        mean, sign, se = line[column].partition(" ± ")
        line[column] = f"{mean}{sign}{se:>{tail}}" if sign else mean + " " * (tail + 3 if tail else 0)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(character, character) for character in text)
