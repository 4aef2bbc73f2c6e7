"""The mean over the seeds of every stage, with its standard error: NLL, or a classifier's accuracy. Pure."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from analysis.runs.groups import grouped
from analysis.runs.records import CASCADE, DENSE, FAILED, NO_REASON, Run, Stage
from analysis.tables.numbers import Mean, mean_in

T = TypeVar("T", bound="StageRow")

OVER_SEEDS = "seeds"
OVER_TEST_SET = "test set"
CLASSIFIES = "cross_entropy"  # the objective of classifiers


def status_of(done: int, seeds: int) -> str:
    """`done`, `failed`, or how many of the seeds are done, as in `2 of 3`.

    Example:
        >>> status_of(3, 3), status_of(2, 3), status_of(0, 3)
        ('done', '2 of 3', 'failed')
    """
    if done == seeds:
        return "done"
    return f"{done} of {seeds}" if done else FAILED


def label_of(method: str, protocol: str | None) -> str:
    """What a method is called in tables and figures: `<protocol> <method>`, of the cascade the method alone."""
    return method if protocol in (None, CASCADE) else f"{protocol} {method}"


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage of one method, averaged over the seeds that are done; `failures` says which seeds failed and why."""

    method: str
    stage: int
    seeds_done: int
    seeds: int
    failures: tuple[str, ...]
    prune_ratio: float | None
    params: float | None
    best: bool = False

    @property
    def status(self) -> str:
        """`done`, `failed`, or how many of the seeds the means are over, as in `2 of 3`."""
        return status_of(self.seeds_done, self.seeds)


@dataclass(frozen=True, kw_only=True)
class Row(StageRow):
    """A stage with its test NLL, or a classifier's accuracy.

    NLL, KL gap and loss are in nats, the accuracy is a fraction; None where no seed is done, or where the quantity
    does not apply.
    """

    protocol: str | None
    label: str
    keep_ratio_target: float | None
    params_dense: float | None
    nll_test: Mean | None
    kl_gap: Mean | None
    nfe: float | None
    accuracy: Mean | None = None
    loss: Mean | None = None
    left_out: int = 0  # test rows without a finite log p, the most of a seed; the NLL is over the others

    @property
    def is_dense(self) -> bool:
        """Whether it is the dense network itself, and none of the dense references of other protocols."""
        return self.method == DENSE and self.protocol in (None, CASCADE)


@dataclass(frozen=True)
class Table:
    """What pruning did to one run: one data set, one objective, dense flow first, stages rising.

    `se_over` says what the standard errors are over: `seeds` or `test set`. `entropy` is the mean of
    nll_test - kl_gap (nats): what the NLL of the true density is on this test draw; None where the
    true density is not known.
    """

    run: str
    name: str
    dataset: str
    objective: str
    seeds: int
    se_over: str
    entropy: float | None
    rows: tuple[Row, ...]

    @property
    def has_kl_gap(self) -> bool:
        """Whether any row has a KL gap."""
        return any(row.kl_gap is not None for row in self.rows)

    @property
    def classifies(self) -> bool:
        """Whether it is about classifiers: accuracy and loss instead of NLL and KL gap."""
        return self.objective == CLASSIFIES


def tabulate(run: Run) -> list[Table]:
    """The tables of a run, one for each data set and objective in it, in the order of the file.

    Standard errors are over the seeds (sample standard deviation / sqrt(n)) as soon as any stage is done
    for two seeds; a stage of the same table that is done for one seed only has none. With one seed they
    are the test set's (accuracy: sqrt(p (1 - p) / (n - 1)), the sample's; a classifier's loss has none then).
    """
    groups = grouped(run.stages, lambda stage: (stage.dataset, stage.objective))
    return [_table(run, dataset, objective, stages) for (dataset, objective), stages in groups.items()]


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Mean and standard error of the mean, from the sample standard deviation; no s.e. for one value.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    se = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(statistics.fmean(values), se)


