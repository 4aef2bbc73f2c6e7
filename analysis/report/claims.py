"""The paper's claims, one by one, judged by the numbers of a run.

Pure. A claim is judged for one method of pruning by one number: a stage, or several, against the dense flow of the
same seed, averaged over the seeds. With two seeds or more its interval is the 95 % t-interval over them; with one
seed it is 2 standard errors of the measurement (test set, estimator, samples), and what another seed would change
stays unknown. The verdict holds for this run: "cannot be told" is one of the answers.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from analysis.report.words import pruned_methods
from analysis.runs.analyses import Key, Values, number
from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, FAILED, Run, selected_by
from analysis.tables.curvature import kappa_of, nll_change, ratio
from analysis.tables.means import mean_over_seeds
from analysis.tables.numbers import Mean, mean_in, percent

Compared = tuple[int, Values, Values | None]  # a seed, what is known of its pruned flow, and of its dense flow

HOLDS, FAILS, UNKNOWN = "holds here", "does not hold here", "cannot be told"

# "Moderate" prune ratios: the published gains lie there (25 to 82 % of the published Hessian table).
MODERATE = (0.2, 0.85)
# lambda_max of one network moves by 10-15 % with the subset alone; what is smaller is no finding.
SUBSET_MARGIN = 0.15
# A percentage point of good samples: less is no collapse, however small its error.
MODES_MARGIN = 0.01

_CURVATURES = {  # what the claim calls them, and the claim in three words
    "lambda_max": ("the largest eigenvalue", "lower largest eigenvalue"),
    "trace": ("the trace", "lower trace"),
    "kappa": ("the condition number κ", "lower condition number"),
}


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, `subject` in three words, for one method: the verdict, and the numbers it rests on."""

    letter: str
    subject: str
    claim: str
    method: str
    verdict: str
    numbers: str


