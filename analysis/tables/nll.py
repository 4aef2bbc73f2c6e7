"""The NLL table written down: text for the terminal, CSV, Markdown, LaTeX (booktabs).

Pure: tables in, strings out. Text, Markdown and LaTeX round (percentages to 0.1, nats to 0.001); CSV
keeps every digit, and its prune ratios are fractions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from analysis.tables.means import OVER_SEEDS, Row, Table
from analysis.tables.sheets import Sheet, count, latex, markdown, nats, percent, text

_CSV_COLUMNS = (
    *("run", "name", "dataset", "objective", "protocol", "method", "stage", "seeds_done", "seeds", "status"),
    *("reason", "keep_ratio_target", "prune_ratio", "params", "params_dense", "nll_test", "nll_test_se"),
    *("kl_gap", "kl_gap_se", "nfe", "se_over", "best"),
)
_NLL = 4  # which of the cells of a row is the one that is marked


def to_text(tables: Sequence[Table]) -> str:
    """Aligned tables of at most 100 columns; a `*` stands before the lowest mean test NLL."""
    return "\n".join(text(sheet(table)) for table in tables)


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
            writer.writerow({name: exact(cell) for name, cell in cells.items()})
    return stream.getvalue()


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavoured Markdown, the lowest mean test NLL of each table in bold."""
    return "\n".join(markdown(sheet(table)) for table in tables)


def to_latex(tables: Sequence[Table]) -> str:
    r"""One `table` environment a table (needs booktabs); its lowest mean test NLL is `\textbf`."""
    return "\n".join(latex(sheet(table)) for table in tables)


def sheet(table: Table) -> Sheet:
    """The table as cells of text."""
    gap = ["KL gap (nats)"] if table.has_kl_gap else []
    return Sheet(
        title=f"{table.dataset} ({table.objective}), run {table.name}",
        legend=legend(table),
        heading=("method", "stage", "prune ratio", "params", "NLL (nats)", *gap, "NFE", "status"),
        body=tuple(_cells(table, row) for row in table.rows),
        label=f"nll-params-{table.name}-{table.dataset}-{table.objective}",
        notes=tuple(_notes(table)),
        marked=_NLL,
        best=frozenset(number for number, row in enumerate(table.rows) if row.best),
    )


def legend(table: Table) -> str:
    """What the means and the standard errors are over."""
    if table.se_over == OVER_SEEDS:
        return f"means over {table.seeds} seeds, ± standard error over the seeds"
    return f"{table.seeds} seed{'s' * (table.seeds > 1)}, ± standard error over the test set"


def exact(cell: object) -> object:
    """A mean count that is whole, written as one: 8642, not 8642.0."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _cells(table: Table, row: Row) -> tuple[str, ...]:
    gap = [nats(row.kl_gap)] if table.has_kl_gap else []
    head = (row.label, str(row.stage), percent(row.prune_ratio), count(row.params), nats(row.nll_test))
    return (*head, *gap, count(row.nfe), row.status)


def _notes(table: Table) -> list[str]:
    failed = [f"{row.label}, stage {row.stage}, {failure}" for row in table.rows for failure in row.failures]
    partly = [row.status for row in table.rows if 0 < row.seeds_done < row.seeds]
    explained = [f"{partly[0]}: the means are over the seeds that are done"] if partly else []
    return [f"failed: {note}" for note in failed] + explained
