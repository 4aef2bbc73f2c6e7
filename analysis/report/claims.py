"""The paper's claims, one by one, judged by the numbers of a run.

Pure. A claim is judged for one method of pruning, against the control first: the dense flow of the same seed, trained
on for as long. Then against the dense flow as it was, which says less, for it trained less. A verdict stands where the
paired t-test over the seeds says so after Holm's correction over all methods (and curvatures) that the claim is about.
Without a control, or with fewer than three seeds, there is none: the numbers stand alone, beside the command that
would allow one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.compare.controls import UNTESTABLE, controls_of
from analysis.compare.paired import Paired, in_family
from analysis.compare.types import NO_DIFFERENCE
from analysis.report.evidence import CURVATURES, Evidence, flatter, lower_nll, modes_kept
from analysis.report.words import pruned_methods
from analysis.runs.analyses import Key, Values
from analysis.runs.groups import grouped
from analysis.runs.records import Run
from sparseflows.specs.choices import CONTROL

HOLDS, FAILS, MIXED = "holds here", "does not hold here", "more good samples, but a mode lost"

__all__ = ["FAILS", "HOLDS", "MIXED", "NO_DIFFERENCE", "UNTESTABLE", "Claim", "Side", "claims"]


@dataclass(frozen=True)
class Side:
    """A claim against one other: the verdict (None: numbers alone), the change in words, and its p."""

    against: str
    verdict: str | None
    change: str
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, `subject` in three words, for one method: the verdict, and the numbers it rests on.

    `verdict` is that against the control; where it is `not testable here`, `reason` says why and `remedy` is the
    command that helps (None where there is none). `sides` are the control's and the dense flow's, in that order,
    where there are numbers.
    """

    letter: str
    subject: str
    claim: str
    method: str
    verdict: str
    numbers: str
    reason: str | None
    remedy: str | None
    sides: tuple[Side, ...]


def claims(run: Run, hessian: Mapping[Key, Values] | None, modes: Mapping[Key, Values] | None) -> list[Claim]:
    """Every claim of the paper for every method of the run; nothing for a run that has no pruned stage."""
    methods = {method: controls_of(run, method) for method in pruned_methods(run)}
    several = [lower_nll(run, method, controls) for method, controls in methods.items()]
    several += [flatter(run, *one, hessian, quantity) for one in methods.items() for quantity in CURVATURES]
    several += [modes_kept(run, *one, modes) for one in methods.items()]
    families = grouped(several, lambda one: one.letter).values()
    return [_claim(one) for family in families for one in _adjusted(family)]


def _adjusted(family: Sequence[Evidence]) -> list[Evidence]:
    """The same with the adjusted p of either question: against the controls, and against the dense flows."""
    controls = iter(in_family([one.control for one in family if one.control is not None]))
    dense = iter(in_family([one.dense for one in family if one.dense is not None]))
    return [
        replace(
            one,
            control=None if one.control is None else next(controls),
            dense=None if one.dense is None else next(dense),
        )
        for one in family
    ]


def _claim(one: Evidence) -> Claim:
    testable = one.reason is None
    against = [(CONTROL, f"against {one.controls.name}", one.control)]
    if not one.controls.is_dense:
        against.append(("dense", "against the dense flow as it was, which trained less", one.dense))
    sides, told = [], []
    for name, words, change in against:
        if change is not None:
            verdict = _verdict(one, change) if testable else None
            sides.append(Side(name, verdict, one.describe(change), change.p, change.p_holm))
            told.append(f"{words}: {one.describe(change)}{f', {verdict}' if verdict and name != CONTROL else ''}")
    return Claim(
        letter=one.letter,
        subject=one.subject,
        claim=one.claim,
        method=one.method,
        verdict=next((side.verdict or UNTESTABLE for side in sides if side.against == CONTROL), UNTESTABLE),
        numbers=": ".join([one.head, *(["; ".join(told)] if told else [])]) + one.tail,
        reason=one.reason,
        remedy=one.remedy,
        sides=tuple(sides),
    )


def _verdict(one: Evidence, change: Paired) -> str:
    """What a change says of the claim: nothing unless it stands among all tests of its question, beyond the margin."""
    if not change.stands or abs(change.mean) <= one.margin:
        return NO_DIFFERENCE
    if (change.mean > 0) != one.rises:
        return FAILS
    return MIXED if one.lost else HOLDS
