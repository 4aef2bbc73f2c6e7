"""The flow's density beside the true one (two columns); samples beside data in pairs of columns (more)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.fields.plane import chosen, heading, label_axes, labels_of
from analysis.plots.style import render
from sparseflows.plot.densities import DATA_COLOUR, FLOW_COLOUR, density_bar, draw_density, draw_points

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec

BINS = 40
_SMALL: Mapping[str, Any] = {
    "fontsize": 7.5,
    "color": "0.35",
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
}


def density_figure(arrays: Mapping[str, np.ndarray], title: str, mass: float) -> dict[str, bytes]:
    """Two columns: the true density (or the test rows, counted) and the flow's, on one scale: png, pdf, npz.

    The panel's title tells the `mass` of the flow's density within the window.
    """
    shown = chosen(arrays, ("density", "truth", "truth_is_known", "density_extent"))
    extent, top = arrays["density_extent"].tolist(), density_limit(arrays)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        draw_density(left, arrays["truth"], extent, top)
        image = draw_density(right, arrays["density"], extent, top)
        left.set_title(truth_title(arrays), fontsize=10)
        right.set_title(f"the flow's density (mass in the window {mass:.3f})", fontsize=10)
        label_axes(left, labels_of(arrays, 0), True, True)
        label_axes(right, labels_of(arrays, 0), False, True)
        density_bar(figure, image, [left, right], [arrays["density"]], top)
        heading(figure, title)

    return render(draw, shown, (8.6, 4.5))


def truth_title(arrays: Mapping[str, np.ndarray]) -> str:
    """What the true side of the figure shows."""
    return "the true density" if bool(arrays["truth_is_known"]) else "data: the test rows, counted in cells"


def density_limit(arrays: Mapping[str, np.ndarray]) -> float:
    """Top of the scale: the highest true density (or count) of the window."""
    return float(arrays["truth"].max()) or 1.0


def pairs_figure(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, bytes]:
    """More than two columns: data beside samples in every pair, with the columns' own distributions: png, pdf, npz."""
    shown = chosen(arrays, ("rows", "samples", "columns", "rows_extent"))
    pairs = len(arrays["columns"])

    def draw(figure: Figure) -> None:
        outer = figure.add_gridspec(pairs, 1)
        for number in range(pairs):
            _pair(figure, outer[number], arrays, number)
        heading(figure, title)

    return render(draw, shown, (10.4, 2.75 * pairs + 0.5))


def _pair(figure: Figure, place: SubplotSpec, arrays: Mapping[str, np.ndarray], number: int) -> None:
    import pandas as pd
    import seaborn

    panels: Any = place.subgridspec(1, 4, width_ratios=[1, 1, 0.95, 0.95]).subplots()
    data, flow, first, second = panels
    extent = arrays["rows_extent"][number].tolist()
    labels = labels_of(arrays, number)
    kinds = (
        ("data", data, arrays["rows"][number], DATA_COLOUR),
        ("flow", flow, arrays["samples"][number], FLOW_COLOUR),
    )
    for name, axes, points, colour in kinds:
        draw_points(axes, points, extent, colour, 2.5)
        label_axes(axes, labels, name == "data", True)
        axes.set_title(f"{name}: {len(points):,} {'rows' if name == 'data' else 'samples'}", fontsize=9)
        x, y = points.T
        outside = 1 - np.mean((x >= extent[0]) & (x <= extent[1]) & (y >= extent[2]) & (y <= extent[3]))
        if outside:
            axes.text(0.97, 0.03, f"{100 * outside:.2g} % outside", transform=axes.transAxes, ha="right", **_SMALL)
    tidy = [pd.DataFrame({"x": p[:, 0], "y": p[:, 1], "of": name, "share": 1 / len(p)}) for name, _, p, _ in kinds]
    both = pd.concat(tidy, ignore_index=True)
    look: Any = {"palette": [DATA_COLOUR, FLOW_COLOUR], "element": "step", "alpha": 0.3, "bins": BINS}
    for side, (axes, low, high) in enumerate(((first, *extent[:2]), (second, *extent[2:]))):
        # Weighted by hand: seaborn's own density is one of the window's points alone, ours of all.
        weights = both["share"] * BINS / (high - low)
        bounds: Any = {"binrange": (low, high), "weights": weights, "legend": side == 0}
        seaborn.histplot(both, x="xy"[side], hue="of", ax=axes, **bounds, **look)
        axes.set_xlabel(f"{labels[side]} (standardised)", fontsize=8.5)
        axes.set_ylabel("density", fontsize=8.5)
        axes.tick_params(labelsize=8, length=2.5)
        axes.set_xlim(low, high)
        axes.set_box_aspect(1)
    seaborn.move_legend(first, "best", fontsize=8, frameon=False, handlelength=1.2, title=None)
