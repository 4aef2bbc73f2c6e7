"""The Hessian tables of a run: as measured, against the dense flow beside the published row, and as CSV."""

from collections.abc import Iterator, Sequence

from analysis.reference import load_reference
from analysis.tables.curvature import PUBLISHED, QUANTITIES, Curvature, HessianTable
from analysis.tables.numbers import count, measure, nats, percent
from analysis.tables.rows import to_csv, with_se
from analysis.tables.sheet import Sheet

_HEAD = (
    *("run", "name", "dataset", "method", "stage", "seeds_done", "seeds", "status", "reason"),
    *("prune_ratio", "params"),
)
_NAMES = ("nll", *QUANTITIES)
_HEADINGS = ("lambda_max", "trace", "eff. rank", "kappa_80")  # of `QUANTITIES`


def sheets(table: HessianTable) -> list[Sheet]:
    """The table as cells of text: as measured; against dense and the published rows; by the published estimator."""
    found = [_absolute(table), _against_dense(table)]
    by_paper = any(mean is not None for row in table.rows for mean in row.paper.values())
    return [*found, _paper(table)] if by_paper else found


def rows_csv(tables: Sequence[HessianTable]) -> str:
    """All tables as one CSV, a row a stage; unrounded, empty where a number does not apply."""
    return to_csv([_csv_cells(table, row) for table in tables for row in table.rows])


def _csv_cells(table: HessianTable, row: Curvature) -> dict[str, object]:
    cells: dict[str, object] = {name: getattr(row, name, getattr(table, name, None)) for name in _HEAD}
    cells |= {"reason": "; ".join(row.failures)}
    for name in _NAMES:
        cells |= with_se(name, row.values.get(name))
    cells |= with_se("nll_minus_dense", row.change.get("nll"))
    for name in QUANTITIES:
        cells |= with_se(f"{name}_over_dense", row.change.get(name))
    for name in PUBLISHED:
        cells |= with_se(f"paper_{name}", row.paper.get(name))
        cells |= with_se(f"paper_{name}_over_dense", row.paper_change.get(name))
    published = row.published and load_reference().hessian.ratios(row.published)
    cells |= {"published_prune_ratio": row.published and row.published.prune_ratio}
    cells |= {"published_nll_minus_dense": published and published["nll"]}
    cells |= {f"published_{name}_over_dense": published and published[name] for name in PUBLISHED}
    return cells | {"best": int(row.best)}


def _absolute(table: HessianTable) -> Sheet:
    return Sheet(
        title=f"Hessian of {table.dataset}, run {table.name}",
        legend=_legend(table),
        heading=("method", "stage", "prune ratio", "params", "NLL (nats)", *_HEADINGS),
        body=tuple(
            (
                *(row.method, str(row.stage), percent(row.prune_ratio), count(row.params), nats(row.values.get("nll"))),
                *(measure(row.values.get(name)) for name in QUANTITIES),
            )
            for row in table.rows
        ),
        label=f"hessian-{table.name}-{table.dataset}",
        notes=tuple(_absolute_notes(table)),
        marks=frozenset((number, 4) for number, row in enumerate(table.rows) if row.best),
    )


def _legend(table: HessianTable) -> str:
    rows = f"{table.subset:,.0f} training rows" if table.subset else "a subset of the training rows"
    subset = f" (subset seed {table.subset_seed:.0f})" if table.subset_seed is not None else ""
    over_seeds = f"means over {table.seeds} seeds, ± standard error over the seeds"
    several = f"{table.subsets:.0f} subsets of " if table.subsets and table.subsets > 1 else ""
    of_one = "one seed, ± the spread (s.d.) over the subsets" if several else "one seed, ± the trace's standard error"
    error = over_seeds if table.over_seeds else of_one
    return f"Hessian of the mean {table.loss or 'loss'} over {several}{rows}{subset}, surviving params only; {error}"


