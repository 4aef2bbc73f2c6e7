"""What charts share: an axis of prune ratios, of counts, of values far apart; lines with errors; the dense flow.

An axis of prune ratios is logarithmic in the share of the params that is kept, so that 90, 95 and 98 % stand apart;
pruned more is further right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.looks import DENSE_LOOK, Look
from analysis.plots.ticks import count_label, count_ticks, decades, ratio_ticks, spaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LEAST_KEPT = 1e-4
FAR = 8.0  # from stage to stage: an axis that has to show so many times the smallest is logarithmic
_MOST_TICKS = 7


def kept(prune_ratio: np.ndarray) -> np.ndarray:
    """Where prune ratios (N,) stand on their axis: the shares kept (N,), at least 0.0001 for the logarithm's sake."""
    return np.maximum(1 - prune_ratio, LEAST_KEPT)


def log_axis(axis: Axis, ticks: Sequence[float], label: Callable[[float], str] = count_label) -> None:
    """A logarithmic axis with these ticks and no others."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    place_ticks(axis, ticks, label)


def place_ticks(axis: Axis, ticks: Sequence[float], label: Callable[[float], str] = count_label) -> None:
    """These ticks and no others, as text."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: label(value)))
    axis.set_minor_locator(NullLocator())


def params_axis(axes: Axes, least: float, most: float, margin: float, room: float = 0.0) -> tuple[float, float]:
    """A logarithmic axis of params, `margin` times wider at both ends; ticks closer than `room` of it are left out."""
    low, high = least / margin, most * margin
    log_axis(axes.xaxis, spaced(count_ticks(low, high), room * math.log(high / low)))
    axes.set(xlim=(low, high), xlabel="params")
    return low, high


def ratio_axis(axes: Axes, prune_ratio: np.ndarray, room: float | None = None) -> None:
    """The axis of prune ratios (N,), NaN among them or not.

    Ticks stand at round ratios; where `room` says what share of the axis a label takes, at the ratios themselves,
    the most pruned first.
    """
    shares = np.unique(kept(np.round(prune_ratio[np.isfinite(prune_ratio)], 3))) if prune_ratio.size else np.ones(1)
    margin = max(1.06 if room is None else 1.12, (shares.max() / shares.min()) ** (0.05 if room is None else 0.09))
    low, high = float(shares.min() / margin), float(shares.max() * margin)
    if room is None:
        ticks = [1 - ratio for ratio in ratio_ticks(1.0, low, high)]
    else:
        ticks = spaced(shares.tolist(), room * math.log(high / low))
    log_axis(axes.xaxis, ticks, lambda share: f"{100 * (1 - share):.4g} %")
    axes.set(xlim=(high, low), xlabel="prune ratio (axis: log of the share kept)")


def spread_axis(axes: Axes, stages: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    """A logarithmic vertical axis where the stages differ too much for a linear one.

    Where something reaches zero or below, it is linear up to half of the smallest stage's values, or up to what the
    errors can tell.

    `stages` (N,) says which of the `values` (N,) belong together; `errors` (N,) are NaN where not known.
    """
    largest = np.array([np.abs(values[stages == stage]).max() for stage in np.unique(stages)])
    if not largest.size or largest.max() <= FAR * largest.min():
        return
    low, high = (float(end) for end in axes.dataLim.intervaly)
    linear = max(largest.min() / 2, float(np.nanmedian(errors)) if np.isfinite(errors).any() else 0.0)
    linear = low if low > 0 else max(linear, 1e-3 * largest.max())
    if low > 0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
    else:
        axes.set_yscale("symlog", linthresh=linear, linscale=0.5)
        axes.set_ylim(min(1.3 * low, -0.2 * linear), max(1.3 * high, 0.2 * linear))
    bottom, top = axes.get_ylim()
    ticks = decades(linear, max(top, -bottom), (1, 2, 5))
    if len(ticks) > _MOST_TICKS:
        ticks = decades(linear, max(top, -bottom), (1,))
    shown = [tick for tick in (*(-tick for tick in ticks), 0.0, *ticks) if bottom <= tick <= top]
    place_ticks(axes.yaxis, shown, lambda value: "-" * bool(value < 0) + count_label(abs(value)))


def draw_means(axes: Axes, x: np.ndarray, means: np.ndarray, errors: np.ndarray, look: Look, depth: float = 3) -> None:
    """A line through means with bars for their standard errors, from left to right; all of shape (N,), NaN left out."""
    order = np.argsort(x, kind="stable")
    order = order[np.isfinite(means[order])]
    barred = order[np.isfinite(errors[order])]
    bars: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 1.1, "capsize": 2.5}
    axes.errorbar(x[barred], means[barred], yerr=errors[barred], zorder=depth - 0.5, **bars)
    axes.plot(x[order], means[order], linewidth=1.3, zorder=depth, **look.style)


def draw_level(axes: Axes, mean: float, error: float) -> None:
    """The dense flow on an axis of prune ratios: a star, a line across, and a band as wide as its standard error."""
    axes.axhline(mean, color=DENSE_LOOK.colour, linewidth=0.9, linestyle="--", zorder=1.5)
    if math.isfinite(error):
        axes.axhspan(mean - error, mean + error, color=DENSE_LOOK.colour, alpha=0.08, linewidth=0, zorder=1)
    axes.plot([1.0], [mean], zorder=4, **DENSE_LOOK.style)
