"""Accuracy tables written down: text, CSV, Markdown, LaTeX. Pure: tables in, strings out.

Tables of flows that do not classify go through unchanged, to `formats`; so a list may hold both kinds.
Text, Markdown and LaTeX round (percentages to 0.01, nats to 0.001); CSV keeps every digit, its shares are fractions.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace

from analysis.tables import nll as formats
from analysis.tables.means import Mean, Row, Table
from analysis.tables.sheets import Sheet, count, latex, markdown, nats, percent, text

_ACCURACY = 4  # which of the cells of a row is the one that is marked
_HEADING = ("method", "stage", "prune ratio", "params", "accuracy (%)", "loss (nats)", "NFE", "status")
_CSV_COLUMNS = (
    *("run", "name", "dataset", "objective", "protocol", "method", "stage", "seeds_done", "seeds", "status"),
    *("reason", "keep_ratio_target", "prune_ratio", "params", "params_dense", "accuracy_test", "accuracy_test_se"),
    *("loss_test", "loss_test_se", "nfe", "se_over", "best"),
)


def to_text(tables: Sequence[Table]) -> str:
    """Aligned tables of at most 100 columns; a `*` stands before the highest accuracy, or the lowest NLL."""
    return "\n".join(text(sheet(table)) for table in tables)


def to_markdown(tables: Sequence[Table]) -> str:
    """GitHub-flavoured Markdown, the best of each table in bold."""
    return "\n".join(markdown(sheet(table)) for table in tables)


def to_latex(tables: Sequence[Table]) -> str:
    r"""One `table` environment a table (needs booktabs), its best `\textbf`."""
    return "\n".join(latex(sheet(table)) for table in tables)


def to_csv(tables: Sequence[Table]) -> str:
    """The classifiers' tables as one CSV, a row a stage; unrounded, empty where a number does not apply."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            cells = {name: getattr(row, name, getattr(table, name, None)) for name in _CSV_COLUMNS}
            cells |= {"reason": "; ".join(row.failures), "best": int(row.best)}
            for name, mean in (("accuracy_test", row.accuracy), ("loss_test", row.loss)):
                if mean is not None:
                    cells |= {name: mean.value, f"{name}_se": mean.se}
            writer.writerow({name: formats.exact(cell) for name, cell in cells.items()})
    return stream.getvalue()


def sheet(table: Table) -> Sheet:
    """The table as cells of text."""
    if not table.classifies:
        return formats.sheet(table)
    return replace(
        formats.sheet(table),
        heading=_HEADING,
        body=tuple(_cells(row) for row in table.rows),
        label=f"accuracy-params-{table.name}-{table.dataset}",
        marked=_ACCURACY,
        best_is="highest accuracy",
    )


def accuracy(mean: Mean | None) -> str:
    """A fraction as a percentage without the sign, with its standard error: `99.41 ± 0.12`."""
    if mean is None:
        return "-"
    if mean.se is None:
        return f"{100 * mean.value:.2f}"
    shown = f"{100 * mean.value:.2f} ± "
    return shown + ("<0.01" if 0 < mean.se < 0.00005 else f"{100 * mean.se:.2f}")


def _cells(row: Row) -> tuple[str, ...]:
    head = (row.label, str(row.stage), percent(row.prune_ratio), count(row.params))
    return (*head, accuracy(row.accuracy), nats(row.loss), count(row.nfe), row.status)
