"""Paths of samples from noise to data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.fields.plane import frame, heading, label_axes, pair_of, start_colours
from analysis.plots.style import key, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trajectories_figure(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, bytes]:
    """Paths of samples from noise to data, a panel a pair of columns: png, pdf, npz."""
    shown = {name: arrays[name] for name in ("paths", "paths_clock", "columns", "field_extent")}
    paths = arrays["paths"]
    extents = np.atleast_2d(arrays["field_extent"])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(paths), squeeze=False)[0]
        for number, (axes, one) in enumerate(zip(grid, paths, strict=True)):
            draw_paths(axes, one, tuple(extents[number]))
            label_axes(axes, pair_of(arrays, number), True, True)
        figure.legend(handles=_ends(), loc="outside lower center", ncols=2, frameon=False)
        heading(figure, title, f"paths of {paths.shape[2]} samples from noise to data, coloured by where they start")

    return render(draw, shown, (4.0 * len(paths) + 0.3 if len(paths) > 1 else 5.4, 4.95 if len(paths) > 1 else 6.2))


def draw_paths(axes: Axes, paths: np.ndarray, extent: Sequence[float]) -> None:
    """Paths (K, n, 2) from noise (first) to data (last): lines coloured by where they start, ends marked."""
    from matplotlib.collections import LineCollection

    colours = start_colours(paths[0])
    lines = LineCollection(list(np.moveaxis(paths, 1, 0)), colors=colours, linewidths=0.7, alpha=0.65)
    axes.add_collection(lines)
    ends: Any = {"s": 10, "linewidths": 0.8, "zorder": 3}
    hollow: Any = {"facecolors": "white", "edgecolors": colours}
    axes.scatter(paths[0, :, 0], paths[0, :, 1], **hollow, **ends)
    axes.scatter(paths[-1, :, 0], paths[-1, :, 1], c=colours, **ends)
    frame(axes, extent)


def _ends() -> list[Any]:
    common: Any = {"linestyle": "none", "marker": "o", "markersize": 5, "markeredgewidth": 0.9}
    return [
        key("noise, z(T)", markerfacecolor="white", markeredgecolor="0.2", **common),
        key("sample, x = z(0)", markerfacecolor="0.2", markeredgecolor="white", **common),
    ]
