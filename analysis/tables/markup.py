"""Sheets as Markdown, LaTeX (booktabs) and HTML: what is marked is bold, nothing in a cell is read as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files

from analysis.tables.sheet import Sheet
from analysis.tables.text import held

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"Δ": r"$\Delta$", "κ": r"$\kappa$", "λ": r"$\lambda$"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "†": r"$\dagger$"},
}


def markdown(*sheets: Sheet) -> str:
    """GitHub-flavoured Markdown, one table below the other."""
    return "\n".join(_markdown(sheet) for sheet in sheets)


def latex(*sheets: Sheet) -> str:
    r"""A `table` environment each (they need booktabs), `table*` where titles span columns; the marked `\textbf`."""
    return "\n".join(_latex(sheet) for sheet in sheets)


def html(sheet: Sheet) -> str:
    """A `<table>` with its caption, and its notes in a list below: markup, for a page that escapes everything else."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    source = files("analysis.tables").joinpath("sheet.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["words"] = held
    return Markup(environment.from_string(source).render(sheet=sheet))


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


def _markdown(sheet: Sheet) -> str:
    heading = list(sheet.heading)
    for span, columns in sheet.blocks():
        if span:  # Markdown knows no spans: the first column of each names it
            heading[columns[0]] = f"{span} {heading[columns[0]]}"
    lines = [f"**{escape_markdown(sheet.title)}**: {escape_markdown(sheet.legend_with('{} in bold'))}.", ""]
    lines += [_row(map(escape_markdown, heading)), "|:--|" + "--:|" * (len(heading) - 1)]
    for number, cells in enumerate(sheet.body):
        if title := sheet.groups.get(number):
            lines.append(_row([f"*{escape_markdown(title)}*", *[""] * (len(heading) - 1)]))
        lines.append(_row(_bold(sheet, number, list(map(escape_markdown, cells)), "**{}**")))
    lines += ["", *(f"- {escape_markdown(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _latex(sheet: Sheet) -> str:
    columns, wide = len(sheet.heading), "*" if sheet.spans else ""
    label = re.sub(r"[^A-Za-z0-9]+", "-", sheet.label).strip("-")
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{table{wide}}}",
        "  \\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}" if wide else "  \\centering",
        f"  \\caption{{{escape_latex(sheet.title)}: {escape_latex(sheet.legend_with('{} in bold'))}.}}",
        f"  \\label{{tab:{label}}}",
        f"  \\begin{{tabular}}{{l{'r' * (columns - 1)}}}",
        "    \\toprule",
    ]
    if sheet.spans:
        titles = [f"\\multicolumn{{{n}}}{{c}}{{{escape_latex(title)}}}" for title, n in sheet.spans]
        rules = [f"\\cmidrule(lr){{{block[0] + 1}-{block[-1] + 1}}}" for _, block in sheet.blocks()]
        lines += [f"    & {' & '.join(titles)} \\\\", f"    {' '.join(rules)}"]
    lines.append(f"    {' & '.join(map(escape_latex, sheet.heading))} \\\\")
    lines += [] if 0 in sheet.groups else ["    \\midrule"]
    for number, row in enumerate(sheet.body):
        if group := sheet.groups.get(number):
            lines += ["    \\midrule", f"    \\multicolumn{{{columns}}}{{l}}{{\\emph{{{escape_latex(group)}}}}} \\\\"]
        # A minus, not a hyphen.
        cells = ["--" if cell == "-" else re.sub(r"^-(?=[\d.])", "$-$", escape_latex(cell)) for cell in row[1:]]
        shown = _bold(sheet, number, [escape_latex(row[0]), *cells], "\\textbf{{{}}}")
        lines.append(f"    {' & '.join(shown)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    lines += [f"  \\par\\smallskip{{\\footnotesize\\raggedright {escape_latex(note)}\\par}}" for note in sheet.notes]
    return "\n".join([*lines, f"\\end{{table{wide}}}"]) + "\n"


def _bold(sheet: Sheet, row: int, cells: Sequence[str], bold: str) -> list[str]:
    return [bold.format(cell) if (row, column) in sheet.marks else cell for column, cell in enumerate(cells)]