def average(means: Iterable[Mean | None], over_seeds: bool) -> Mean | None:
    """Over the seeds, with the error over them; else, of one seed, with the error it has of its own."""
    known = [mean for mean in means if mean is not None]
    if not known:
        return None
    return mean_over_seeds([mean.value for mean in known]) if over_seeds or len(known) > 1 else known[0]


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def mark_best(rows: Sequence[T], rank: Callable[[T], tuple[float, float]]) -> tuple[T, ...]:
    """The rows, the first of lowest rank marked; a rank of infinity is that of a row that has nothing to compare."""
    best = min((row for row in rows if rank(row)[0] < math.inf), key=rank, default=None)
    return tuple(replace(row, best=row is best) for row in rows)


def _table(run: Run, dataset: str, objective: str, stages: Sequence[Stage]) -> Table:
    groups = grouped(stages, lambda stage: (stage.method, stage.protocol or "", stage.stage))
    over_seeds = any(sum(stage.done for stage in group) > 1 for group in groups.values())
    rows = [_row(group, len(run.seeds), over_seeds) for group in groups.values()]
    order = list(dict.fromkeys(row.label for row in rows))
    rows.sort(key=lambda row: (not row.is_dense, order.index(row.label), row.stage))
    entropies = (
        stage.nll_test - stage.kl_gap
        for stage in stages
        if stage.done and stage.nll_test is not None and stage.kl_gap is not None
    )
    return Table(
        run=run.folder,
        name=run.name,
        dataset=dataset,
        objective=objective,
        seeds=len(run.seeds),
        se_over=OVER_SEEDS if over_seeds else OVER_TEST_SET,
        entropy=mean_of(entropies),
        rows=mark_best(rows, _rank),
    )


def _row(group: Sequence[Stage], seeds: int, over_seeds: bool) -> Row:
    first, done = group[0], [stage for stage in group if stage.done]
    return Row(
        method=first.method,
        protocol=first.protocol,
        label=label_of(first.method, first.protocol),
        stage=first.stage,
        seeds_done=len(done),
        seeds=seeds,
        failures=_failures(group),
        keep_ratio_target=mean_of(stage.keep_ratio_target for stage in group),
        prune_ratio=mean_of(stage.prune_ratio for stage in done),
        params=mean_of(stage.params for stage in done),
        params_dense=mean_of(stage.params_dense for stage in done),
        nll_test=average((mean_in(vars(stage), "nll_test") for stage in done), over_seeds),
        kl_gap=average((mean_in(vars(stage), "kl_gap") for stage in done), over_seeds),
        nfe=mean_of(stage.nfe for stage in done),
        accuracy=average(map(_accuracy, done), over_seeds),
        loss=average((mean_in(vars(stage), "loss_test") for stage in done), over_seeds),
        left_out=max((stage.rows_left_out for stage in done), default=0),
    )


def _accuracy(stage: Stage) -> Mean | None:
    # The error: the sample standard deviation of right and wrong over the test rows, divided by sqrt(n).
    share, rows = stage.accuracy_test, stage.n_test or 0
    return None if share is None else Mean(share, math.sqrt(share * (1 - share) / (rows - 1)) if rows > 1 else None)


def _failures(group: Sequence[Stage]) -> tuple[str, ...]:
    # Seeds that failed for the same reason share a line.
    failed = [stage for stage in group if not stage.done]
    by_reason = grouped(failed, lambda stage: stage.reason or NO_REASON)
    return tuple(
        f"seed{'s' * (len(stages) > 1)} {', '.join(str(stage.seed) for stage in stages)}: {reason}"
        for reason, stages in by_reason.items()
    )


def _rank(row: Row) -> tuple[float, float]:
    # The lowest NLL of all test rows; of classifiers the highest accuracy, and of equal ones the lowest loss.
    if row.nll_test is not None:
        return math.inf if row.left_out else row.nll_test.value, 0.0
    if row.accuracy is None:
        return math.inf, math.inf
    return -row.accuracy.value, math.inf if row.loss is None else row.loss.value
