"""Paths of points through a flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseflows.plot.axes import frame
from sparseflows.plot.style import key

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_paths(
    axes: Axes,
    paths: np.ndarray,
    colours: np.ndarray,
    extent: Sequence[float],
    size: float = 10,
    equal: bool = True,
) -> None:
    """Paths (K, n, 2) in colours (n, 3 or 4), their first points hollow, their last ones full, of a marker's `size`."""
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(np.moveaxis(paths, 1, 0)), colors=colours, linewidths=0.7, alpha=0.65)
    axes.add_collection(lines)
    ends: Any = {"s": size, "linewidths": 0.8, "zorder": 3}
    hollow: Any = {"facecolors": "white", "edgecolors": colours}
    axes.scatter(paths[0, :, 0], paths[0, :, 1], **hollow, **ends)
    axes.scatter(paths[-1, :, 0], paths[-1, :, 1], c=colours, **ends)
    frame(axes, extent, equal)


def path_ends() -> list[Any]:
    """Entries of a legend for the two ends of a path."""
    common: Any = {"linestyle": "none", "marker": "o", "markersize": 5, "markeredgewidth": 0.9}
    return [
        key("noise, z(T)", markerfacecolor="white", markeredgecolor="0.2", **common),
        key("sample, x = z(0)", markerfacecolor="0.2", markeredgecolor="white", **common),
    ]
