"""A comparison in plain sentences: a verdict for every criterion and question, and what they add up to. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.compare.controls import UNTESTABLE
from analysis.compare.paired import p_is
from analysis.compare.stats import by_chance
from analysis.compare.types import BEATS, LOSES, NO_DIFFERENCE, RANDOM, TOO_FEW, Comparison, Difference, Quantity
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE
from analysis.tables.numbers import LEAST_PAIRS, Mean, measure
from analysis.tables.text import joined
from sparseflows.specs.choices import CASCADE, CONTROL, GRADUAL, ONE_SHOT, REDUCED, REWIND, SCRATCH

_OPENINGS = {
    CASCADE: "After retraining (cascade)",
    ONE_SHOT: "Without retraining (one-shot)",
    GRADUAL: "Pruned gradually (gradual)",
    SCRATCH: "Trained from scratch (scratch)",
    REWIND: "Trained from the original initial weights (rewind)",
}
_DECIMALS = 4
_UNEVEN = "which did not train for as long, so not testable here"
OTHERS = {
    RANDOM: "random",
    CONTROL: "the dense {noun} trained on for as long",
    DENSE: "the dense {noun}",
    REDUCED: "a dense {noun} of its own size",
    CASCADE: "its own cascade",
}


@dataclass(frozen=True)
class Verdict:
    """One criterion of one protocol against one other, over all prune ratios; the counts are of ratios.

    `within_error` counts those where no difference is shown, `untestable` those whose control trained for another time.
    """

    protocol: str
    method: str
    against: str
    ratios: int
    beats: int
    loses: int
    within_error: int
    too_few_pairs: int
    survive_holm: int
    untestable: int
    sentence: str


def verdicts(comparison: Comparison) -> list[Verdict]:
    """One verdict for every question, protocol and criterion that has a difference, in the order of the table."""
    groups = grouped(comparison.differences, lambda one: (one.protocol, one.method, one.against))
    return [
        Verdict(
            *key,
            ratios=len(group),
            beats=len(_of(group, BEATS)),
            loses=len(_of(group, LOSES)),
            within_error=len(_of(group, NO_DIFFERENCE)),
            too_few_pairs=len(_of(group, TOO_FEW)),
            survive_holm=sum(one.survives for one in group),
            untestable=len(_of(group, UNTESTABLE)),
            sentence=_sentence(group, comparison.quantity),
        )
        for key, group in groups.items()
    ]


def headlines(comparison: Comparison) -> list[str]:
    """What it adds up to: random, the best pruned stage, all pruned stages, and how much chance would show."""
    found = verdicts(comparison)
    protocols = dict.fromkeys(one.protocol for one in found)
    said = [line for protocol in protocols if (line := _against_random(protocol, found))]
    said += _best(comparison)
    for against in (CONTROL, DENSE, REDUCED):
        group = [one for one in comparison.differences if one.against == against and _is_tested(one)]
        if group:
            counts = f"{len(_of(group, BEATS))} better, {len(_of(group, LOSES))} worse"
            said.append(
                f"Against {other_name(against, comparison.quantity)}: of {_count(len(group), 'pruned stage')}, "
                f"{counts}, {len(_of(group, NO_DIFFERENCE))} with no difference shown."
            )
    return [*said, _how_many(comparison)]


def other_name(against: str, quantity: Quantity) -> str:
    """What a stage is held against, in words: a flow or a network, by what is measured."""
    return OTHERS[against].format(noun=noun(quantity))


def noun(quantity: Quantity) -> str:
    """`flow`, or `network` where accuracy is compared."""
    return "network" if quantity.higher_is_better else "flow"


def amount(mean: Mean) -> str:
    """A difference to one digit of its standard error (two after a 1), at most four decimals; never a minus zero."""
    if mean.se is None or mean.se == 0:
        return measure(mean)
    power = math.floor(math.log10(mean.se))
    decimals = min(_DECIMALS, max(0, -power + (mean.se < 2 * 10.0**power)))
    value = f"{mean.value:.{decimals}f}"
    value = value.lstrip("-") if float(value) == 0 else value
    return f"{value} ± {mean.se:.{decimals}f}" if mean.se >= 0.5 * 10**-decimals else f"{value} ± <{10**-decimals:g}"


def ratio(value: float) -> str:
    """A prune ratio in few digits: `80 %`, `99.5 %`."""
    share = 100 * value
    return f"{share:.{4 if share > 99 else 3}g} %"


def _sentence(group: Sequence[Difference], quantity: Quantity) -> str:
    first, other = group[0], other_name(group[0].against, quantity)
    kinds = (BEATS, LOSES, NO_DIFFERENCE, TOO_FEW, UNTESTABLE)
    wins, losses, close, few, uneven = (_of(group, verdict) for verdict in kinds)
    decided = len(group) - len(few) - len(uneven)
    clauses = [
        *_beyond(f"beats {other}", wins, decided, quantity),
        *_beyond(f"loses to {'it' if wins else other}", losses, decided, quantity),
    ]
    if close and not clauses:
        clauses.append(f"shows no difference from {other}: {_at(close, quantity)}")
    elif close:
        clauses.append(f"no difference is shown at the other{'s' * (len(close) > 1)}: {_at(close, quantity)}")
    if few:
        clauses.append(f"{'' if decided else f'against {other}: '}too few seeds for a verdict: {_at(few, quantity)}")
    if uneven:
        clauses.append(f"against {other}, {_UNEVEN}: {_at(uneven, quantity)}")
    opening = _OPENINGS.get(first.protocol, first.protocol)
    extra = "; ".join([_seeds(group), *_after_holm(wins + losses)])
    return f"{opening}, {first.method} {'; '.join(clauses)} ({extra})."


def _beyond(verb: str, group: Sequence[Difference], decided: int, quantity: Quantity) -> list[str]:
    if not group:
        return []
    sizes = joined([f"by {_at([one], quantity, signed=False)}" for one in group])
    return [f"{verb} {sizes}" if decided == 1 else f"{verb} at {len(group)} of {decided} prune ratios: {sizes}"]


def _at(group: Sequence[Difference], quantity: Quantity, signed: bool = True) -> str:
    """The differences and their prune ratios: `0.12 ± 0.02 nats at PR 80 %`."""
    shown = [(one.difference if signed else abs(one.difference), ratio(one.prune_ratio)) for one in group]
    return joined([f"{amount(size)} {quantity.unit} at PR {reached}" for size, reached in shown])


def _after_holm(group: Sequence[Difference]) -> list[str]:
    """The largest adjusted p of some differences, in words; nothing where none has one."""
    known = [one.p_holm for one in group if one.p_holm is not None]
    if not known:
        return []
    largest = p_is(max(known))
    return [f"{largest if len(known) == 1 else largest.replace('=', 'at most')} after Holm's correction"]


def _against_random(protocol: str, found: Sequence[Verdict]) -> str:
    shown = []
    for one in found:
        if (one.protocol, one.against) != (protocol, RANDOM) or one.too_few_pairs == one.ratios:
            continue
        decided = one.ratios - one.too_few_pairs
        lost = f", loses at {one.loses}" if one.loses else ""
        shown.append(f"{one.method} beats it at {one.beats} of {decided}{lost}")
    opening = _OPENINGS.get(protocol, protocol)
    return f"{opening}, against random, counted over the prune ratios: {'; '.join(shown)}." if shown else ""


def _best(comparison: Comparison) -> Iterator[str]:
    best, quantity = comparison.best, comparison.quantity
    if best is None or best.prune_ratio is None:
        return
    name = f"The best pruned {noun(quantity)} on validation rows ({best.protocol}, {best.method}, "
    name += f"PR {ratio(best.prune_ratio.value)})"
    for one in comparison.differences:
        same = (one.protocol, one.method, one.stage) == (best.protocol, best.method, best.stage)
        if not same or one.against not in (CONTROL, DENSE, REDUCED):
            continue
        other, size = other_name(one.against, quantity), f"{amount(abs(one.difference))} {quantity.unit}"
        signed = f"{amount(one.difference)} {quantity.unit}, above 0 where pruning is better"
        verdict = {
            BEATS: f"is better than {other} by {size}",
            LOSES: f"is worse than {other} by {size}",
            NO_DIFFERENCE: f"shows no difference from {other}: {signed}",
            TOO_FEW: f"against {other}, too few seeds for a verdict: {signed}",
            UNTESTABLE: f"against {other}, {_UNEVEN}: {signed}",
        }[one.verdict]
        tested = [one] * _is_tested(one)
        yield f"{name} {verdict} ({'; '.join([_seeds([one]), *_after_holm(tested)])})."


def _how_many(comparison: Comparison) -> str:
    tested = [one for one in comparison.differences if one.p is not None]
    number = len(comparison.differences)
    made = f"{_count(number, 'comparison')} {'was' if number == 1 else 'were'} made"
    if not tested:
        return f"{made}, none over {LEAST_PAIRS} seeds or more: no verdicts."
    beyond = sum(one.difference.beyond_error for one in tested)
    chance = by_chance(one.pairs for one in tested)
    over = "all" if len(tested) == number else str(len(tested))
    return (
        f"{made}, {over} over {LEAST_PAIRS} seeds or more. More than 2 s.e. apart: {beyond} (chance alone would "
        f"give about {chance:.1f} if nothing differed). Verdicts, which are what is left after Holm's correction at "
        f"5 % over the tests of each question (paired two-sided t-tests, n - 1 degrees of freedom): "
        f"{sum(one.survives for one in tested)}."
    )


def _is_tested(one: Difference) -> bool:
    return one.verdict not in (TOO_FEW, UNTESTABLE)


def _of(group: Iterable[Difference], verdict: str) -> list[Difference]:
    return [one for one in group if one.verdict == verdict]


def _seeds(group: Sequence[Difference]) -> str:
    least, most = min(one.pairs for one in group), max(one.pairs for one in group)
    return _count(most, "seed") if least == most else f"{least} to {most} seeds"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'s' * (number != 1)}"
