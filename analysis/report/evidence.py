"""What speaks for each claim of the paper, by the numbers of a run: pruned flows against controls and dense flows.

Pure. A difference is one number a seed, paired: a stage (or the mean of several) less its control of the same seed and
training, and less the dense flow of that seed as it was. Which of them stand is decided in `claims`, for all methods
at once.
"""

import math
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.compare.controls import Controls, with_seeds
from analysis.compare.paired import Paired, paired, too_few
from analysis.runs.analyses import Key, Values, number
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, FAILED, Run, Stage, selected_by
from analysis.tables.curvature import nll_change, ratio
from analysis.tables.numbers import LEAST_PAIRS, Mean, mean_in, percent

Documents = Mapping[Key, Values] | None  # the stages of one analysis; None where it was not made

# "Moderate" prune ratios: the published gains lie there (25 to 82 % of the published Hessian table).
MODERATE = (0.2, 0.85)
# lambda_max of one network moves by 10-15 % with the subset alone; what is smaller is no finding.
SUBSET_MARGIN = 0.15
# A percentage point of good samples: less is no collapse, however small its error.
MODES_MARGIN = 0.01

CURVATURES = {  # what the claim calls them, and the claim in three words
    "lambda_max": ("the largest eigenvalue", "lower largest eigenvalue"),
    "trace": ("the trace", "lower trace"),
    "kappa_80": ("the condition number κ₈₀", "lower condition number"),
}
# A principal submatrix: its largest eigenvalue and (of a positive one) its trace are no larger than the whole one's.
_FALL_BY_DELETION = ("lambda_max", "trace")


@dataclass(frozen=True)
class Evidence:
    """What speaks for one claim about one method: `control` and `dense` are the changes against either.

    `rises` says whether the claim is that the number rises; a change up to `margin` is none. `describe` writes a
    change down, `head` says of what. `reason` says why no verdict can be given, `remedy` is the command that helps;
    None where one can. `lost` counts the seeds in which a mode is missing that the control has.
    """

    letter: str
    subject: str
    claim: str
    method: str
    controls: Controls
    head: str
    describe: Callable[[Paired], str]
    control: Paired | None = None
    dense: Paired | None = None
    margin: float = 0.0
    rises: bool = False
    lost: int = 0
    tail: str = ""
    reason: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class _Pair:
    """What is known of a pruned flow of one seed, of its control and of its dense flow."""

    seed: int
    own: Values
    control: Values | None
    dense: Values | None


def lower_nll(run: Run, method: str, controls: Controls) -> Evidence:
    """(a) Up to some ratio, the pruned flow has the lower test NLL.

    The ratio is chosen by the validation NLL (mean over the seeds, of the stages that most seeds are done for), and
    that one stage is judged on the test set: the best of many test NLLs would be low by luck alone.
    """
    pruned = [stage for stage in run.stages if stage.series == method and stage.done and stage.nll_test is not None]
    several = list(grouped(pruned, lambda stage: stage.stage).values())
    most = max(map(len, several), default=0)
    chosen = min(
        (group for group in several if len(group) == most),
        key=lambda group: statistics.fmean(map(selected_by, group)),
        default=[],
    )
    dense = run.dense
    control = _nll_changes(chosen, lambda stage: controls.of.get((stage.seed, stage.stage)))
    reached = percent(statistics.fmean(stage.prune_ratio or 0.0 for stage in chosen), 0) if chosen else ""
    by_validation = all(stage.nll_val is not None for stage in pruned)
    how = "lowest validation NLL" if by_validation else "lowest test NLL: a choice that flatters it"
    reason, remedy = _why_not(run, controls, control, "test NLL", None)
    return Evidence(
        "a",
        "lower NLL",
        "Pruned flows, up to some ratio, generalise better (lower test NLL) than dense ones",
        method,
        controls,
        f"pruned stage chosen by the {how}, {reached} pruned, test NLL" if chosen else "no pruned stage has a test NLL",
        lambda change: f"{change.mean:+.3f} nats ({ends(change, '+.3f')}; {change.over})",
        control=control,
        dense=_nll_changes(chosen, lambda stage: dense.get(stage.seed)),
        reason=reason,
        remedy=remedy,
    )


def flatter(run: Run, method: str, controls: Controls, stages: Documents, quantity: str) -> Evidence:
    """(b) At moderate ratios the curvature falls: the geometric mean of its ratios to the control's, to the dense's."""
    name, subject = CURVATURES[quantity]
    pairs = _moderate(stages, method, controls)
    control, dense = (
        _changes(pairs, side, lambda own, other: _log_ratio(own, other, quantity)) for side in ("control", "dense")
    )
    tail = ""
    if quantity in _FALL_BY_DELETION and (control or dense):
        tail = "; over the params that are left, so deletion alone can lower it"
    reason, remedy = _why_not(run, controls, control, "Hessian", "hessian")
    return Evidence(
        "b",
        subject,
        f"Lower curvature of the loss in the params that are left: {name} falls at moderate ratios",
        method,
        controls,
        f"at {_span(pairs)} pruned" if pairs else _absent(stages, "Hessian"),
        _describe_ratio,
        control=control,
        dense=dense,
        margin=math.log1p(SUBSET_MARGIN),
        tail=tail,
        reason=reason,
        remedy=remedy,
    )


