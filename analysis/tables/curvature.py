"""The Hessian table: NLL, lambda_max, trace, effective rank and kappa_80 of every stage, by itself and against dense.

Pure: records and the stages of hessian.json in, tables out. A ratio is taken within one seed and subset of rows, a
stage over the dense flow there, and then averaged; the NLL is compared by its difference, for a log density has no
ratio. Beside it stands the published row of the nearest prune ratio, against the published
unpruned row: its absolute scale cannot be reproduced (see reference/published.yaml).
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from analysis.reference import CurvatureRow, MeasuredCurvature, load_reference
from analysis.runs.analyses import Key, Values, number, section
from analysis.runs.groups import by_stage
from analysis.runs.records import DENSE, FAILED, Run, Stage
from analysis.tables.means import StageRow, average, mark_best
from analysis.tables.numbers import Mean, mean_in

_ROWS = ("loss", "subset", "subset_seed")  # what says that two flows were measured on the same rows

T = TypeVar("T")

QUANTITIES = ("lambda_max", "trace", "effective_rank", "kappa_80")
PUBLISHED = ("lambda_max", "trace", "kappa")  # of the published tables, and what their estimator gives


@dataclass(frozen=True, kw_only=True)
class Curvature(StageRow):
    """A stage with its curvature, averaged over the seeds that have a Hessian.

    `values` are means as measured, `change` the same against the dense flow of each seed: ratios, for `nll`
    the difference (nats). `paper` and `paper_change` are what the published estimator gives, empty where it
    was not run. The first two are keyed by `nll` and `QUANTITIES`, the others by `PUBLISHED`, with None where there is
    no number.
    """

    values: Mapping[str, Mean | None]
    change: Mapping[str, Mean | None]
    paper: Mapping[str, Mean | None]
    paper_change: Mapping[str, Mean | None]
    published: CurvatureRow | None


@dataclass(frozen=True)
class HessianTable:
    """The Hessian table of one run; `loss` and `subset` (rows) as hessian.json says, None where they differ.

    `over_seeds` says whether the errors are standard errors over the seeds, or `measured`'s.
    """

    run: str
    name: str
    dataset: str
    seeds: int
    over_seeds: bool
    loss: str | None
    subset: float | None
    subsets: float | None
    subset_seed: float | None
    rows: tuple[Curvature, ...]
    measured: tuple[MeasuredCurvature, ...]

    @property
    def has_published(self) -> bool:
        """Whether published rows stand beside these."""
        return any(row.published for row in self.rows)


def hessian_table(run: Run, stages: Mapping[Key, Values]) -> HessianTable:
    """The table of a run, dense flow first, methods in the order of the file, stages rising.

    Standard errors are over the seeds; where one seed alone is done they are `measured`'s and the test set's (NLL).
    """
    records = {stage.key: stage for stage in run.stages if stage.done}
    groups = by_stage(stages)
    over_seeds = any(sum(stages[key].get("status") != FAILED for key in keys) > 1 for keys in groups)
    reference = load_reference().measured
    return HessianTable(
        run=run.folder,
        name=run.name,
        dataset=run.stages[0].dataset,
        seeds=len(run.seeds),
        over_seeds=over_seeds,
        loss=_same(str(values["loss"]) for values in stages.values() if values.get("loss")),
        subset=_same(number(values, "subset") for values in stages.values()),
        subsets=_same(number(values, "subsets") for values in stages.values()),
        subset_seed=_same(number(values, "subset_seed") for values in stages.values()),
        rows=mark_best([_row(keys, stages, records, run, over_seeds) for keys in groups], _rank),
        measured=reference.hessians if run.stages[0].dataset == reference.dataset else (),
    )


def measured(values: Values | None, name: str) -> Mean | None:
    """A number of hessian.json; its error is the spread (s.d.) over the subsets, of one subset the estimator's own."""
    value = number(values, name)
    if value is None:
        return None
    spread = number(section(values, "subset_spread"), name)
    return Mean(value, number(values, f"{name}_se") if spread is None else spread)


