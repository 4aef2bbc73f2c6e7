"""The tabular table written down: for the terminal, as CSV, Markdown, LaTeX (booktabs) and JSON.

Pure: tables in, strings out. Nats are rounded to 0.01 and params to three digits; CSV and JSON keep every digit.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis.tables.means import Mean
from analysis.tables.nll import exact
from analysis.tables.sheets import escape_latex, escape_markdown
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.compare import Comparison
from analysis.tabular.table import DECIMALS, GROUPS, PUBLISHED, Cell, Line, TabularTable

TEXT_WIDTH = 160
LEGEND = "Test NLL (nats) in standardised coordinates, lower is better, and number of params"
BEST = "best baseline and best Sparse Flow of a data set"
_COLUMNS = ("dataset", "model", "group", "nats", "se", "params", "bold", "comparable", "note")
_NONE, _GAP = "-", "  "


def params_label(count: float | None) -> str:
    """Params to three digits: `389`, `43.3K`, `6.70M`; `-` where not known."""
    if count is None:
        return _NONE
    for power, unit in ((9, "G"), (6, "M"), (3, "K")):
        scaled = count / 10**power
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{count:.0f}"


def nats_label(mean: Mean) -> str:
    """Nats with two decimals, and the standard error where there is one."""
    value = f"{mean.value:.{DECIMALS}f}" if abs(mean.value) < 1e5 else f"{mean.value:.2e}"
    if mean.se is None:
        return value
    if 0 < mean.se < 0.005:  # "± 0.00" would read as certainty
        return f"{value} ± <0.01"
    return f"{value} ± {mean.se:.{DECIMALS}f}" if mean.se < 1e5 else f"{value} ± {mean.se:.2e}"


def to_text(table: TabularTable) -> str:
    """Aligned columns, at most 160 characters wide: data sets that do not fit go on in a block below."""
    names = [line.model for line in table.lines]
    room = max([len("model"), *map(len, names), *(len(line.group) for line in table.lines)])
    columns = {title: _text_column(table, title) for title in table.datasets}
    out = [f"{LEGEND}; * {BEST}.", ""]
    for titles in _blocks(columns, TEXT_WIDTH - room):
        out += [*_text_block(table, titles, columns, room), ""]
    for sentences in (table.comparisons, table.notes):
        out += [textwrap.fill(sentence, TEXT_WIDTH, subsequent_indent="  ") for sentence in sentences]
        out += [""] if sentences else []
    return "\n".join(out).rstrip() + "\n"


def to_markdown(table: TabularTable) -> str:
    """GitHub-flavoured Markdown, the best in bold."""
    heading = [cell for title in table.datasets for cell in (f"{_titled(table, title)} nats", "params")]
    lines = [f"{LEGEND}; {BEST} in bold.", ""]
    lines += [f"| {' | '.join(['model', *map(escape_markdown, heading)])} |", "|:--|" + "--:|" * len(heading)]
    for group, members in _grouped(table):
        lines.append(f"| *{escape_markdown(group)}* |" + " |" * len(heading))
        for line in members:
            pairs = [_markdown_pair(line.cells.get(title)) for title in table.datasets]
            lines.append(f"| {' | '.join([escape_markdown(line.model), *pairs])} |")
    for sentences in (table.comparisons, table.notes):
        lines += ["", *(f"- {escape_markdown(sentence)}" for sentence in sentences)] if sentences else []
    return "\n".join(lines) + "\n"


def to_latex(table: TabularTable) -> str:
    r"""A `table*` environment (needs booktabs alone), the best `\textbf`, a `\multicolumn` pair a data set."""
    count = len(table.datasets)
    titles = " & ".join(f"\\multicolumn{{2}}{{c}}{{{escape_latex(_titled(table, title))}}}" for title in table.datasets)
    rules = " ".join(f"\\cmidrule(lr){{{2 * k + 2}-{2 * k + 3}}}" for k in range(count))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table*}",
        "  \\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}",
        f"  \\caption{{{escape_latex(LEGEND)}; {escape_latex(BEST)} in bold.}}",
        "  \\label{tab:nll-params-tabular}",
        f"  \\begin{{tabular}}{{l{'rr' * count}}}",
        "    \\toprule",
        f"    & {titles} \\\\",
        f"    {rules}",
        f"    Model & {' & '.join(['nats & params'] * count)} \\\\",
    ]
    for group, members in _grouped(table):
        lines += ["    \\midrule", f"    \\multicolumn{{{2 * count + 1}}}{{l}}{{\\emph{{{escape_latex(group)}}}}} \\\\"]
        for line in members:
            pairs = [_latex_pair(line.cells.get(title)) for title in table.datasets]
            lines.append(f"    {' & '.join([escape_latex(line.model), *pairs])} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    for sentence in (*table.comparisons, *table.notes):
        lines.append(f"  \\par\\smallskip{{\\footnotesize\\raggedright {escape_latex(sentence)}\\par}}")
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


def to_csv(table: TabularTable) -> str:
    """A row a number: tidy, unrounded, empty where it does not apply."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(table):
        cells = row | {"bold": int(row["bold"]), "comparable": int(row["comparable"]), "params": exact(row["params"])}
        writer.writerow({name: cells[name] for name in _COLUMNS})
    return stream.getvalue()


