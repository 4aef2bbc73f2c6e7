"""Axes to draw on: a user's, or new ones of pyplot's; and the pieces that several pictures draw there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparseflows.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 5.2, 4.2  # inches of a figure with one panel
PANEL = 1.9  # inches of one of several
BINS = 40


def canvas(ax: Any) -> tuple[Axes, bool]:
    """The axes `ax`, checked already, or those of a new figure of pyplot's where it is None, and whether they are new.

    A figure that pyplot does not know would not appear when the user says `plt.show()`; nothing else of its is touched.
    """
    if ax is None:
        from matplotlib import pyplot

        return pyplot.figure(figsize=SIZE, layout="constrained").add_subplot(), True
    axes: Axes = np.asarray(ax, dtype=object).item()
    return axes, False


def grid_of_axes(ax: Any, side: int) -> np.ndarray:
    """Axes (side, side) to draw pairs on: those of `ax`, checked already, or of a new figure of pyplot's."""
    if ax is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(PANEL * side, PANEL * side), layout="constrained")
        made: np.ndarray = figure.subplots(side, side, squeeze=False, sharex="col")
        return made
    return np.asarray(ax, dtype=object)


def check_axes(ax: Any, side: int = 1) -> None:
    """Check, before any work is done, that `ax` is None or axes to draw on: one, or (side, side) of them.

    Raises:
        InputError: it is not.
    """
    if ax is None:
        return
    from matplotlib.axes import Axes

    given = np.asarray(ax, dtype=object)
    if side > 1 and given.shape != (side, side):
        raise InputError(
            f"ax has the shape {given.shape}; pairs of {side} columns take axes ({side}, {side}), as "
            f"plt.subplots({side}, {side}) makes them; choose two with columns= to draw on one"
        )
    if (side == 1 and given.size != 1) or not all(isinstance(one, Axes) for one in given.flat):
        raise InputError(f"ax is a {type(ax).__name__}; give matplotlib's Axes for this picture, or leave it out")


def draw_histogram(axes: Axes, values: np.ndarray, span: tuple[float, float], colour: str, label: str) -> None:
    """Values (N,) counted over a window, as a density of all of them, those outside included."""
    low, high = span
    weights = np.full(len(values), BINS / ((high - low) * len(values)))
    look: Any = {"histtype": "stepfilled", "alpha": 0.3, "color": colour, "edgecolor": colour, "label": label}
    axes.hist(values, bins=BINS, range=(low, high), weights=weights, **look)


def name_axes(axes: Axes, x: str, y: str) -> None:
    """Names of what stands along both axes, as they are: a name may hold a dollar sign."""
    for label, name in ((axes.xaxis.label, x), (axes.yaxis.label, y)):
        label.set(text=name, fontsize=9, parse_math=False)


def tell_apart(axes: Axes, several: bool) -> None:
    """A small legend, where there are several things to tell apart."""
    if several:
        legend = axes.legend(fontsize=8, markerscale=2.5, handlelength=1.2, loc="best")
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "get_offsets"):  # of points, which are faint one by one
                handle.set_alpha(1.0)
