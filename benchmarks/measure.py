"""What a work gives back: repeats of ours and of its peer, their ratios, and whether a goal is met. Timing in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

PEER_OVER_OURS: Literal["peer / ours"] = "peer / ours"  # times as fast: the larger, the better
OURS_OVER_PEER: Literal["ours / peer"] = "ours / peer"  # of a limit: the smaller, the better
RatioKind = Literal["peer / ours", "ours / peer"]


@dataclass(frozen=True)
class Goal:
    """What the median is to reach: of the ratio, or of ours where there is no peer."""

    bound: Literal["at least", "at most"]
    value: float

    def met(self, value: float) -> bool:
        """Whether `value` is on the right side; NaN never is."""
        return value >= self.value if self.bound == "at least" else value <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.bound == 'at least' else '≤'} {self.value:g}"


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some repeats; NaN of none."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of `values`, which may come in any order."""
        if not values:
            return cls(math.nan, math.nan, math.nan)
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measurement:
    """One row of the table.

    Attributes:
        name: of the work.
        case: which of its settings.
        ours, peer: every repeat, in `unit`; no peer: an absolute figure.
        note: what a reader must know to judge it.
        unit: s, MiB or nats.
        ratio: which way round the ratios are.
        goal: of the median ratio, or of ours without a peer.
        failures: repeats that did not reach what they had to: any makes the goal missed.
        extra: further figures, for JSON.
    """

    name: str
    case: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    note: str = ""
    unit: str = "s"
    ratio: RatioKind = PEER_OVER_OURS
    goal: Goal | None = None
    failures: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Repeat by repeat."""
        above, below = (self.peer, self.ours) if self.ratio == PEER_OVER_OURS else (self.ours, self.peer)
        return ratios(above, below)

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one, or where nothing was measured that it is about."""
        if self.goal is None:
            return None
        values = self.ratios or ([] if self.peer else self.ours)
        return self.failures == 0 and bool(values) and self.goal.met(Spread.of(values).median)

    def document(self) -> dict[str, Any]:
        """For JSON: all fields, every raw repeat, and what follows from them."""
        found = asdict(self) | {"ratios": self.ratios, "ratio": self.ratio if self.peer else None, "met": self.met}
        found["goal"] = None if self.goal is None else asdict(self.goal)
        for name, values in (("ours", self.ours), ("peer", self.peer), ("ratio", self.ratios)):
            found[f"{name}_spread"] = asdict(Spread.of(values)) if values else None
        return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """above / below, pair by pair; a single one on either side goes with every one of the other.

    Raises:
        ValueError: several on both sides, but not as many.
    """
    if len(above) == 1:
        above = list(above) * len(below)
    if len(below) == 1:
        below = list(below) * len(above)
    if above and below and len(above) != len(below):
        raise ValueError(f"{len(above)} repeats against {len(below)}: they were not taken in turns")
    return [a / b for a, b in zip(above, below, strict=False)]


def seconds(work: Callable[[], object]) -> float:
    """What one call takes on the wall clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(
    works: Sequence[Callable[[], object]],
    repeats: int,
    on_round: Callable[[float], object] | None = None,
    warm: bool = False,
) -> list[list[float]]:
    """Seconds of every work, repeat by repeat: round by round, each round in the other order than the last.

    A first round warms up and is dropped, unless they are warm.

    Args:
        works: called without arguments.
        repeats: rounds that count.
        on_round: told the share of the rounds that is done.
        warm: all of `works` have run before.
    """
    found: list[list[float]] = [[] for _ in works]
    for number in range(1 if warm else 0, repeats + 1):
        order = range(len(works)) if number % 2 else reversed(range(len(works)))
        for index in order:
            took = seconds(works[index])
            if number:
                found[index].append(took)
        if on_round:
            on_round((number + 1) / (repeats + 1))
    return found