def to_json(
    table: TabularTable,
    comparisons: Sequence[Comparison],
    baselines: Mapping[str, RunBaselines],
    runs: Sequence[str],
) -> str:
    """One document: `run`, `datasets`, `rows` (as in the CSV), `comparisons`, `baselines` (of each seed), `notes`."""
    found = {
        "run": list(runs),
        "datasets": list(table.datasets),
        "rows": _rows(table),
        "comparisons": [_comparison(one) for one in comparisons],
        "baselines": [
            {"run": run, "seed": seed, **asdict(split)}
            for run, fits in baselines.items()
            for seed, split in fits.by_seed.items()
        ],
        "notes": list(table.notes),
    }
    return json.dumps(found, indent=2, allow_nan=False)


def _rows(table: TabularTable) -> list[dict[str, Any]]:
    return [
        {
            "dataset": title,
            "model": line.model,
            "group": line.group,
            "nats": cell.nats.value,
            "se": cell.nats.se,
            "params": cell.params,
            "bold": cell.bold,
            "comparable": line.group in PUBLISHED or title in table.comparable,
            "note": cell.chosen,
        }
        for title in table.datasets
        for line in table.lines
        if (cell := line.cells.get(title)) is not None
    ]


def _comparison(one: Comparison) -> dict[str, Any]:
    values = {name: value for name, value in vars(one).items() if name != "difference"}
    return values | {"difference": one.difference.value, "se": one.difference.se}


def _grouped(table: TabularTable) -> list[tuple[str, list[Line]]]:
    groups = [(group, [line for line in table.lines if line.group == group]) for group in GROUPS]
    return [(group, members) for group, members in groups if members]


def _titled(table: TabularTable, title: str) -> str:
    return f"{title}†" if title in table.apart else title


def _markdown_pair(cell: Cell | None) -> str:
    if cell is None:
        return f"{_NONE} | {_NONE}"
    shown = escape_markdown(nats_label(cell.nats))
    return f"{f'**{shown}**' if cell.bold else shown} | {params_label(cell.params)}"


def _latex_pair(cell: Cell | None) -> str:
    if cell is None:
        return "-- & --"
    shown = escape_latex(nats_label(cell.nats))
    shown = shown.replace("-", "$-$", 1) if shown.startswith("-") else shown  # a minus, not a hyphen
    params = "--" if cell.params is None else params_label(cell.params)
    shown = f"\\textbf{{{shown}}}" if cell.bold else shown
    return f"{shown} & {params}"


def _text_column(table: TabularTable, title: str) -> tuple[list[str], list[str]]:
    """The nats of every line, lined up, and its params."""
    cells = [line.cells.get(title) for line in table.lines]
    parts = [nats_label(cell.nats).partition(" ± ") if cell else (_NONE, "", "") for cell in cells]
    head = max((len(value) for value, *_ in parts), default=0)
    tail = max((len(se) for *_, se in parts), default=0)
    nats = []
    for cell, (value, sign, se) in zip(cells, parts, strict=True):
        mark = "*" if cell and cell.bold else " "
        shown = f"{mark + value:>{head + 1}}"
        nats.append(shown + (f"{sign or '   '}{se:>{tail}}" if tail else ""))
    return nats, [params_label(cell.params) if cell else _NONE for cell in cells]


def _blocks(columns: Mapping[str, tuple[list[str], list[str]]], room: int) -> list[list[str]]:
    blocks: list[list[str]] = [[]]
    used = 0
    for title in columns:
        width = sum(_widths(title, columns)) + 2 * len(_GAP)
        if blocks[-1] and used + width > room:
            blocks.append([])
            used = 0
        blocks[-1].append(title)
        used += width
    return blocks


def _widths(title: str, columns: Mapping[str, tuple[list[str], list[str]]]) -> tuple[int, int]:
    nats, params = columns[title]
    right = max([len("params"), *map(len, params)])
    return max([len("nats"), *map(len, nats), len(title) + 1 - right - len(_GAP)]), right


def _text_block(
    table: TabularTable, titles: Sequence[str], columns: Mapping[str, tuple[list[str], list[str]]], room: int
) -> list[str]:
    widths = {title: _widths(title, columns) for title in titles}
    first, second = [" " * room], ["model".ljust(room)]
    for title, (left, right) in widths.items():
        first.append(_titled(table, title).center(left + len(_GAP) + right))
        second += ["nats".rjust(left), "params".rjust(right)]
    out = [_GAP.join(first).rstrip(), _GAP.join(second)]
    rule = "-" * len(out[1])
    for group, grouped in _grouped(table):
        members = [line for line in grouped if any(title in line.cells for title in titles)]
        out += [rule, group] if members else []
        for line in members:
            cells = [line.model.ljust(room)]
            for title, (left, right) in widths.items():
                nats, params = columns[title]
                number = table.lines.index(line)
                cells += [nats[number].rjust(left), params[number].rjust(right)]
            out.append(_GAP.join(cells).rstrip())
    return [*out, rule]
