"""Where to put the ticks of a params axis, and how to write them. Pure."""

import math
from collections.abc import Callable, Sequence

# Coarse first: the first set that gives enough ticks is taken.
_MANTISSAS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
_LABELS = 12  # fit an axis
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
    for mantissas in _MANTISSAS:
        ticks = decades(low, high, mantissas)
        if len(ticks) >= 4:
            return spaced(ticks, math.log(high / low) / _LABELS)
    # Less than a factor of two or so: equal steps, as on a linear axis.
    coarsest = math.floor(math.log10(high - low))
    for step in (m * 10.0**power for power in (coarsest, coarsest - 1) for m in (5, 2, 1)):
        ticks = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
        if len(ticks) >= 3:
            return spaced(ticks, math.log(high / low) / _LABELS)
    return [low, high]


def ratio_ticks(dense: float, low: float, high: float) -> list[float]:
    """Round prune ratios, rising, whose params, dense * (1 - ratio), lie between `low` and `high`."""
    ticks: list[float] = []
    for ratios in _RATIOS:
        ticks = [ratio for ratio in ratios if low <= dense * (1 - ratio) <= high]
        if len(ticks) >= 3:
            break
    return spaced(ticks, math.log(high / low) / _LABELS, at=lambda ratio: dense * (1 - ratio))


def decades(low: float, high: float, mantissas: Sequence[float]) -> list[float]:
    """The numbers from `low` to `high`, both positive, that are one of the rising mantissas times a power of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [tick for power in powers for m in mantissas if low <= (tick := m * 10.0**power) <= high]


def spaced(ticks: Sequence[float], apart: float, at: Callable[[float], float] = float) -> list[float]:
    """Ticks without those that stand closer to the last one that stays than `apart`, in the logarithm of `at`."""
    found: list[float] = []
    for tick in ticks:
        if not found or abs(math.log(at(tick) / at(found[-1]))) >= apart:
            found.append(tick)
    return found
