"""A table written down: text for the terminal, CSV, Markdown, LaTeX (booktabs).

Pure: tables in, strings out. Text, Markdown and LaTeX round (percentages to 0.1, nats to 0.001); CSV
keeps every digit, and its prune ratios are fractions.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Sequence

from analysis.tables import OVER_SEEDS, Mean, Row, Table

TEXT_WIDTH = 100

_CSV_COLUMNS = (
    *("run", "name", "dataset", "objective", "protocol", "method", "stage", "seeds_done", "seeds", "status"),
    *("reason", "keep_ratio_target", "prune_ratio", "params", "params_dense", "nll_test", "nll_test_se"),
    *("kl_gap", "kl_gap_se", "nfe", "se_over", "best"),
)
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$"},
}
_NLL = 4  # which of the cells of a row is the one that is marked


def to_text(tables: Sequence[Table]) -> str:
    """Aligned tables of at most 100 columns; a `*` stands before the lowest mean test NLL."""
    return "\n".join(_one_text(table) for table in tables)


def to_csv(tables: Sequence[Table]) -> str:
    """All tables as one CSV, a row a stage; unrounded, empty where a number does not apply."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            cells = {name: getattr(row, name, getattr(table, name, None)) for name in _CSV_COLUMNS}
            cells |= {
                "reason": "; ".join(row.failures),
                "best": int(row.best),
                "nll_test": None,
                "kl_gap": None,
            }
            if row.nll_test is not None:
                cells |= {"nll_test": row.nll_test.value, "nll_test_se": row.nll_test.se}
            if row.kl_gap is not None:
                cells |= {"kl_gap": row.kl_gap.value, "kl_gap_se": row.kl_gap.se}
            writer.writerow({name: _exact(cell) for name, cell in cells.items()})
    return stream.getvalue()


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavoured Markdown, the lowest mean test NLL of each table in bold."""
    parts = []
    for table in tables:
        heading = _heading(table)
        lines = [f"**{_markdown(_title(table))}**: {_markdown(_legend(table))}; best NLL in bold.", ""]
        lines += [f"| {' | '.join(heading)} |", "|:--|" + "--:|" * (len(heading) - 1)]
        for row in table.rows:
            cells = [_markdown(cell) for cell in _cells(table, row)]
            if row.best:
                cells[_NLL] = f"**{cells[_NLL]}**"
            lines.append(f"| {' | '.join(cells)} |")
        notes = _notes(table)
        lines += ["", *(f"- {_markdown(note)}" for note in notes)] if notes else []
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def to_latex(tables: Sequence[Table]) -> str:
    r"""One `table` environment a table (needs booktabs); its lowest mean test NLL is `\textbf`."""
    parts = []
    for table in tables:
        heading = _heading(table)
        label = re.sub(r"[^A-Za-z0-9]+", "-", f"{table.name}-{table.dataset}-{table.objective}").strip("-")
        lines = [
            "% needs \\usepackage{booktabs}",
            "\\begin{table}",
            "  \\centering",
            f"  \\caption{{{_latex(_title(table))}: {_latex(_legend(table))}; best NLL in bold.}}",
            f"  \\label{{tab:nll-params-{label}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}",
            "    \\toprule",
            f"    {' & '.join(_latex(name) for name in heading)} \\\\",
            "    \\midrule",
        ]
        for row in table.rows:
            cells = ["--" if cell == "-" else _latex(cell) for cell in _cells(table, row)]
            if row.best:
                cells[_NLL] = f"\\textbf{{{cells[_NLL]}}}"
            lines.append(f"    {' & '.join(cells)} \\\\")
        lines += ["    \\bottomrule", "  \\end{tabular}"]
        lines += [f"  \\par\\smallskip{{\\footnotesize {_latex(note)}}}" for note in _notes(table)]
        parts.append("\n".join([*lines, "\\end{table}"]) + "\n")
    return "\n".join(parts)


def _exact(cell: object) -> object:
    # A mean count that is whole is written as one: 8642, not 8642.0.
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _title(table: Table) -> str:
    return f"{table.dataset} ({table.objective}), run {table.name}"


def _legend(table: Table) -> str:
    if table.se_over == OVER_SEEDS:
        return f"means over {table.seeds} seeds, ± standard error over the seeds"
    return f"{table.seeds} seed{'s' * (table.seeds > 1)}, ± standard error over the test set"


def _heading(table: Table) -> list[str]:
    gap = ["KL gap (nats)"] if table.has_kl_gap else []
    return ["method", "stage", "prune ratio", "params", "NLL (nats)", *gap, "NFE", "status"]


def _cells(table: Table, row: Row) -> list[str]:
    gap = [_nats(row.kl_gap)] if table.has_kl_gap else []
    ratio = "-" if row.prune_ratio is None else f"{100 * row.prune_ratio:.1f} %"
    counts = ["-" if count is None else f"{count:,.0f}" for count in (row.params, row.nfe)]
    return [row.label, str(row.stage), ratio, counts[0], _nats(row.nll_test), *gap, counts[1], row.status]


def _nats(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    value = f"{mean.value:.3f}" if abs(mean.value) < 1e5 else f"{mean.value:.3e}"
    if mean.se is None:
        return value
    if 0 < mean.se < 0.0005:  # "± 0.000" would read as certainty
        return f"{value} ± <0.001"
    return f"{value} ± {mean.se:.3f}" if mean.se < 1e5 else f"{value} ± {mean.se:.3e}"


def _notes(table: Table) -> list[str]:
    failed = [f"{row.label}, stage {row.stage}, {failure}" for row in table.rows for failure in row.failures]
    partly = [row.status for row in table.rows if 0 < row.seeds_done < row.seeds]
    explained = [f"{partly[0]}: the means are over the seeds that are done"] if partly else []
    return [f"failed: {note}" for note in failed] + explained


def _one_text(table: Table) -> str:
    body = [_cells(table, row) for row in table.rows]
    for column in (_NLL, _NLL + 1) if table.has_kl_gap else (_NLL,):
        _line_up(body, column)
    marks = ["*" if row.best else " " for row in table.rows]
    lines = [_heading(table), *body]
    room = max(len(cells[_NLL]) for cells in lines)
    for line, mark in zip(lines, [" ", *marks], strict=True):
        line[_NLL] = f"{mark} {line[_NLL]:>{room}}"
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    widths[0] = max(8, min(widths[0], TEXT_WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)))
    out = [textwrap.shorten(_title(table), TEXT_WIDTH, placeholder=" …"), f"{_legend(table)}; * best NLL", ""]
    for line in lines:
        name = line[0] if len(line[0]) <= widths[0] else f"{line[0][: widths[0] - 1]}…"
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join([name.ljust(widths[0]), *numbers]).rstrip())
    notes = [textwrap.fill(note, TEXT_WIDTH, subsequent_indent="  ") for note in _notes(table)]
    return "\n".join([*out, *([""] if notes else []), *notes]) + "\n"


def _line_up(body: Sequence[list[str]], column: int) -> None:
    # Where some numbers have their "± …", those without end where the others' means end.
    tail = max(len(line[column].partition(" ± ")[2]) for line in body)
    for line in body:
        mean, sign, se = line[column].partition(" ± ")
        line[column] = f"{mean}{sign}{se:>{tail}}" if sign else mean + " " * (tail + 3 if tail else 0)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