@dataclass(frozen=True)
class Interval:
    """A mean over the seeds and the half-width of its interval; `half` is None where nothing is known of it."""

    mean: float
    half: float | None
    seeds: int

    @property
    def low(self) -> float:
        """The lower end; the mean itself where the width is not known."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + (self.half or 0.0)

    def over(self) -> str:
        """What the interval is, in words."""
        if self.seeds > 1:
            return f"95 % interval over {self.seeds} seeds"
        return "one seed" if self.half is None else "± 2 s.e. of the measurement, one seed"


def claims(run: Run, hessian: Mapping[Key, Values] | None, modes: Mapping[Key, Values] | None) -> list[Claim]:
    """Every claim of the paper for every method of the run; nothing for a run that has no pruned stage."""
    methods = pruned_methods(run)
    flatness = [flatter(hessian, method, quantity) for method in methods for quantity in _CURVATURES]
    return [*(lower_nll(run, one) for one in methods), *flatness, *(modes_kept(modes, one) for one in methods)]


def lower_nll(run: Run, method: str) -> Claim:
    """(a) Up to some ratio, the pruned flow has the lower test NLL.

    The ratio is chosen by the validation NLL (mean over the seeds), and that one stage is judged on the test set:
    the best of many test NLLs would be low by luck alone.
    """
    text = "Pruned flows, up to some ratio, generalise better (lower test NLL) than the dense flow"
    claim = partial(Claim, "a", "lower NLL", text, method)
    dense = run.dense
    pruned = [
        stage
        for stage in run.stages
        if stage.series == method and stage.done and stage.seed in dense and stage.nll_test is not None
    ]
    if not pruned:
        return claim(UNKNOWN, "no pruned stage has a test NLL beside its dense flow's")
    stages = grouped(pruned, lambda stage: stage.stage).values()
    chosen = min(stages, key=lambda group: statistics.fmean(map(selected_by, group)))
    changes = [change for stage in chosen if (change := nll_change(stage, dense[stage.seed])) is not None]
    if not changes:
        return claim(UNKNOWN, "the dense flow has no test NLL")
    interval = _interval([change.value for change in changes], changes[0].se)
    verdict = _verdict(interval, below=0.0, above=0.0) if interval.half is not None else UNKNOWN
    ratio_shown = percent(statistics.fmean(stage.prune_ratio or 0.0 for stage in chosen), 0)
    by_validation = all(stage.nll_val is not None for stage in pruned)
    how = "lowest validation NLL" if by_validation else "lowest test NLL: a choice that flatters it"
    numbers = (
        f"best pruned stage ({how}): {ratio_shown} pruned, test NLL {interval.mean:+.3f} nats against the dense flow "
        f"({_ends(interval, '+.3f')}; {interval.over()})"
    )
    return claim(verdict, numbers)


def flatter(stages: Mapping[Key, Values] | None, method: str, quantity: str) -> Claim:
    """(b) At moderate ratios the curvature falls: the geometric mean of its ratios to the dense flow's."""
    name, subject = _CURVATURES[quantity]
    text = f"Pruning flattens the loss: {name} falls at moderate ratios"
    claim = partial(Claim, "b", subject, text, method)
    pairs, source = _moderate(stages, method), quantity
    if quantity == "kappa":
        dense = [values for (name, _, _), values in (stages or {}).items() if name == DENSE]
        source = kappa_of([*dense, *(values for _, values, _ in pairs)])
    by_seed = _changes(pairs, lambda values, dense: _log_ratio(values, dense, source))
    if not by_seed:
        return claim(UNKNOWN, _absent(stages, "Hessian"))
    interval = _seeds_interval(by_seed)
    margin = math.log1p(SUBSET_MARGIN)
    verdict = _verdict(interval, below=-margin, above=margin)
    ends = f"{math.exp(interval.low):.2f} to {math.exp(interval.high):.2f}"
    numbers = (
        f"{math.exp(interval.mean):.2f} × the dense flow's at {_span(pairs)} pruned "
        f"({'no error of its own' if interval.half is None else ends}; {interval.over()})"
    )
    if verdict == UNKNOWN and abs(interval.mean) <= margin:
        numbers += "; changes below 15 % may be the subset's alone"
    if source == "kappa_lanczos":
        numbers += "; κ by 100 Lanczos steps on both sides"
    return claim(verdict, numbers)


def modes_kept(stages: Mapping[Key, Values] | None, method: str) -> Claim:
    """(c) Pruning keeps modes from collapsing: more good samples at moderate ratios, no mode lost."""
    text = "Pruning keeps modes from collapsing: more good samples at moderate ratios, no mode lost"
    claim = partial(Claim, "c", "modes kept", text, method)
    good = any(number(values, "good_within_3") is not None for values in (stages or {}).values())
    name, shown = ("good_within_3", "good samples (within 3 s.d.)") if good else ("coverage", "coverage of the data")
    pairs = _moderate(stages, method)
    by_seed = _changes(pairs, lambda values, dense: _difference(values, dense, name))
    if not by_seed:
        return claim(UNKNOWN, _absent(stages, "mode quality"))
    interval = _seeds_interval(by_seed)
    verdict = _verdict(Interval(-interval.mean, interval.half, interval.seeds), below=-MODES_MARGIN, above=MODES_MARGIN)
    total = next((value for one in (stages or {}).values() if (value := number(one, "modes_total")) is not None), None)
    captured, lost, gained = _captured(pairs, total)
    if lost:
        verdict = FAILS if verdict != HOLDS else UNKNOWN
    elif gained and verdict == UNKNOWN:
        verdict = HOLDS
    numbers = (
        f"{shown}: {100 * interval.mean:+.1f} percentage points against the dense flow "
        f"at {_span(pairs)} pruned ({_ends(interval, '+.1f', 100)}; {interval.over()}){captured}"
    )
    if verdict == UNKNOWN and abs(interval.mean) < MODES_MARGIN and not lost:
        numbers += "; less than a point either way: no collapse that pruning could have kept away"
    return claim(verdict, numbers)


