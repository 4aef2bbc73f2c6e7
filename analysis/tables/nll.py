"""The tables of `table` and `classify`: test NLL, or a classifier's accuracy, against the params."""

from collections.abc import Iterator, Sequence

from analysis.tables.means import OVER_SEEDS, Row, Table
from analysis.tables.numbers import count, nats, percent, share
from analysis.tables.rows import to_csv, with_se
from analysis.tables.sheet import Sheet

_HEAD = (
    *("run", "name", "dataset", "objective", "protocol", "method", "stage", "seeds_done", "seeds", "status"),
    *("reason", "keep_ratio_target", "prune_ratio", "params", "params_dense"),
)
_MEANS = {  # column of the CSV → attribute of a row; of flows, of classifiers
    False: {"nll_test": "nll_test", "kl_gap": "kl_gap"},
    True: {"accuracy_test": "accuracy", "loss_test": "loss"},
}
_MARKED = 4  # which cell of a row is marked


def rows_csv(tables: Sequence[Table]) -> str:
    """All tables (of flows, or of classifiers) as one CSV, a row a stage; unrounded, shares as fractions."""
    rows = []
    for table in tables:
        for row in table.rows:
            cells = {name: getattr(row, name, getattr(table, name, None)) for name in _HEAD}
            cells |= {"reason": "; ".join(row.failures)}
            for name, attribute in _MEANS[tables[0].classifies].items():
                cells |= with_se(name, getattr(row, attribute))
            rows.append(cells | {"nfe": row.nfe, "se_over": table.se_over, "best": int(row.best)})
    return to_csv(rows)


def sheet(table: Table) -> Sheet:
    """The table as cells of text; the lowest mean test NLL, of classifiers the highest accuracy, is marked."""
    gap = ("KL gap (nats)",) if table.has_kl_gap else ()
    shown = ("accuracy (%)", "loss (nats)") if table.classifies else ("NLL (nats)", *gap)
    what, objective = ("accuracy", "") if table.classifies else ("nll", f"-{table.objective}")
    return Sheet(
        title=f"{table.dataset} ({table.objective}), run {table.name}",
        legend=legend(table),
        heading=("method", "stage", "prune ratio", "params", *shown, "NFE", "status"),
        body=tuple(_cells(table, row) for row in table.rows),
        label=f"{what}-params-{table.name}-{table.dataset}{objective}",
        notes=tuple(_notes(table)),
        marks=frozenset((number, _MARKED) for number, row in enumerate(table.rows) if row.best),
        marked_is="highest accuracy" if table.classifies else "best NLL",
    )


def legend(table: Table) -> str:
    """What the means and the standard errors are over."""
    if table.se_over == OVER_SEEDS:
        return f"means over {table.seeds} seeds, ± standard error over the seeds"
    return f"{table.seeds} seed{'s' * (table.seeds > 1)}, ± standard error over the test set"


def _cells(table: Table, row: Row) -> tuple[str, ...]:
    gap = [nats(row.kl_gap)] if table.has_kl_gap else []
    numbers = [share(row.accuracy), nats(row.loss)] if table.classifies else [nats(row.nll_test), *gap]
    head = (row.label, str(row.stage), percent(row.prune_ratio), count(row.params))
    return (*head, *numbers, count(row.nfe), row.status)


def _notes(table: Table) -> Iterator[str]:
    for row in table.rows:
        yield from (f"failed: {row.label}, stage {row.stage}, {failure}" for failure in row.failures)
    for row in table.rows:
        if row.left_out:
            rows = f"{row.left_out:,} test row{'s' * (row.left_out > 1)} without a finite log p"
            yield f"{row.label}, stage {row.stage}: {rows}; the NLL is over the others, and cannot be the best"
    partly = next((row.status for row in table.rows if 0 < row.seeds_done < row.seeds), None)
    if partly:
        yield f"{partly}: the means are over the seeds that are done"