def ratio(values: Values | None, dense: Values | None, name: str) -> Mean | None:
    """`name` of a flow over that of the dense flow; None unless dense's is positive.

    Over the same subsets of rows it is their mean ratio, the error the spread (s.d.) over the subsets. Else it is the
    ratio of the numbers, the error by propagation, (a/b)² ((s_a/a)² + (s_b/b)²), and None where either has none.
    """
    paired = _paired_ratios(values, dense, name)
    if paired:
        return Mean(statistics.fmean(paired), statistics.stdev(paired) if len(paired) > 1 else None)
    top, bottom = measured(values, name), measured(dense, name)
    if top is None or bottom is None or bottom.value <= 0:
        return None
    value = top.value / bottom.value
    if top.se is None or bottom.se is None:
        return Mean(value)
    return Mean(value, ((top.se / bottom.value) ** 2 + (top.value * bottom.se / bottom.value**2) ** 2) ** 0.5)


def _paired_ratios(values: Values | None, dense: Values | None, name: str) -> list[float]:
    """One a subset of rows that both were measured on; none where there is one alone, which has no spread."""
    if values is None or dense is None or any(values.get(key) != dense.get(key) for key in _ROWS):
        return []
    own, others = (section(one, "subset_values").get(name) or [] for one in (values, dense))
    pairs = zip(own, others, strict=False)
    known = [(own, other) for own, other in pairs if own is not None and other is not None]
    if len(known) < 2 or any(other <= 0 for _, other in known):
        return []
    return [own / other for own, other in known]


def nll_change(stage: Stage | None, dense: Stage | None) -> Mean | None:
    """Test NLL above the dense flow's (nats), with the error of one test set.

    Both flows are judged on the same test rows: where the true density is known, the paired errors of their KL
    gaps are the ones that count, for the draw of the test set drops out of the difference.
    """
    if stage is None or dense is None:
        return None
    ours, theirs = mean_in(vars(stage), "nll_test"), mean_in(vars(dense), "nll_test")
    if ours is None or theirs is None:
        return None
    if stage.kl_gap_se is not None and dense.kl_gap_se is not None:
        ours, theirs = replace(ours, se=stage.kl_gap_se), replace(theirs, se=dense.kl_gap_se)
    return ours - theirs


def _row(
    keys: Sequence[Key], stages: Mapping[Key, Values], records: Mapping[Key, Stage], run: Run, over_seeds: bool
) -> Curvature:
    method, _, stage = keys[0]
    done = [key for key in keys if stages[key].get("status") != FAILED]
    of_dense = [(DENSE, seed, 0) for _, seed, _ in done]
    own, dense = [stages[key] for key in done], [stages.get(key, {}) for key in of_dense]
    papers = [(section(values, "paper"), section(other, "paper")) for values, other in zip(own, dense, strict=True)]
    values = {"nll": average((mean_in(vars(records[key]), "nll_test") for key in done if key in records), over_seeds)}
    change: dict[str, Mean | None] = {}
    paper, paper_change = {}, {}
    values |= {name: average((measured(one, name) for one in own), over_seeds) for name in QUANTITIES}
    for name in PUBLISHED:
        paper[name] = average((mean_in(one, name) for one, _ in papers), over_seeds)
    if method != DENSE:
        nlls = [(records.get(key), records.get(other)) for key, other in zip(done, of_dense, strict=True)]
        change["nll"] = average((nll_change(*pair) for pair in nlls), over_seeds)
        for name in QUANTITIES:
            change[name] = average((ratio(*pair, name) for pair in zip(own, dense, strict=True)), over_seeds)
        for name in PUBLISHED:
            paper_change[name] = average((ratio(*pair, name) for pair in papers), over_seeds)
    prune_ratio = _mean(number(one, "prune_ratio") for one in own)
    return Curvature(
        method=method,
        stage=stage,
        seeds_done=len(done),
        seeds=len(run.seeds),
        failures=tuple(f"seed {key[1]}: {stages[key].get('reason')}" for key in keys if key not in done),
        prune_ratio=prune_ratio,
        params=_mean(number(one, "params") for one in own),
        values=values,
        change=change,
        paper=paper,
        paper_change=paper_change,
        published=_published(run.stages[0].dataset, method, prune_ratio),
    )


def _published(dataset: str, method: str, prune_ratio: float | None) -> CurvatureRow | None:
    published = load_reference().hessian
    if dataset != published.dataset or prune_ratio is None:
        return None
    if method == DENSE:
        return published.dense
    return published.nearest(prune_ratio) if method == published.method else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _same(values: Iterable[T | None]) -> T | None:
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


def _rank(row: Curvature) -> tuple[float, float]:
    return (math.inf if (nll := row.values["nll"]) is None else nll.value), 0.0