def _interval(values: Sequence[float], own_se: float | None) -> Interval:
    mean = mean_over_seeds(values)
    if mean.se is None:
        return Interval(mean.value, None if own_se is None else 2 * own_se, 1)
    from scipy.special import stdtrit  # late: the words are also wanted where no interval is

    return Interval(mean.value, float(stdtrit(len(values) - 1, 0.975)) * mean.se, len(values))


def _seeds_interval(by_seed: Mapping[int, Sequence[Mean]]) -> Interval:
    # The stages of one seed share its dense flow, so their errors do not average out: the largest counts.
    own = [mean.se for means in by_seed.values() for mean in means if mean.se is not None]
    means_by_seed = [statistics.fmean(mean.value for mean in means) for means in by_seed.values()]
    return _interval(means_by_seed, max(own, default=None))


def _verdict(interval: Interval, below: float, above: float) -> str:
    """Whether a change downwards holds: the interval leaves zero, and the mean goes beyond the margin."""
    if interval.high < 0 and interval.mean < below:
        return HOLDS
    if interval.low > 0 and interval.mean > above:
        return FAILS
    return UNKNOWN


def _moderate(stages: Mapping[Key, Values] | None, method: str) -> list[Compared]:
    return [
        (seed, values, (stages or {}).get((DENSE, seed, 0)))
        for (name, seed, _), values in (stages or {}).items()
        if name == method and values.get("status") != FAILED
        if MODERATE[0] <= (number(values, "prune_ratio") or 0.0) <= MODERATE[1]
    ]


def _changes(
    pairs: Sequence[Compared], compare: Callable[[Values, Values | None], Mean | None]
) -> dict[int, list[Mean]]:
    known = [(seed, change) for seed, values, dense in pairs if (change := compare(values, dense)) is not None]
    return {seed: [change for _, change in several] for seed, several in grouped(known, lambda one: one[0]).items()}


def _log_ratio(values: Values, dense: Values | None, source: str) -> Mean | None:
    found = ratio(values, dense, source)
    if found is None or found.value <= 0:
        return None
    return Mean(math.log(found.value), None if found.se is None else found.se / found.value)


def _difference(values: Values, dense: Values | None, name: str) -> Mean | None:
    own, other = mean_in(values, name), mean_in(dense, name)
    return None if own is None or other is None else own - other


def _captured(pairs: Sequence[Compared], total: float | None) -> tuple[str, bool, bool]:
    # The fewest modes of any seed, pruned and dense; whether a pruned flow lost one that its dense flow has, or gained.
    known = [
        (own, other)
        for _, values, dense in pairs
        if (own := number(values, "modes_captured")) is not None
        and (other := number(dense, "modes_captured")) is not None
    ]
    if not known or total is None:
        return "", False, False
    fewest, of_dense = map(min, zip(*known, strict=True))
    words = f"; modes captured: at least {fewest:.0f} of {total:.0f}, dense {of_dense:.0f}"
    return words, any(own < other for own, other in known), any(own > other for own, other in known)


def _span(pairs: Sequence[Compared]) -> str:
    ratios = [number(values, "prune_ratio") or 0.0 for _, values, _ in pairs]
    low, high = percent(min(ratios), 0), percent(max(ratios), 0)
    return low if low == high else f"{low.removesuffix(' %')} to {high}"


def _absent(stages: Mapping[Key, Values] | None, what: str) -> str:
    if stages is None:
        return f"no {what} of this run is known"
    return f"no {what} of a stage pruned by {100 * MODERATE[0]:.0f} to {100 * MODERATE[1]:.0f} %, and of its dense flow"


def _ends(interval: Interval, form: str, scale: float = 1.0) -> str:
    if interval.half is None:
        return "no error known"
    return f"{scale * interval.low:{form}} to {scale * interval.high:{form}}"
