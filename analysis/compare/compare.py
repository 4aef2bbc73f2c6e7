"""Criteria and protocols of one run compared: means over the seeds, and differences paired over the seeds.

Pure: records in, comparison out. Every pruned stage is held against random pruning of the same kind in the same
protocol, against the dense network trained on for as long (control), against a dense network of its own size
(reduced), and every other protocol against the cascade of the same criterion. A one-shot stage was not retrained,
so its control is the dense network as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from analysis.compare import types
from analysis.compare.stats import holm, t_test
from analysis.compare.types import Comparison, Difference, Quantity, StageMean
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, NO_REASON, Run, Stage
from analysis.tables.means import mean_of, mean_over_seeds
from sparseflows.specs.choices import CASCADE, CONTROL, ONE_SHOT, REDUCED
from sparseflows.specs.methods import METHODS

Key = tuple[str, str, int]  # protocol, method, stage
Known = Mapping[Key, Mapping[int, tuple[Stage, float]]]  # by seed, the stages that have the quantity, and its value


def compare(run: Run) -> list[Comparison]:
    """The comparison of each data set and objective of a run (one of each, as a rule), in the order of the file."""
    groups = grouped(run.stages, lambda stage: (stage.dataset, stage.objective))
    return [_compare(run, dataset, objective, stages) for (dataset, objective), stages in groups.items()]


def _compare(run: Run, dataset: str, objective: str, stages: Sequence[Stage]) -> Comparison:
    quantity = max(types.QUANTITIES, key=lambda one: sum(one.of(stage) is not None for stage in stages))
    groups = grouped(stages, lambda stage: (stage.protocol or CASCADE, stage.method, stage.stage))
    ordered = {key: groups[key] for key in sorted(groups, key=_order)}
    means = [_stage_mean(key, group, quantity) for key, group in ordered.items()]
    known = {
        key: {stage.seed: (stage, value) for stage in group if (value := quantity.of(stage)) is not None}
        for key, group in ordered.items()
    }
    found = [
        one
        for against in types.AGAINST
        for key in known
        if (other := _other(key, against)) is not None
        and (one := _difference(key, other, against, known, quantity)) is not None
    ]
    failed = tuple((stage, reason) for stage in stages if (reason := _reason(stage, quantity)))
    head = (run.folder, run.name, dataset, objective, quantity, run.seeds)
    differences = tuple(one for against in types.AGAINST for one in _adjusted(found, against))
    return Comparison(*head, tuple(means), differences, _best(means), failed)


def _order(key: Key) -> tuple[int, int, str, str, int]:
    protocol, method, stage = key
    protocols, methods = (*types.PROTOCOLS, CONTROL, REDUCED), (DENSE, *METHODS)
    place = protocols.index(protocol) if protocol in protocols else len(protocols)
    return place, methods.index(method) if method in methods else len(methods), protocol, method, stage


def _other(key: Key, against: str) -> Key | None:
    """What a stage is held against for one question; None where the question does not arise."""
    protocol, method, stage = key
    if method == DENSE or protocol in (CONTROL, REDUCED):
        return None
    if against == types.RANDOM:
        random = types.random_for(method)
        return None if random in (None, method) else (protocol, str(random), stage)
    if against in (CONTROL, DENSE) and (protocol == ONE_SHOT) == (against == CONTROL):
        return None
    if against == CASCADE:
        return None if protocol == CASCADE else (CASCADE, method, stage)
    return (CASCADE, DENSE, 0) if against == DENSE else (against, DENSE, stage)


def _stage_mean(key: Key, group: Sequence[Stage], quantity: Quantity) -> StageMean:
    done = [stage for stage in group if stage.done]
    validated = any(stage.nll_val is not None for stage in done)
    ratios = [stage.prune_ratio for stage in done if stage.prune_ratio is not None]
    values = {stage.seed: value for stage in done if (value := quantity.of(stage)) is not None}
    return StageMean(
        *key,
        seeds=tuple(sorted(values)),
        keep_ratio_target=mean_of(stage.keep_ratio_target for stage in group),
        prune_ratio=mean_over_seeds(ratios) if ratios else None,
        params=mean_of(stage.params for stage in done),
        value=mean_over_seeds(list(values.values())) if values else None,
        validation=mean_of(stage.nll_val if validated else stage.loss_val for stage in done),
        steps=mean_of(stage.steps_total for stage in done),
    )


def _difference(key: Key, other: Key, against: str, known: Known, quantity: Quantity) -> Difference | None:
    """The paired difference of two stages; None where no seed is done for both."""
    first, second = known[key], known.get(other, {})
    pairs = {seed: (*first[seed], *second[seed]) for seed in sorted(first) if seed in second}
    if not pairs:
        return None
    sign = 1.0 if quantity.higher_is_better else -1.0
    differences = [sign * (ours - theirs) for _, ours, _, theirs in pairs.values()]
    steps = [(one.steps_total, two.steps_total) for one, _, two, _ in pairs.values()]
    behind = [(one, two) for one, two in steps if one is not None and two is not None]
    return Difference(
        *key,
        against=against,
        other_protocol=other[0],
        other_method=other[1],
        seeds=tuple(pairs),
        prune_ratio=mean_of(one.prune_ratio for one, *_ in pairs.values()) or 0.0,
        value=fmean(ours for _, ours, *_ in pairs.values()),
        other_value=fmean(theirs for *_, theirs in pairs.values()),
        difference=mean_over_seeds(differences),
        p=t_test(differences),
        params_gap=max(_params_gap(one, two) for one, _, two, _ in pairs.values()),
        steps=(fmean(one for one, _ in behind), fmean(two for _, two in behind)) if behind else None,
    )


def _adjusted(found: Sequence[Difference], against: str) -> list[Difference]:
    """The differences that answer one question, one family of tests; what has no p is no test."""
    family = [one for one in found if one.against == against]
    adjusted = iter(holm([one.p for one in family if one.p is not None]))
    return [one if one.p is None else replace(one, p_holm=next(adjusted)) for one in family]


def _params_gap(one: Stage, two: Stage) -> float:
    dense = one.params_dense or two.params_dense
    return abs((one.params or 0) - (two.params or 0)) / dense if dense else 0.0


def _best(means: Sequence[StageMean]) -> StageMean | None:
    # A stage that some seeds failed at is not chosen: the seeds left may be the easy ones.
    pruned = [one for one in means if one.is_pruned and one.validation is not None and one.value is not None]
    most = max((len(one.seeds) for one in pruned), default=0)
    return min((one for one in pruned if len(one.seeds) == most), key=lambda one: one.validation or 0.0, default=None)


def _reason(stage: Stage, quantity: Quantity) -> str | None:
    if not stage.done:
        return stage.reason or NO_REASON
    return f"no {quantity.label} was recorded" if quantity.of(stage) is None else None
