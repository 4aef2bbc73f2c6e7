"""The front of NLL against params: which pruned stages a table shows, chosen by the validation rows alone. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from analysis.runs.groups import grouped
from analysis.runs.records import DENSE, Stage
from analysis.tables.means import average
from analysis.tables.numbers import Mean, mean_in

_LEAST_SAVED = 0.02  # two methods at one prune ratio differ by a few params


@dataclass(frozen=True)
class Point:
    """One stage of one method, averaged over the seeds that are done. Nats; params and ratio are means too.

    `label` tells it from the others of its run; `members` are its networks by seed, rising.
    """

    method: str
    label: str
    stage: int
    params: float
    prune_ratio: float
    nll_val: float | None
    nll_test: Mean
    members: dict[int, Stage]


def points_of(stages: Iterable[Stage]) -> list[Point]:
    """The stages of one run, one data set and one objective, that have a test NLL; in the order of the file.

    The standard error is over the seeds, or over the test set where the stage has one seed.
    """
    known = [stage for stage in stages if stage.done and stage.nll_test is not None and stage.params is not None]
    groups = grouped(known, lambda stage: (stage.method, stage.protocol or "", stage.stage))
    protocols = {method: {p for m, p, _ in groups if m == method} for method, _, _ in groups}
    return [
        _point(method, f"{method} ({protocol or 'no protocol'})" if len(protocols[method]) > 1 else method, members)
        for (method, protocol, _), members in groups.items()
    ]


def pruned_of(points: Sequence[Point]) -> list[Point]:
    """The pruned stages that may be chosen: with a validation NLL, and done for as many seeds as any of them.

    Means over fewer seeds are left out: a stage would be chosen for the seeds it failed on.
    """
    pruned = [point for point in points if point.method != DENSE and point.nll_val is not None]
    most = max((len(point.members) for point in pruned), default=0)
    return [point for point in pruned if len(point.members) == most]


def best_validated(points: Iterable[Point]) -> Point | None:
    """The lowest mean validation NLL; of equals, the fewest params."""
    known = [point for point in points if point.nll_val is not None]
    return min(known, key=lambda point: (_val(point), point.params), default=None)


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in params and validation NLL at once, params rising, so validation NLL falling."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.params, _val(point))):
        if not front or _val(point) < _val(front[-1]):
            front.append(point)
    return front


def thinned(front: Sequence[Point], at_most: int = 4) -> list[Point]:
    """At most so many points of a front, params falling, as far apart in log params as can be.

    A point that saves less than 2 % of the params of a better one is left out. Both ends of what remains stay:
    the one of most params is the best on the validation rows.
    """
    kept: list[Point] = []
    for point in reversed(front):
        if not kept or point.params <= (1 - _LEAST_SAVED) * kept[-1].params:
            kept.append(point)
    rising = kept[::-1]
    if len(rising) > at_most:
        rising = max(([rising[0], *some, rising[-1]] for some in combinations(rising[1:-1], at_most - 2)), key=_gaps)
    return rising[::-1]


def _gaps(front: Sequence[Point]) -> list[float]:
    # Compared as lists: the smallest gap first, then the next smallest.
    return sorted(b - a for a, b in pairwise(math.log(point.params) for point in front))


def _val(point: Point) -> float:
    return math.inf if point.nll_val is None else point.nll_val


def _point(method: str, label: str, stages: Sequence[Stage]) -> Point:
    nll_test = average((mean_in(vars(stage), "nll_test") for stage in stages), over_seeds=False)
    assert nll_test is not None  # only stages that have one come here
    validated = [stage.nll_val for stage in stages if stage.nll_val is not None]
    return Point(
        method=method,
        label=label,
        stage=stages[0].stage,
        params=statistics.fmean(stage.params or 0 for stage in stages),
        prune_ratio=statistics.fmean(stage.prune_ratio or 0.0 for stage in stages),
        nll_val=statistics.fmean(validated) if len(validated) == len(stages) else None,
        nll_test=nll_test,
        members={stage.seed: stage for stage in sorted(stages, key=lambda stage: stage.seed)},
    )
