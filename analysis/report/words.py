"""What happened in a run, in sentences: the test NLL over the prune ratios, and what to keep in mind. Pure."""

import statistics
from collections.abc import Sequence

from analysis.runs.groups import grouped
from analysis.runs.records import CASCADE, DENSE, Run, Stage
from analysis.tables.curvature import nll_change
from analysis.tables.means import average
from analysis.tables.numbers import Mean, nats, percent
from analysis.tables.text import joined
from sparseflows.specs.choices import CONTROL


def pruned_methods(run: Run) -> list[str]:
    """The methods of the run that prune, in the order of the file; a control prunes nothing.

    Of a run with several protocols, the cascade's: the others answer questions that `compare` asks.
    """
    pruned = [stage for stage in run.stages if stage.method != DENSE and not is_control(stage)]
    cascades = [stage for stage in pruned if stage.protocol in (None, CASCADE)]
    return list(dict.fromkeys(stage.series for stage in cascades or pruned))


def is_control(stage: Stage) -> bool:
    """Whether the stage is an unpruned flow that was trained on, to compare pruned ones with."""
    return CONTROL in (stage.method, stage.protocol)


def summary(run: Run, method: str) -> list[str]:
    """What pruning by one method did to the test NLL, in sentences: where it is lower, level (2 s.e.), higher."""
    changes = _changes(run, method)
    if not changes:
        return [f"No stage pruned by {method} has a test NLL with an error beside its dense flow's."]
    lower = [(at, by) for at, by in changes if by.beyond_error and by.value < 0]
    higher = [(at, by) for at, by in changes if by.beyond_error and by.value > 0]
    level = [at for at, by in changes if not by.beyond_error]
    said = [f"Pruning by {method} lowers the test NLL at no ratio that was tried."]
    if lower:
        most, by = min(lower, key=lambda one: one[1].value)
        places = f"{joined([at for at, _ in lower])} pruned, most at {most}: by {nats(abs(by))} nats"
        said = [f"Pruning by {method} lowers the test NLL at {places}."]
    if level:
        said.append(f"Within 2 s.e. of the dense flow: {joined(level)} pruned.")
    if higher:
        places = joined([f"{at} (by {nats(abs(by))})" for at, by in higher])
        said.append(f"Higher test NLL than the dense flow, by more than 2 s.e.: {places} pruned.")
    return said


def _changes(run: Run, method: str) -> list[tuple[str, Mean]]:
    """The prune ratio of each stage, in words, and its test NLL above the dense flow's."""
    dense = run.dense
    of_method = (stage for stage in run.stages if stage.series == method and stage.done and stage.seed in dense)
    groups = grouped(of_method, lambda stage: stage.stage)
    over_seeds = any(len(group) > 1 for group in groups.values())
    found = []
    for group in groups.values():
        change = average((nll_change(stage, dense[stage.seed]) for stage in group), over_seeds)
        if change is not None and change.se is not None:
            found.append((percent(statistics.fmean(stage.prune_ratio or 0.0 for stage in group), 0), change))
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
    if not behind:
        return ""
    trained = next((dense.train_steps for dense in run.dense.values() if dense.train_steps), None)
    counts = f" (here up to {max(behind):,} steps, the dense flow {trained:,})" if trained else ""
    end = (
        "the control trained as long unpruned, and `sparseflows compare` holds the two against each other"
        if any(is_control(stage) for stage in run.stages)
        else "a lower NLL may come from that alone; this run has no control that trained as long unpruned"
    )
    return f"A pruned flow has been trained on after the dense one, once a stage{counts}: {end}."


def listed(names: Sequence[str]) -> str:
    """Up to twelve names, and how many more there are."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