def modes_kept(run: Run, method: str, controls: Controls, stages: Documents) -> Evidence:
    """(c) Pruning keeps modes from collapsing: more good samples at moderate ratios, no mode lost."""
    good = any(number(values, "good_within_3") is not None for values in (stages or {}).values())
    name, shown = ("good_within_3", "good samples (within 3 s.d.)") if good else ("coverage", "coverage of the data")
    pairs = _moderate(stages, method, controls)
    control, dense = (
        _changes(pairs, side, lambda own, other: _difference(own, other, name)) for side in ("control", "dense")
    )
    reason, remedy = _why_not(run, controls, control, "mode quality", "modes")
    captured, lost = _captured(pairs, controls)
    return Evidence(
        "c",
        "modes kept",
        "Pruning keeps modes from collapsing: more good samples at moderate ratios, no mode lost",
        method,
        controls,
        f"at {_span(pairs)} pruned, {shown}" if pairs else _absent(stages, "mode quality"),
        lambda change: f"{100 * change.mean:+.1f} percentage points ({ends(change, '+.1f', 100)}; {change.over})",
        control=control,
        dense=dense,
        margin=MODES_MARGIN,
        rises=True,
        lost=lost,
        tail=captured,
        reason=reason,
        remedy=remedy,
    )


def ends(change: Paired, form: str, scale: float = 1.0) -> str:
    """The ends of its interval."""
    if change.half is None:
        return "no error known"
    return f"{scale * change.low:{form}} to {scale * change.high:{form}}"


def _describe_ratio(change: Paired) -> str:
    interval = f"{math.exp(change.low):.2f} to {math.exp(change.high):.2f}"
    return (
        f"{math.exp(change.mean):.2f} × ({'no error of its own' if change.half is None else interval}; {change.over})"
    )


def _why_not(
    run: Run, controls: Controls, control: Paired | None, what: str, kind: str | None
) -> tuple[str | None, str | None]:
    """Why no verdict can be given, and the command that helps; None where one can."""
    if controls.reason is not None:
        return controls.reason, controls.remedy
    if control is None:
        command = f"sparseflows {kind} {shlex.quote(run.folder)}" if kind else None
        return f"no {what} of both a pruned stage and its control", command
    return (too_few(control.seeds), with_seeds(run)) if control.seeds < LEAST_PAIRS else (None, None)


def _nll_changes(stages: Sequence[Stage], other_of: Callable[[Stage], Stage | None]) -> Paired | None:
    changes = [change for stage in stages if (change := nll_change(stage, other_of(stage))) is not None]
    return paired([change.value for change in changes], changes[0].se) if changes else None


def _moderate(stages: Documents, method: str, controls: Controls) -> list[_Pair]:
    known = stages or {}
    control_of = {place: known.get(other.key) for place, other in controls.of.items()}
    return [
        _Pair(seed, values, control_of.get((seed, stage)), known.get((DENSE, seed, 0)))
        for (name, seed, stage), values in known.items()
        if name == method and values.get("status") != FAILED
        if MODERATE[0] <= (number(values, "prune_ratio") or 0.0) <= MODERATE[1]
    ]


def _changes(
    pairs: Sequence[_Pair], side: str, compare: Callable[[Values, Values | None], Mean | None]
) -> Paired | None:
    known = [(one.seed, change) for one in pairs if (change := compare(one.own, getattr(one, side))) is not None]
    by_seed = [[change for _, change in several] for several in grouped(known, lambda one: one[0]).values()]
    if not by_seed:
        return None
    # The stages of one seed share its dense flow, so their errors do not average out: the largest counts.
    own = [mean.se for means in by_seed for mean in means if mean.se is not None]
    return paired([statistics.fmean(mean.value for mean in means) for means in by_seed], max(own, default=None))


def _log_ratio(values: Values, other: Values | None, quantity: str) -> Mean | None:
    found = ratio(values, other, quantity)
    if found is None or found.value <= 0:
        return None
    return Mean(math.log(found.value), None if found.se is None else found.se / found.value)


def _difference(values: Values, other: Values | None, name: str) -> Mean | None:
    own, theirs = mean_in(values, name), mean_in(other, name)
    return None if own is None or theirs is None else own - theirs


def _captured(pairs: Sequence[_Pair], controls: Controls) -> tuple[str, int]:
    """The fewest modes of any seed, pruned and beside it; in how many seeds a mode of the control is lost."""
    total = next((value for one in pairs if (value := number(one.own, "modes_total")) is not None), None)
    own = [value for one in pairs if (value := number(one.own, "modes_captured")) is not None]
    if total is None or not own:
        return "", 0
    words = f"; modes captured: at least {min(own):.0f} of {total:.0f}"
    for side, name in (("control", "control"), ("dense", "dense")):
        theirs = [value for one in pairs if (value := number(getattr(one, side), "modes_captured")) is not None]
        if theirs and not (side == "dense" and controls.is_dense):
            words += f", {'dense' if controls.is_dense else name} {min(theirs):.0f}"
    lost = {
        one.seed
        for one in pairs
        if (mine := number(one.own, "modes_captured")) is not None
        and (other := number(one.control, "modes_captured")) is not None
        and mine < other
    }
    return words, len(lost)


def _span(pairs: Sequence[_Pair]) -> str:
    ratios = [number(one.own, "prune_ratio") or 0.0 for one in pairs]
    low, high = percent(min(ratios), 0), percent(max(ratios), 0)
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _absent(stages: Documents, what: str) -> str:
    if stages is None:
        return f"no {what} of this run is known"
    return f"no {what} of a stage pruned by {100 * MODERATE[0]:.0f} to {100 * MODERATE[1]:.0f} %"
