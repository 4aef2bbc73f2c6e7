"""Spectral densities of Hessians, a panel a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.style import render
from sparseflows.plot.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = (3.2, 2.2)
COLUMNS = 3
FLOOR = 1e-7  # of the highest density: what is below is the tail of a Gaussian, not of the spectrum


def spectrum_figure(
    labels: Sequence[str], stages: Sequence[Mapping[str, np.ndarray]], title: str = ""
) -> dict[str, bytes]:
    """Spectral density of every stage on common axes, logarithmic in density: `png`, `pdf`, `npz`.

    Each stage has arrays `grid`, `density`, and `eigenvalues`, the whole spectrum where it is known (else empty).
    """
    columns = min(COLUMNS, len(stages))
    rows = math.ceil(len(stages) / columns)
    top = max(float(stage["density"].max()) for stage in stages)
    arrays = {"labels": np.array(labels, dtype=str)}
    for number, stage in enumerate(stages):
        arrays |= {f"{name}_{number}": stage[name] for name in ("grid", "density", "eigenvalues")}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        for axes, label, stage in zip(panels, labels, stages, strict=False):
            _draw(axes, label, stage, FLOOR * top)
        panels[0].set_yscale("log")  # the axes are shared: of all panels
        panels[0].set_ylim(FLOOR * top, 3 * top)
        panels[0].yaxis.set_major_formatter(lambda value, _: power_label(value))
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
            # With shared axes only the last row has tick labels: the panel above an empty place needs its own.
        for axes in panels[max(0, len(stages) - columns) : len(stages)]:
            axes.tick_params(labelbottom=True)
        ticks = "; ticks: the whole spectrum" if any(stage["eigenvalues"].size for stage in stages) else ""
        figure.suptitle(f"{title}{ticks}" if title else ticks.removeprefix("; "), fontsize=10)
        figure.supxlabel("eigenvalue of the Hessian (nats a squared unit of the params)", fontsize=10)
        figure.supylabel("density", fontsize=10)

    width, height = PANEL_INCHES
    return render(draw, arrays, (max(4.2, width * columns + 0.4), height * rows + 0.5))


def power_label(value: float) -> str:
    """A power of ten as text, 10⁻⁵. (Matplotlib's own label is a formula, and the style draws none.)"""
    return "10" + f"{math.log10(value):.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _draw(axes: Axes, label: str, stage: Mapping[str, np.ndarray], floor: float) -> None:
    grid, eigenvalues = stage["grid"], stage["eigenvalues"]
    density = np.maximum(stage["density"], floor)
    axes.fill_between(grid, floor, density, color=COLOURS[0], alpha=0.25, linewidth=0)
    axes.plot(grid, density, color=COLOURS[0], linewidth=1.1)
    if eigenvalues.size:
        low: Any = {"transform": axes.get_xaxis_transform()}
        axes.plot(eigenvalues, np.full(eigenvalues.size, 0.03), "|", color=COLOURS[1], markersize=6, **low)
    axes.axvline(0.0, color="0.6", linewidth=0.7, linestyle=":")
    axes.set_title(label, fontsize=9.5)
    axes.tick_params(labelsize=8.5)
