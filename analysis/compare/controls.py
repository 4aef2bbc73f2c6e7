"""Which flow is the control of a pruned one, why there may be none, and the command that adds it. Pure.

A pruned flow has been trained for longer than the dense one it came from. Its control is the dense flow trained on for
as long (protocol `control`, the stage of the same number and seed); that of one-shot pruning, which is not retrained,
is the dense flow itself. Without a control no difference may be called an effect of pruning.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.runs.records import CASCADE, DENSE, Run, Stage
from analysis.tables.numbers import LEAST_PAIRS, count
from sparseflows.specs.choices import CONTROL, ONE_SHOT

UNTESTABLE = "not testable here"
NO_CONTROL = "no control in this run"
UNEVEN = 0.01  # of the longer training (or of the dense network's params): what differs by more is unequal


@dataclass(frozen=True)
class Controls:
    """The controls of one method. `of` has, by seed and stage number, those that are done and trained for as long.

    `reason` says why there is none, `remedy` is the command that makes one; None where there is one. `name` is what
    a sentence calls them; `is_dense` says that they are the dense flows themselves.
    """

    of: Mapping[tuple[int, int], Stage]
    reason: str | None = None
    remedy: str | None = None
    is_dense: bool = False

    @property
    def name(self) -> str:
        """What a sentence calls them."""
        if self.is_dense:
            return "the dense flow, which trained as long, for nothing was retrained"
        return "the control, the dense flow trained on for as long"


def controls_of(run: Run, method: str) -> Controls:
    """The controls of what one method (`<protocol>.<method>`, of the cascade the method alone) has pruned."""
    pruned = [stage for stage in run.stages if stage.series == method and stage.done]
    if pruned and all(stage.protocol == ONE_SHOT for stage in pruned):
        dense = run.dense
        own = {(stage.seed, stage.stage): dense[stage.seed] for stage in pruned if stage.seed in dense}
        return Controls(own, None if own else "the dense flow is not done", is_dense=True)
    there = {(stage.seed, stage.stage): stage for stage in run.stages if is_control(stage)}
    if not there:
        return Controls({}, NO_CONTROL, with_control(run))
    beside = [(stage, there.get((stage.seed, stage.stage))) for stage in pruned]
    both = [(stage, other) for stage, other in beside if other is not None and other.done]
    alike = {(stage.seed, stage.stage): other for stage, other in both if trained_alike(stage, other)}
    reason = None
    if not both:
        reason = "no pruned stage is done" if not pruned else "the control of no pruned stage is done"
    elif not alike:
        stage, other = both[-1]
        behind = f"{count(other.steps_total)} steps, the pruned flow {count(stage.steps_total)}"
        reason = f"the control did not train for as long ({behind})"
    return Controls(alike, reason)


def is_control(stage: Stage) -> bool:
    """Whether the stage is an unpruned flow that was trained on, to compare pruned ones with."""
    return CONTROL in (stage.method, stage.protocol)


def trained_alike(stage: Stage, other: Stage) -> bool:
    """Whether as many training steps stand behind both; yes where results.csv does not say."""
    return stage.steps_total is None or other.steps_total is None or alike(stage.steps_total, other.steps_total)


def alike(steps: float, other_steps: float) -> bool:
    """Whether two numbers of training steps are equal but for 1 %."""
    return abs(steps - other_steps) <= UNEVEN * max(steps, other_steps)


def with_control(run: Run) -> str:
    """The command that makes the run again with a control, and with the seeds that a verdict needs."""
    there = [stage.protocol or CASCADE for stage in run.stages if stage.series != DENSE]
    asked = dict.fromkeys([*(there or [CASCADE]), CONTROL])
    return _again(run, {"prune.protocols": ",".join(asked)} | _seeds(run))


def with_seeds(run: Run) -> str | None:
    """The command that makes the run again with the seeds that a verdict needs; None where it has asked for them."""
    settings = _seeds(run)
    return _again(run, settings) if settings else None


def remedy_of(run: Run) -> str | None:
    """The command that makes the run again with what a verdict on pruning needs; None where it has that."""
    pruned = dict.fromkeys(stage.series for stage in run.stages if stage.method != DENSE and not is_control(stage))
    lacks = any(controls_of(run, method).reason == NO_CONTROL for method in pruned)
    return with_control(run) if lacks else with_seeds(run)


def again(commands: Iterable[str | None]) -> str:
    """Some of these commands as the end of a text, each once, on a line that is never broken; empty for none."""
    known = dict.fromkeys(one for one in commands if one is not None)
    head = "What makes more of it testable, in a run folder of its own:"
    return "\n".join(["", head, *(f"  {one}" for one in known), ""]) if known else ""


def _seeds(run: Run) -> dict[str, str]:
    seeds = list(run.seeds)
    seeds += [seed for seed in range(LEAST_PAIRS) if seed not in seeds][: max(0, LEAST_PAIRS - len(seeds))]
    return {"seeds": ",".join(map(str, sorted(seeds)))} if len(seeds) > len(run.seeds) else {}


def _again(run: Run, settings: Mapping[str, str]) -> str:
    folder = Path(run.folder)
    out = folder.parent if folder.name not in ("", "..") else folder.resolve().parent
    words = ["sparseflows", "run", str(folder / "spec.yaml"), "--out", str(out)]
    words += [word for name, value in settings.items() for word in ("--set", f"{name}=[{value}]")]
    return shlex.join(words)
