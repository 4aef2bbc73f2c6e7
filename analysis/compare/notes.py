"""Footnotes of a comparison: what was not compared, what failed, and which comparisons are uneven. Pure."""

from collections.abc import Iterable, Sequence
from statistics import median

from analysis.compare.controls import UNEVEN, alike
from analysis.compare.types import KINDS, RANDOM, RANDOM_OF, Comparison, Difference, random_for
from analysis.compare.words import other_name
from analysis.runs.groups import grouped
from analysis.tables.numbers import count, percent
from sparseflows.specs.choices import CASCADE, CONTROL, ONE_SHOT, REDUCED


def notes(comparison: Comparison) -> list[str]:
    """What a reader has to know beside the numbers, a line each."""
    said = [f"not compared: {what} ({remedy})" for what, remedy in _missing(comparison)]
    said += _unpaired(comparison) + _failures(comparison) + _run_off(comparison)
    return said + _uneven_params(comparison.differences) + _uneven_steps(comparison)


def nothing_to_compare(comparison: Comparison) -> str | None:
    """Why there is not a single difference, and what would give one; None where there is one."""
    if comparison.differences:
        return None
    if not any(one.is_pruned for one in comparison.stages):
        return "no pruned stage is there to compare; set prune.methods, or wait for the run"
    remedies = [remedy for _, remedy in _missing(comparison)]
    if not remedies:
        return "no seed has finished both sides of any comparison; wait for the run, or see its failures"
    return f"nothing to hold the pruned stages against; {', or '.join(remedies)}"


def _missing(comparison: Comparison) -> list[tuple[str, str]]:
    """What the run has nothing to compare with, and the setting that adds it."""
    pruned = [one for one in comparison.stages if one.is_pruned]
    methods, protocols = {one.method for one in pruned}, {one.protocol for one in pruned}
    there = {one.protocol for one in comparison.stages}
    found = [
        (f"{kind} with {random}", f"add {random} to prune.methods")
        for kind, random in RANDOM_OF.items()
        if random not in methods and any(KINDS.get(method) == kind for method in methods)
    ]
    unknown = sorted(methods - set(KINDS))
    if unknown:
        found.append((f"{', '.join(unknown)} with random", "only for the criteria of this package is the kind known"))
    wanted = ([CONTROL] if protocols - {ONE_SHOT} else []) + ([REDUCED] if protocols else [])
    for protocol in wanted:
        if protocol not in there:
            name = other_name(protocol, comparison.quantity)
            found.append((f"pruned stages with {name}", f"add {protocol} to prune.protocols"))
    if protocols - {CASCADE} and CASCADE not in protocols:
        found.append(("the protocols with the cascade", "add cascade to prune.protocols"))
    return found


def _unpaired(comparison: Comparison) -> list[str]:
    """Stages that a question arises for, whose other side is in the run, but for no seed that both are done for."""
    protocols, methods = ({getattr(one, name) for one in comparison.stages} for name in ("protocol", "method"))
    cascades = {one.method for one in comparison.stages if one.is_pruned and one.protocol == CASCADE}
    made = {(one.protocol, one.method, one.stage, one.against) for one in comparison.differences}
    lacking: dict[tuple[str, str, str], list[int]] = {}
    for one in comparison.stages:
        random = random_for(one.method)
        asked = {
            RANDOM: random in methods and random != one.method,
            CONTROL: CONTROL in protocols and one.protocol != ONE_SHOT,
            REDUCED: REDUCED in protocols,
            CASCADE: one.method in cascades and one.protocol != CASCADE,
        }
        for against, here in asked.items():
            if one.is_pruned and here and (one.protocol, one.method, one.stage, against) not in made:
                lacking.setdefault((one.protocol, one.method, against), []).append(one.stage)
    shown = [
        f"{protocol} {method} against {against} ({_stages(stages)})"
        for (protocol, method, against), stages in lacking.items()
    ]
    return [f"no seed is done for both: {'; '.join(shown)}"] if shown else []


def _failures(comparison: Comparison) -> list[str]:
    said = []
    for reason, pairs in grouped(comparison.failed, lambda pair: pair[1]).items():
        names = [f"{one.protocol or CASCADE} {one.method} stage {one.stage} seed {one.seed}" for one, _ in pairs]
        said.append(f"left out: {', '.join(names)}: {reason}")
    return said


def _run_off(comparison: Comparison) -> list[str]:
    """Stages whose mean is one seed's: far beyond the usual, with an error as large as itself."""
    known = [one for one in comparison.stages if one.value is not None]
    usual = median(abs(one.value.value) for one in known if one.value) if known else 0.0
    return [
        f"one seed alone makes {one.protocol} {one.method} stage {one.stage} {one.value.value:.3g} ± "
        f"{one.value.se:.2g}: the path of a test point or two runs off; no difference to it can be told"
        for one in known
        if one.value and one.value.se and abs(one.value.value) > 50 * usual and one.value.se > abs(one.value.value) / 2
    ]


def _uneven_params(differences: Sequence[Difference]) -> list[str]:
    # The control and the dense network differ in params on purpose.
    uneven = [one for one in differences if one.against in (RANDOM, REDUCED, CASCADE) and one.params_gap > UNEVEN]
    groups = grouped(uneven, lambda one: (one.protocol, one.method, one.against))
    shown = [
        f"{protocol} {method} against {against} ({_stages(one.stage for one in group)}, by up to "
        f"{percent(max(one.params_gap for one in group))} of dense)"
        for (protocol, method, against), group in groups.items()
    ]
    return [f"unequal params: {'; '.join(shown)}"] if shown else []


def _uneven_steps(comparison: Comparison) -> list[str]:
    if all(one.steps is None for one in comparison.stages):
        return ["training steps are not known (results.csv has no steps_total), so unequal training would not show"]
    uneven = [one for one in comparison.differences if one.steps is not None and not alike(*one.steps)]
    shown = []
    for (protocol, against), group in grouped(uneven, lambda one: (one.protocol, one.against)).items():
        ours, theirs = zip(*(one.steps for one in group if one.steps), strict=True)
        numbers = _stages(one.stage for one in group)
        shown.append(f"{protocol} against {against} ({numbers}: {_range(ours)} against {_range(theirs)})")
    return [f"unequal training steps: {'; '.join(shown)}"] if shown else []


def _stages(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in sorted(set(numbers))]
    return f"stage{'s' * (len(listed) > 1)} {', '.join(listed)}"


def _range(values: Sequence[float]) -> str:
    low, high = count(min(values)), count(max(values))
    return low if low == high else f"{low} to {high}"
