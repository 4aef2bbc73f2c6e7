"""Flows against their baselines, pruned stages against their control and their dense flow, paired over the seeds. Pure.

A verdict stands where the paired t-test says so after Holm's correction over all tests of the table that answer the
same question: against the baselines, against the controls, against the dense flows. Pruning has one only beside a
control that trained as long.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from analysis.compare.controls import UNTESTABLE, Controls, controls_of, with_seeds
from analysis.compare.paired import Paired, in_family, paired, too_few
from analysis.compare.types import BEATS, LOSES, NO_DIFFERENCE
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, Run, Stage
from analysis.tables.numbers import LEAST_PAIRS, Mean, fixed
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE
from analysis.tabular.front import best_validated, pruned_of
from analysis.tabular.runs import Choice
from analysis.tabular.table import words
from sparseflows.specs.choices import CONTROL


@dataclass(frozen=True)
class Comparison:
    """One flow against another model on the same test rows, as a sentence.

    `difference` is the other's NLL less the flow's (nats): above 0 the flow's is lower. For pruning (`against`
    "control" and "dense") it is the pruned stage's less the other's: below 0 the pruned one's is lower. `paired_over`
    counts seeds, 0 where the error is that of a test set and unpaired. `verdict` is `beats`, `loses`, `no difference
    shown` or `not testable here`; of the last, `reason` says why and `remedy` is the command that helps (None where
    there is none).
    """

    dataset: str
    objective: str
    run: str
    against: str
    difference: Mean
    paired_over: int
    sentence: str
    verdict: str
    reason: str | None
    remedy: str | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class _Question:
    """A comparison before the tests beside it are known; `say` puts it into words, `falls` where below 0 is better."""

    choice: Choice
    question: str
    against: str
    change: Paired
    say: Callable[[str, Paired], str]
    falls: bool = False
    reason: str | None = None
    remedy: str | None = None


def compare(choices: Sequence[Choice], baselines: Mapping[str, RunBaselines]) -> list[Comparison]:
    """Dense flow against the baselines, then the best validated pruned stage against its control and the dense flow."""
    asked = [one for choice in choices for one in _against_baselines(choice, baselines)]
    asked += [one for choice in choices for one in _against_unpruned(choice)]
    adjusted = {
        question: iter(in_family([one.change for one in family]))
        for question, family in grouped(asked, lambda one: one.question).items()
    }
    return [_judged(replace(one, change=next(adjusted[one.question]))) for one in asked]


def _judged(one: _Question) -> Comparison:
    change, shown = one.change, one.choice.shown
    verdict = NO_DIFFERENCE
    if one.reason is not None:
        verdict = UNTESTABLE
    elif change.stands:
        verdict = BEATS if (change.mean < 0) == one.falls else LOSES
    return Comparison(
        *(one.choice.title, shown.objective, shown.run.folder, one.against),
        difference=_mean(change),
        paired_over=change.seeds if change.seeds > 1 else 0,
        sentence=f"{one.choice.title}: {one.say(verdict, change)}",
        verdict=verdict,
        reason=one.reason,
        remedy=one.remedy,
        p=change.p,
        p_holm=change.p_holm,
    )


def _against_baselines(choice: Choice, baselines: Mapping[str, RunBaselines]) -> Iterator[_Question]:
    dense, known = choice.shown.dense, baselines.get(choice.shown.run.folder)
    if dense is None or known is None:
        return
    splits = ", each with its own split" if known.own_splits else ", one split"
    for name in (GAUSSIAN, MIXTURE):
        pairs = [
            (Mean(fit.nll_test, fit.nll_test_se), _nll(stage))
            for seed, stage in dense.members.items()
            for fit in (known.by_seed[seed].baselines if seed in known.by_seed else ())
            if fit.name == name
        ]
        if pairs:
            theirs, ours = (fixed(statistics.fmean(one.value for one in side)) for side in zip(*pairs, strict=True))
            flow, other = f"{spoken(choice.shown.objective)} ({ours})", f"the {name} ({theirs}, same rows)"
            change = _paired(pairs)
            reason, remedy = _too_few(change, choice.shown.run)
            say = partial(_said_of_baseline, flow, other, splits, reason)
            yield _Question(choice, "baselines", name, change, say, reason=reason, remedy=remedy)


def _against_unpruned(choice: Choice) -> Iterator[_Question]:
    """The pruned stage chosen on validation rows: against its control first, then against the dense flow as it was."""
    best, dense, run = best_validated(pruned_of(choice.shown.points)), choice.shown.dense, choice.shown.run
    if best is None:
        return
    members = best.members
    controls = controls_of(replace(run, stages=choice.shown.stages), next(iter(members.values())).series)
    beside = [(_nll(one), _nll(other)) for one in members.values() if (other := _control(controls, one)) is not None]
    of_dense = dense.members if dense else {}
    before = [(_nll(one), _nll(of_dense[seed])) for seed, one in members.items() if seed in of_dense]
    head = f"{spoken(choice.shown.objective)}, pruned stage chosen on validation ({words(choice, best, False)})"
    reason, remedy = controls.reason, controls.remedy
    if reason is None:
        reason, remedy = _too_few(_paired(beside), run) if beside else ("the control has no test NLL", None)
    sides = [] if controls.is_dense else [(CONTROL, controls.name, beside)]
    sides.append(
        (DENSE, controls.name if controls.is_dense else "the dense flow as it was, which trained less", before)
    )
    for against, name, pairs in sides:
        if pairs:
            say = partial(_said_of_pruning, f"{head} against {name}", reason)
            yield _Question(choice, against, against, _paired(pairs), say, True, reason, remedy)


def _said_of_baseline(flow: str, other: str, splits: str, reason: str | None, verdict: str, change: Paired) -> str:
    signed, size = fixed(_mean(change), sign=True), fixed(abs(_mean(change)))
    said = {
        BEATS: f"{flow} beats {other} by {size} nats",
        LOSES: f"{flow} loses to {other} by {size} nats",
        NO_DIFFERENCE: f"{flow} shows no difference from {other}: {signed} nats",
        UNTESTABLE: f"{flow} against {other}: {signed} nats, above 0 where the flow's is lower",
    }[verdict]
    return f"{said} ({_over(change, splits)}){f'; {verdict}: {reason}' if verdict == UNTESTABLE else ''}"


def _said_of_pruning(head: str, reason: str | None, verdict: str, change: Paired) -> str:
    ends = {BEATS: "beats it", LOSES: "loses to it", UNTESTABLE: f"{UNTESTABLE}: {reason}"}
    return f"{head}: {fixed(_mean(change), sign=True)} nats ({_over(change)}): {ends.get(verdict, verdict)}"


def spoken(objective: str) -> str:
    """What a sentence calls the flows of an objective."""
    return {"flow_matching": "flow matching", "nll": "FFJORD"}.get(objective, objective)


def _control(controls: Controls, stage: Stage) -> Stage | None:
    found = controls.of.get((stage.seed, stage.stage))
    return None if found is None or found.nll_test is None else found


def _too_few(change: Paired, run: Run) -> tuple[str | None, str | None]:
    return (too_few(change.seeds), with_seeds(run)) if change.seeds < LEAST_PAIRS else (None, None)


def _paired(pairs: Sequence[tuple[Mean, Mean]]) -> Paired:
    differences = [ours - theirs for ours, theirs in pairs]
    return paired([one.value for one in differences], differences[0].se)


def _mean(change: Paired) -> Mean:
    return Mean(change.mean, change.se)


def _nll(stage: Stage) -> Mean:
    assert stage.nll_test is not None  # points have one
    return Mean(stage.nll_test, stage.nll_test_se)


def _over(change: Paired, splits: str = "") -> str:
    if change.seeds == 1:
        return "1 seed: ± s.e. over the test set, unpaired"
    tests = f"; {change.tested}" if change.tested else ""
    return f"paired over {change.seeds} seeds{splits}{tests}"
