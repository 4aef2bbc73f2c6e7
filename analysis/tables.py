"""Records to NLL-vs-params tables: the mean over the seeds of every stage, with its standard error.

Pure: records in, tables out. How a table is written down is in `formats`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from analysis.records import DENSE, FAILED, Run, Stage

K = TypeVar("K")

OVER_SEEDS = "seeds"
OVER_TEST_SET = "test set"


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error (None where there is none), in the unit of what was averaged."""

    value: float
    se: float | None


def status_of(done: int, seeds: int) -> str:
    """`done`, `failed`, or how many of the seeds are done, as in `2 of 3`."""
    if done == seeds:
        return "done"
    return f"{done} of {seeds}" if done else FAILED


@dataclass(frozen=True)
class Row:
    """One stage of one method, averaged over the seeds that are done. NLL and KL gap in nats.

    The numbers are None where no seed is done, or where the quantity does not apply. `failures` says
    which seeds failed and why.
    """

    method: str
    protocol: str | None
    label: str
    stage: int
    seeds_done: int
    seeds: int
    failures: tuple[str, ...]
    keep_ratio_target: float | None
    prune_ratio: float | None
    params: float | None
    params_dense: float | None
    nll_test: Mean | None
    kl_gap: Mean | None
    nfe: float | None
    best: bool = False

    @property
    def status(self) -> str:
        """`done`, `failed`, or how many of the seeds the means are over, as in `2 of 3`."""
        return status_of(self.seeds_done, self.seeds)


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


def tabulate(run: Run) -> list[Table]:
    """The tables of a run, one for each data set and objective in it, in the order of the file.

    Standard errors are over the seeds (sample standard deviation / sqrt(n)) as soon as any stage is done
    for two seeds; a stage of the same table that is done for one seed only has none. With one seed they
    are the test set's.
    """
    groups = _group(run.stages, lambda stage: (stage.dataset, stage.objective))
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


def _table(run: Run, dataset: str, objective: str, stages: Sequence[Stage]) -> Table:
    groups = _group(stages, lambda stage: (stage.method, stage.protocol or "", stage.stage))
    over_seeds = any(sum(stage.done for stage in group) > 1 for group in groups.values())
    protocols: dict[str, set[str]] = {}
    for method, protocol, _ in groups:
        protocols.setdefault(method, set()).add(protocol)
    rows = [
        _row(group, len(run.seeds), over_seeds, show_protocol=len(protocols[method]) > 1)
        for (method, _, _), group in groups.items()
    ]
    order = list(dict.fromkeys(row.label for row in rows))
    rows.sort(key=lambda row: (row.method != DENSE, order.index(row.label), row.stage))
    entropies = [
        stage.nll_test - stage.kl_gap
        for stage in stages
        if stage.done and stage.nll_test is not None and stage.kl_gap is not None
    ]
    return Table(
        run=run.folder,
        name=run.name,
        dataset=dataset,
        objective=objective,
        seeds=len(run.seeds),
        se_over=OVER_SEEDS if over_seeds else OVER_TEST_SET,
        entropy=statistics.fmean(entropies) if entropies else None,
        rows=_mark_best(rows),
    )


def _row(group: Sequence[Stage], seeds: int, over_seeds: bool, show_protocol: bool) -> Row:
    first, done = group[0], [stage for stage in group if stage.done]
    return Row(
        method=first.method,
        protocol=first.protocol,
        label=f"{first.method} ({first.protocol or 'no protocol'})" if show_protocol else first.method,
        stage=first.stage,
        seeds_done=len(done),
        seeds=seeds,
        failures=_failures(group),
        keep_ratio_target=_mean(stage.keep_ratio_target for stage in group),
        prune_ratio=_mean(stage.prune_ratio for stage in done),
        params=_mean(stage.params for stage in done),
        params_dense=_mean(stage.params_dense for stage in done),
        nll_test=_mean_se([(stage.nll_test, stage.nll_test_se) for stage in done], over_seeds),
        kl_gap=_mean_se([(stage.kl_gap, stage.kl_gap_se) for stage in done], over_seeds),
        nfe=_mean(stage.nfe for stage in done),
    )


def _failures(group: Sequence[Stage]) -> tuple[str, ...]:
    # Seeds that failed for the same reason share a line.
    by_reason = _group(
        [stage for stage in group if not stage.done], lambda stage: stage.reason or "no reason was recorded"
    )
    return tuple(
        f"seed{'s' * (len(stages) > 1)} {', '.join(str(stage.seed) for stage in stages)}: {reason}"
        for reason, stages in by_reason.items()
    )


def _mark_best(rows: Sequence[Row]) -> tuple[Row, ...]:
    known = [row.nll_test.value for row in rows if row.nll_test is not None]
    best = next((row for row in rows if row.nll_test is not None and row.nll_test.value == min(known)), None)
    return tuple(replace(row, best=row is best) for row in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _mean_se(pairs: Sequence[tuple[float | None, float | None]], over_seeds: bool) -> Mean | None:
    known = [(value, se) for value, se in pairs if value is not None]
    if not known:
        return None
    mean = mean_over_seeds([value for value, _ in known])
    return mean if over_seeds else replace(mean, se=known[0][1])


def _group(stages: Iterable[Stage], key: Callable[[Stage], K]) -> dict[K, list[Stage]]:
    groups: dict[K, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(key(stage), []).append(stage)
    return groups
