"""A density as a picture, and points on one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseflows.plot.axes import frame
from sparseflows.plot.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


DENSITY_MAP = "magma"
DATA_COLOUR, FLOW_COLOUR = COLOURS[1], COLOURS[0]


def draw_density(axes: Axes, density: np.ndarray, extent: Sequence[float], top: float, equal: bool = True) -> Any:
    """One panel, of a density (cells, cells) over `extent`, blank where it is NaN; returns the image."""
    from matplotlib.colors import PowerNorm

    image = axes.imshow(
        density,
        origin="lower",
        extent=(extent[0], extent[1], extent[2], extent[3]),
        cmap=DENSITY_MAP,
        norm=PowerNorm(0.5, 0, top),  # linear, a wide mode is black beside a narrow one
        interpolation="bilinear",
        rasterized=True,
    )
    frame(axes, equal=equal)
    return image


def density_bar(figure: Figure | SubFigure, image: Any, axes: Any, shown: Sequence[np.ndarray], top: float) -> None:
    """The scale of the densities, beside `axes`; pointed where one (cells, cells) that is `shown` exceeds it."""
    beyond = any(float(one.max()) > 1.001 * top for one in shown)
    bar = figure.colorbar(image, ax=axes, pad=0.012, shrink=0.95, aspect=18, extend="max" if beyond else "neither")
    bar.set_label("density p(x)\n(square-root scale)", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.6)


def draw_points(
    axes: Axes,
    points: np.ndarray,
    extent: Sequence[float],
    colour: str,
    size: float = 1.6,
    equal: bool = True,
    label: str = "",
) -> None:
    """A scatter of points (n, 2), with a `label` for a legend."""
    look: Any = {"s": size, "c": colour, "alpha": 0.45, "linewidths": 0, "rasterized": True}
    axes.scatter(points[:, 0], points[:, 1], label=label or None, **look)
    frame(axes, extent, equal)
