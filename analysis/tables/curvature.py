"""The Hessian table in the published layout: NLL, lambda_max, trace, kappa of every stage, by itself and against dense.

Pure: records and the stages of hessian.json in, tables out. A ratio is taken within one seed, a stage over the
dense flow of that seed, and then averaged over the seeds; the NLL is compared by its difference, for a log
density has no ratio. Beside it stands the published row of the nearest prune ratio, against the published
unpruned row: its absolute scale cannot be reproduced (see reference/published.yaml).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from analysis.reference import CurvatureRow, MeasuredCurvature, load_reference
from analysis.runs.analyses import Key, Values, number, section
from analysis.runs.records import DENSE, FAILED, Run, Stage
from analysis.tables.means import mean_over_seeds, status_of
from analysis.tables.numbers import Mean

T = TypeVar("T")

QUANTITIES = ("lambda_max", "trace", "kappa")
SPECTRUM, LANCZOS = "spectrum", "Lanczos"
_OWN_ERROR = {"trace": "trace_se", "kappa_lanczos": "kappa_lanczos_se"}


@dataclass(frozen=True)
class Curvature:
    """One stage of one method, averaged over the seeds that have a Hessian.

    `values` are means as measured, `change` the same against the dense flow of each seed: ratios, for `nll`
    the difference (nats). `paper` and `paper_change` are what the published estimator gives, empty where it
    was not run. Each is keyed by `nll`, `lambda_max`, `trace`, `kappa`, with None where there is no number.
    `kappa_by` says whether kappa is that of the whole spectrum or of Lanczos' Ritz values, `change_by` the
    same for its ratio: both flows' kappa must come the same way.
    """

    method: str
    stage: int
    seeds_done: int
    seeds: int
    failures: tuple[str, ...]
    prune_ratio: float | None
    params: float | None
    values: Mapping[str, Mean | None]
    change: Mapping[str, Mean | None]
    kappa_by: str | None
    change_by: str | None
    paper: Mapping[str, Mean | None]
    paper_change: Mapping[str, Mean | None]
    published: CurvatureRow | None
    best: bool = False

    @property
    def status(self) -> str:
        """`done`, `failed`, or how many of the seeds the means are over."""
        return status_of(self.seeds_done, self.seeds)


@dataclass(frozen=True)
class HessianTable:
    """The Hessian table of one run; `loss` and `subset` (rows) as hessian.json says, None where they differ.

    `over_seeds` says whether the standard errors are over the seeds, or the estimators' own.
    """

    run: str
    name: str
    dataset: str
    seeds: int
    over_seeds: bool
    loss: str | None
    subset: float | None
    subset_seed: float | None
    rows: tuple[Curvature, ...]
    measured: tuple[MeasuredCurvature, ...]

    @property
    def has_published(self) -> bool:
        """Whether published rows stand beside these."""
        return any(row.published for row in self.rows)

    @property
    def has_paper(self) -> bool:
        """Whether the published estimator was run."""
        return any(mean is not None for row in self.rows for mean in row.paper.values())


@dataclass(frozen=True)
class _Member:
    """One network: its curvature, its NLL, and the same of the dense flow of its seed."""

    values: Values
    nll: Stage | None
    dense: Values | None
    dense_nll: Stage | None


def hessian_table(run: Run, stages: Mapping[Key, Values]) -> HessianTable:
    """The table of a run, dense flow first, methods in the order of the file, stages rising.

    Standard errors are over the seeds; where one seed alone is done they are the estimator's own (trace,
    kappa_lanczos) and the test set's (NLL).
    """
    records = {(stage.series, stage.seed, stage.stage): stage for stage in run.stages if stage.done}
    groups: dict[tuple[str, int], list[Key]] = {}
    for key in stages:
        groups.setdefault((key[0], key[2]), []).append(key)
    order = list(dict.fromkeys(method for method, _ in groups))
    in_order = sorted(groups, key=lambda group: (group[0] != DENSE, order.index(group[0]), group[1]))
    dataset = run.stages[0].dataset
    over_seeds = any(sum(stages[key].get("status") != FAILED for key in keys) > 1 for keys in groups.values())
    rows = [_row(groups[group], stages, records, run, over_seeds) for group in in_order]
    reference = load_reference().measured
    return HessianTable(
        run=run.folder,
        name=run.name,
        dataset=dataset,
        seeds=len(run.seeds),
        over_seeds=over_seeds,
        loss=_same(str(values["loss"]) for values in stages.values() if values.get("loss")),
        subset=_same(number(values, "subset") for values in stages.values()),
        subset_seed=_same(number(values, "subset_seed") for values in stages.values()),
        rows=_mark_best(rows),
        measured=reference.hessians if dataset == reference.dataset else (),
    )


def ratio(values: Values | None, dense: Values | None, key: str) -> Mean | None:
    """`key` of a flow over that of the dense flow, with the estimators' own errors; None unless dense's is positive.

    The error is by propagation, (a/b)² ((s_a/a)² + (s_b/b)²), and None where either has none.
    """
    top, bottom = number(values, key), number(dense, key)
    if top is None or bottom is None or bottom <= 0:
        return None
    own = _OWN_ERROR.get(key)
    errors = (number(values, own), number(dense, own)) if own else (None, None)
    if errors[0] is None or errors[1] is None:
        return Mean(top / bottom, None)
    return Mean(top / bottom, ((errors[0] / bottom) ** 2 + (top * errors[1] / bottom**2) ** 2) ** 0.5)


def average(means: Iterable[Mean | None], over_seeds: bool) -> Mean | None:
    """Over the seeds, with the error over them; else, of one seed, with the error it has of its own."""
    known = [mean for mean in means if mean is not None]
    if not known:
        return None
    mean = mean_over_seeds([mean.value for mean in known])
    return mean if over_seeds or len(known) > 1 else known[0]


def nll_change(stage: Stage | None, dense: Stage | None) -> Mean | None:
    """Test NLL above the dense flow's (nats), with the error of one test set.

    Both flows are judged on the same test rows: where the true density is known, the paired errors of their KL
    gaps are the ones that count, for the draw of the test set drops out of the difference.
    """
    if stage is None or dense is None or stage.nll_test is None or dense.nll_test is None:
        return None
    pairs = ((stage.kl_gap_se, dense.kl_gap_se), (stage.nll_test_se, dense.nll_test_se))
    se = next(((a**2 + b**2) ** 0.5 for a, b in pairs if a is not None and b is not None), None)
    return Mean(stage.nll_test - dense.nll_test, se)


def _row(
    keys: Sequence[Key], stages: Mapping[Key, Values], records: Mapping[Key, Stage], run: Run, over_seeds: bool
) -> Curvature:
    method, _, stage = keys[0]
    pruned = method != DENSE
    done = [key for key in keys if stages[key].get("status") != FAILED]
    members = [
        _Member(stages[key], records.get(key), stages.get((DENSE, key[1], 0)), records.get((DENSE, key[1], 0)))
        for key in done
    ]
    means, changes = _measured(members, over_seeds), _changed(members, over_seeds) if pruned else {}
    prune_ratio = _mean(number(member.values, "prune_ratio") for member in members)
    return Curvature(
        method=method,
        stage=stage,
        seeds_done=len(done),
        seeds=len(run.seeds),
        failures=tuple(f"seed {key[1]}: {stages[key].get('reason')}" for key in keys if key not in done),
        prune_ratio=prune_ratio,
        params=_mean(number(member.values, "params") for member in members),
        values=means,
        change=changes,
        kappa_by=_named(_kappa(members), means.get("kappa")),
        change_by=_named(_kappa(members, against_dense=True), changes.get("kappa")),
        paper={
            name: average((_own(section(member.values, "paper"), name) for member in members), over_seeds)
            for name in QUANTITIES
        },
        paper_change=_paper_changed(members, over_seeds) if pruned else {},
        published=_published(run.stages[0].dataset, method, prune_ratio),
    )


def _measured(members: Sequence[_Member], over_seeds: bool) -> dict[str, Mean | None]:
    sources = {"lambda_max": "lambda_max", "trace": "trace", "kappa": _kappa(members)}
    nll = {"nll": average((_nll(member.nll) for member in members), over_seeds)}
    return nll | {
        name: average((_own(member.values, source) for member in members), over_seeds)
        for name, source in sources.items()
    }


def _changed(members: Sequence[_Member], over_seeds: bool) -> dict[str, Mean | None]:
    sources = {"lambda_max": "lambda_max", "trace": "trace", "kappa": _kappa(members, against_dense=True)}
    nll = {"nll": average((nll_change(member.nll, member.dense_nll) for member in members), over_seeds)}
    return nll | {
        name: average((ratio(member.values, member.dense, source) for member in members), over_seeds)
        for name, source in sources.items()
    }


def _paper_changed(members: Sequence[_Member], over_seeds: bool) -> dict[str, Mean | None]:
    return {
        name: average(
            (ratio(section(member.values, "paper"), section(member.dense, "paper"), name) for member in members),
            over_seeds,
        )
        for name in QUANTITIES
    }


def _published(dataset: str, method: str, prune_ratio: float | None) -> CurvatureRow | None:
    published = load_reference().hessian
    if dataset != published.dataset or prune_ratio is None:
        return None
    if method == DENSE:
        return published.dense
    return published.nearest(prune_ratio) if method == published.method else None


def _kappa(members: Sequence[_Member], against_dense: bool = False) -> str:
    # kappa of the whole spectrum only where every flow that is averaged or compared has it.
    documents = [member.values for member in members]
    documents += [member.dense or {} for member in members] if against_dense else []
    whole = bool(documents) and all(number(document, "kappa") is not None for document in documents)
    return "kappa" if whole else "kappa_lanczos"


def _named(source: str, mean: Mean | None) -> str | None:
    return None if mean is None else SPECTRUM if source == "kappa" else LANCZOS


def _own(values: Values, key: str) -> Mean | None:
    value = number(values, key)
    return None if value is None else Mean(value, number(values, _OWN_ERROR.get(key, "")))


def _nll(stage: Stage | None) -> Mean | None:
    return None if stage is None or stage.nll_test is None else Mean(stage.nll_test, stage.nll_test_se)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _same(values: Iterable[T | None]) -> T | None:
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


def _mark_best(rows: Sequence[Curvature]) -> tuple[Curvature, ...]:
    nlls = [(mean.value, number) for number, row in enumerate(rows) if (mean := row.values.get("nll")) is not None]
    best = min(nlls)[1] if nlls else None
    return tuple(replace(row, best=number == best) for number, row in enumerate(rows))
