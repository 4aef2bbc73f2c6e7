"""Where to put the ticks of a params axis, and how to write them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

# Coarse first: the first set that gives enough ticks is taken.
_MANTISSAS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
_RATIOS = (
    (0, 0.9, 0.99, 0.999, 0.9999),
    (0, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9999),
    *(tuple(percent / 100 for percent in range(0, 100, step)) for step in (10, 5, 2, 1)),
)


def count_label(count: float) -> str:
    """A count in few characters: `500`, `1.5k`, `2M`.

    Example:
        >>> count_label(500), count_label(1500), count_label(2e6)
        ('500', '1.5k', '2M')
    """
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{name}"
    return f"{count:g}"


def count_ticks(low: float, high: float) -> list[float]:
    """Round counts between `low` and `high`, rising, for a log axis: from 3 to about 10 of them.

    Raises:
        ValueError: the interval is empty, or not positive.

    Example:
        >>> count_ticks(80, 9000)
        [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
    """
    if not 0 < low < high:
        raise ValueError(f"a log axis needs 0 < low < high, not {low:g} and {high:g}")
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in _MANTISSAS:
        ticks = _within(low, high, (m * 10.0**power for power in powers for m in mantissas))
        if len(ticks) >= 4:
            return _thin(ticks, low, high, at=lambda tick: tick)
    # Less than a factor of two or so: equal steps, as on a linear axis.
    coarsest = math.floor(math.log10(high - low))
    for step in (m * 10.0**power for power in (coarsest, coarsest - 1) for m in (5, 2, 1)):
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) >= 3:
            return _thin(ticks, low, high, at=lambda tick: tick)
    return [low, high]


def ratio_ticks(dense: float, low: float, high: float) -> list[float]:
    """Round prune ratios, rising, whose params, dense * (1 - ratio), lie between `low` and `high`."""
    ticks: list[float] = []
    for ratios in _RATIOS:
        ticks = [ratio for ratio in ratios if low <= dense * (1 - ratio) <= high]
        if len(ticks) >= 3:
            break
    return _thin(ticks, low, high, at=lambda ratio: dense * (1 - ratio))


def _within(low: float, high: float, ticks: Iterable[float]) -> list[float]:
    return [tick for tick in ticks if low <= tick <= high]


def _thin(ticks: Sequence[float], low: float, high: float, at: Callable[[float], float]) -> list[float]:
    # A label needs about a twelfth of the axis; of two that are closer, the first stays.
    kept: list[float] = []
    for tick in ticks:
        if not kept or abs(math.log(at(tick) / at(kept[-1]))) >= math.log(high / low) / 12:
            kept.append(tick)
    return kept
