"""Criteria and protocols of one run compared: means over the seeds, and differences paired over the seeds.

Pure: records in, comparison out. Every pruned stage is held against random pruning of the same kind in the same
protocol, against the dense network trained on for as long (control), against a dense network of its own size
(reduced), and every other protocol against the cascade of the same criterion. A one-shot stage was not retrained,
so its control is the dense network as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from analysis.compare.stats import holm, t_test
from analysis.compare.types import (
    AGAINST,
    CASCADE,
    CONTROL,
    KINDS,
    ONE_SHOT,
    PROTOCOLS,
    QUANTITIES,
    RANDOM,
    RANDOM_OF,
    REDUCED,
    Comparison,
    Difference,
    Quantity,
    StageMean,
)
from analysis.runs.records import DENSE, Run, Stage
from analysis.tables.means import mean_over_seeds

Key = tuple[str, str, int]  # protocol, method, stage


def compare(run: Run) -> list[Comparison]:
    """The comparison of each data set and objective of a run (one of each, as a rule), in the order of the file."""
    groups: dict[tuple[str, str], list[Stage]] = {}
    for stage in run.stages:
        groups.setdefault((stage.dataset, stage.objective), []).append(stage)
    return [_compare(run, dataset, objective, stages) for (dataset, objective), stages in groups.items()]


def _compare(run: Run, dataset: str, objective: str, stages: Sequence[Stage]) -> Comparison:
    quantity = max(QUANTITIES, key=lambda one: sum(one.of(stage) is not None for stage in stages))
    members: dict[Key, dict[int, Stage]] = {}
    for stage in stages:
        members.setdefault((stage.protocol or CASCADE, stage.method, stage.stage), {})[stage.seed] = stage
    ordered = {key: members[key] for key in sorted(members, key=_order)}
    means = [_stage_mean(key, by_seed, quantity) for key, by_seed in ordered.items()]
    known = {
        key: {seed: stage for seed, stage in by_seed.items() if quantity.of(stage) is not None}
        for key, by_seed in ordered.items()
    }
    found = [
        one
        for against in AGAINST
        for key in known
        if (other := _other(key, against)) is not None
        and (one := _difference(key, other, against, known, quantity)) is not None
    ]
    failed = tuple((stage, reason) for stage in stages if (reason := _reason(stage, quantity)))
    head = (run.folder, run.name, dataset, objective, quantity, run.seeds)
    return Comparison(*head, tuple(means), _corrected(found), _best(means), failed)


def _order(key: Key) -> tuple[int, int, str, str, int]:
    protocol, method, stage = key
    protocols, methods = (*PROTOCOLS, CONTROL, REDUCED), (DENSE, *KINDS)
    place = protocols.index(protocol) if protocol in protocols else len(protocols)
    return place, methods.index(method) if method in methods else len(methods), protocol, method, stage


def _other(key: Key, against: str) -> Key | None:
    """What a stage is held against for one question; None where the question does not arise."""
    protocol, method, stage = key
    if method == DENSE or protocol in (CONTROL, REDUCED):
        return None
    if against == RANDOM:
        random = RANDOM_OF.get(KINDS.get(method, ""))
        return None if random in (None, method) else (protocol, str(random), stage)
    if against in (CONTROL, DENSE) and (protocol == ONE_SHOT) == (against == CONTROL):
        return None
    if against == CASCADE:
        return None if protocol == CASCADE else (CASCADE, method, stage)
    return (CASCADE, DENSE, 0) if against == DENSE else (against, DENSE, stage)


def _stage_mean(key: Key, by_seed: Mapping[int, Stage], quantity: Quantity) -> StageMean:
    done = [stage for stage in by_seed.values() if stage.done]
    validation = "nll_val" if any(stage.nll_val is not None for stage in done) else "loss_val"
    ratios, values = _known(done, lambda stage: stage.prune_ratio), _known(done, quantity.of)
    return StageMean(
        *key,
        seeds=tuple(sorted(stage.seed for stage in done if quantity.of(stage) is not None)),
        keep_ratio_target=_average(_known(by_seed.values(), lambda stage: stage.keep_ratio_target)),
        prune_ratio=mean_over_seeds(ratios) if ratios else None,
        params=_average(_known(done, lambda stage: stage.params)),
        value=mean_over_seeds(values) if values else None,
        validation=_average(_known(done, lambda stage: getattr(stage, validation))),
        steps=_average(_known(done, lambda stage: stage.steps_total)),
    )


def _difference(
    key: Key, other: Key, against: str, known: Mapping[Key, Mapping[int, Stage]], quantity: Quantity
) -> Difference | None:
    """The paired difference of two stages; None where no seed is done for both."""
    first, second = known[key], known.get(other, {})
    pairs = {seed: (first[seed], second[seed]) for seed in sorted(first) if seed in second}
    if not pairs:
        return None
    ours = _known((one for one, _ in pairs.values()), quantity.of)
    theirs = _known((two for _, two in pairs.values()), quantity.of)
    sign = 1.0 if quantity.higher_is_better else -1.0
    differences = [sign * (one - two) for one, two in zip(ours, theirs, strict=True)]
    steps = [(one.steps_total, two.steps_total) for one, two in pairs.values()]
    behind = [(one, two) for one, two in steps if one is not None and two is not None]
    return Difference(
        *key,
        against=against,
        other_protocol=other[0],
        other_method=other[1],
        seeds=tuple(pairs),
        prune_ratio=_average(_known((one for one, _ in pairs.values()), lambda stage: stage.prune_ratio)) or 0.0,
        value=fmean(ours),
        other_value=fmean(theirs),
        difference=mean_over_seeds(differences),
        p=t_test(differences),
        params_gap=max(_params_gap(one, two) for one, two in pairs.values()),
        steps=(fmean(one for one, _ in behind), fmean(two for _, two in behind)) if behind else None,
    )


def _params_gap(one: Stage, two: Stage) -> float:
    dense = one.params_dense or two.params_dense
    return abs((one.params or 0) - (two.params or 0)) / dense if dense else 0.0


def _corrected(found: Sequence[Difference]) -> tuple[Difference, ...]:
    tested = [place for place, one in enumerate(found) if one.p is not None]
    adjusted = dict(zip(tested, holm([found[place].p or 0.0 for place in tested]), strict=True))
    return tuple(replace(one, p_holm=adjusted.get(place)) for place, one in enumerate(found))


def _best(means: Sequence[StageMean]) -> StageMean | None:
    # A stage that some seeds failed at is not chosen: the seeds left may be the easy ones.
    pruned = [one for one in means if one.is_pruned and one.validation is not None and one.value is not None]
    most = max((len(one.seeds) for one in pruned), default=0)
    return min((one for one in pruned if len(one.seeds) == most), key=lambda one: one.validation or 0.0, default=None)


def _reason(stage: Stage, quantity: Quantity) -> str | None:
    if not stage.done:
        return stage.reason or "no reason was recorded"
    return f"no {quantity.label} was recorded" if quantity.of(stage) is None else None


def _known(stages: Iterable[Stage], of: Callable[[Stage], float | None]) -> list[float]:
    return [value for stage in stages if (value := of(stage)) is not None]


def _average(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