def _absolute_notes(table: HessianTable) -> Iterator[str]:
    for row in table.rows:
        yield from (f"failed: {row.method}, stage {row.stage}, {failure}" for failure in row.failures)
    for row in table.rows:
        if 0 < row.seeds_done < row.seeds:
            yield f"{row.method}, stage {row.stage}: the means are over {row.status} seeds"
    yield (
        "effective rank: trace / lambda_max. kappa_80: lambda_max over the eigenvalue where the largest ones reach "
        "80 % of the trace."
    )


def _against_dense(table: HessianTable) -> Sheet:
    beside, source = [], ""
    if table.has_published:
        beside = [f"publ. {name}" for name in ("PR", "NLL", "λ_max", "tr", "κ")]
        source = f"; beside it the published row of the nearest prune ratio ({load_reference().hessian.source}), "
        source += "against the published unpruned row"
    return Sheet(
        title=f"Against its own dense flow: {table.dataset}, run {table.name}",
        legend="NLL minus dense's (nats), the rest as ratios to dense's; each within one seed and subset, then "
        f"averaged{source}",
        heading=("method", "prune ratio", "Δ NLL (nats)", *_HEADINGS, *beside),
        body=tuple(_change_cells(row, bool(beside)) for row in table.rows if row.change or row.published),
        label=f"hessian-ratios-{table.name}-{table.dataset}",
        notes=tuple(_reference_notes(table)),
    )


def _change_cells(row: Curvature, beside: bool) -> tuple[str, ...]:
    own, published = ["0", *"1" * len(QUANTITIES)], ["0", *"1" * len(PUBLISHED)]
    if row.change:
        own = [nats(row.change["nll"], sign=True), *(measure(row.change[name]) for name in QUANTITIES)]
    cells = (row.method, percent(row.prune_ratio), *own)
    if not beside:
        return cells
    if row.published is None:
        return (*cells, *["-"] * 5)
    if row.change:
        ratios = load_reference().hessian.ratios(row.published)
        published = [f"{ratios['nll']:+.3f}", *(f"{ratios[name]:.2f}" for name in PUBLISHED)]
    return (*cells, percent(row.published.prune_ratio, 0), *published)


def _reference_notes(table: HessianTable) -> Iterator[str]:
    if not table.subsets or table.subsets == 1:
        yield "lambda_max of one flow moves by 10-30 % with the subset alone: smaller changes say nothing."
    if table.has_published:
        yield (
            "publ. κ is the largest over the smallest positive Ritz value of 100 Lanczos steps, no kappa_80: compare "
            "it with that of --protocol paper."
        )
    if table.has_published:
        yield f"published: {load_reference().hessian.note}"
    if table.measured:
        dense, *pruned = table.measured
        shown = [f"{one.network} {one.lambda_max:g} (x {one.lambda_max / dense.lambda_max:.2f})" for one in pruned]
        yield (
            f"measured with the authors' code, one network: lambda_max {dense.network} {dense.lambda_max:g}, "
            f"{', '.join(shown)}; {load_reference().measured.hessian_note}."
        )


def _paper(table: HessianTable) -> Sheet:
    body = []
    for row in table.rows:
        own = tuple(measure(row.paper.get(name)) for name in PUBLISHED)
        change = tuple(measure(row.paper_change.get(name)) if row.change else "1" for name in PUBLISHED)
        body.append((row.method, percent(row.prune_ratio), *own, *change))
    names = ("lambda_max", '"trace"', "kappa")
    return Sheet(
        title=f"By the published estimator (--protocol paper): {table.dataset}, run {table.name}",
        legend='100 Lanczos steps x 3 starts; "trace" is the sum of the positive Ritz values, kappa their ratio: no '
        "trace and no condition number of the Hessian",
        heading=("method", "prune ratio", *names, *(f"{name} / dense" for name in names)),
        body=tuple(body),
        label=f"hessian-paper-{table.name}-{table.dataset}",
    )
