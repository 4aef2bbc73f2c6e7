"""What happened in a run, in sentences: the test NLL over the prune ratios, and what to keep in mind. Pure."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from analysis.compare.compare import compare
from analysis.compare.controls import UNTESTABLE, controls_of, is_control
from analysis.compare.types import BEATS, LOSES, NO_DIFFERENCE, TOO_FEW
from analysis.runs.groups import grouped
from analysis.runs.records import CASCADE, DENSE, Run, Stage
from analysis.tables.curvature import nll_change
from analysis.tables.means import average
from analysis.tables.numbers import LEAST_PAIRS, Mean, nats, percent
from analysis.tables.text import joined
from sparseflows.experiment.folder.records import series_name
from sparseflows.specs.choices import CONTROL


def pruned_methods(run: Run) -> list[str]:
    """The methods of the run that prune, in the order of the file; a control prunes nothing.

    Of a run with several protocols, the cascade's: the others answer questions that `compare` asks.
    """
    pruned = [stage for stage in run.stages if stage.method != DENSE and not is_control(stage)]
    cascades = [stage for stage in pruned if stage.protocol in (None, CASCADE)]
    return list(dict.fromkeys(stage.series for stage in cascades or pruned))


def summary(run: Run, method: str) -> list[str]:
    """What pruning by one method did to the test NLL, in sentences: against the control first, then the dense flow.

    Lower, higher or no difference shown: only against a control that trained as long, as `compare` has it. All else
    are numbers.
    """
    controls, dense = controls_of(run, method), run.dense
    said = []
    if beside := _changes(run, method, lambda stage: controls.of.get((stage.seed, stage.stage))):
        said.append(f"Pruned by {method}, test NLL against {controls.name}: {_judged(run, method, beside)}.")
    if not controls.is_dense and (before := _changes(run, method, lambda stage: dense.get(stage.seed))):
        opening = f"Pruned by {method}, test NLL against the dense flow as it was, which trained less"
        why = f" ({UNTESTABLE}: {controls.reason})" if controls.reason else ""
        said.append(f"{opening}{why}: {_numbers(before.values())} pruned.")
    return said or [f"No stage pruned by {method} has a test NLL beside its dense flow's."]


def _judged(run: Run, method: str, changes: Mapping[int, tuple[str, Mean]]) -> str:
    verdicts = {
        one.stage: one.verdict
        for comparison in compare(run)
        for one in comparison.differences
        if one.against in (CONTROL, DENSE) and series_name(one.method, one.protocol) == method
    }
    few = f"{UNTESTABLE} (a verdict needs {LEAST_PAIRS} seeds of both)"
    words = {BEATS: "lower", LOSES: "higher", NO_DIFFERENCE: NO_DIFFERENCE, TOO_FEW: few}
    groups = grouped(changes, lambda stage: words.get(verdicts.get(stage, ""), UNTESTABLE))
    return "; ".join(f"{word}, {_numbers([changes[stage] for stage in some])} pruned" for word, some in groups.items())


def _numbers(changes: Iterable[tuple[str, Mean]]) -> str:
    return joined([f"{nats(change, sign=True)} nats at {at}" for at, change in changes])


def _changes(run: Run, method: str, other_of: Callable[[Stage], Stage | None]) -> dict[int, tuple[str, Mean]]:
    """By stage number: its prune ratio, in words, and its test NLL above that of another flow of each seed."""
    of_method = [stage for stage in run.stages if stage.series == method and stage.done]
    groups = grouped(of_method, lambda stage: stage.stage)
    over_seeds = any(len(group) > 1 for group in groups.values())
    found = {}
    for number, group in groups.items():
        change = average((nll_change(stage, other_of(stage)) for stage in group), over_seeds)
        if change is not None:
            found[number] = percent(statistics.fmean(stage.prune_ratio or 0.0 for stage in group), 0), change
    return found


def training_caveat(run: Run) -> str:
    """How much longer the pruned flows have trained than the dense one; empty where that is not known."""
    behind = []
    for method in pruned_methods(run):
        for seed, dense in run.dense.items():
            steps = dense.train_steps or 0
            for stage in (one for one in run.stages if (one.series, one.seed) == (method, seed) and one.done):
                steps = (steps + (stage.train_steps or 0)) if stage.steps_total is None else stage.steps_total
                behind.append(steps)
    trained = next((dense.train_steps for dense in run.dense.values() if dense.train_steps), None)
    if not behind or max(behind) <= (trained or 0):  # one-shot: nothing was trained on
        return ""
    counts = f" (here up to {max(behind):,} steps, the dense flow {trained:,})" if trained else ""
    end = (
        "the control trained as long unpruned, and is what the verdicts are against"
        if any(is_control(stage) for stage in run.stages)
        else "a lower NLL may come from that alone; this run has no control that trained as long unpruned"
    )
    return f"A pruned flow has been trained on after the dense one, once a stage{counts}: {end}."


def listed(names: Sequence[str]) -> str:
    """Up to twelve names, and how many more there are."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
