"""The loss along the leading eigenvectors of its Hessian, a panel a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.spectrum import COLUMNS, PANEL_INCHES
from analysis.plots.style import render
from sparseflows.plot.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHEST = 3.0  # times the parabola's rise: what is above or below is cut off


def along_figure(
    labels: Sequence[str], stages: Sequence[Mapping[str, np.ndarray]], title: str = ""
) -> dict[str, bytes]:
    """The rise of the loss along each stage's eigenvectors, beside the parabolas λa²/2: `png`, `pdf`, `npz`.

    Each stage has the arrays of `curvature.along.loss_along`.
    """
    columns = min(COLUMNS, len(stages))
    rows = math.ceil(len(stages) / columns)
    arrays = {"labels": np.array(labels, dtype=str)}
    for number, stage in enumerate(stages):
        arrays |= {f"{name}_{number}": stage[name] for name in ("along_steps", "along_losses", "along_values")}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, label, stage in zip(panels, labels, stages, strict=False):
            _draw(axes, label, stage)
        for axes in panels[len(stages) :]:
            axes.set_visible(False)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=4 if columns > 1 else 2, title=title)
        figure.supxlabel("step along the unit eigenvector (units of the params)", fontsize=10)
        figure.supylabel("rise of the loss (nats)", fontsize=10)

    width, height = PANEL_INCHES
    return render(draw, arrays, (max(5.2, width * columns + 0.4), height * rows + 0.9))


def _draw(axes: Axes, label: str, stage: Mapping[str, np.ndarray]) -> None:
    top = 0.0
    for number, (steps, losses, value) in enumerate(
        zip(stage["along_steps"], stage["along_losses"], stage["along_values"], strict=True)
    ):
        colour, parabola = COLOURS[number], value * steps**2 / 2
        rise = losses - losses[len(losses) // 2]
        axes.plot(steps, parabola, color=colour, linewidth=0.9, linestyle="--", label=f"{_NAMES[number]}, parabola")
        axes.plot(steps, rise, color=colour, linewidth=1.4, label=f"{_NAMES[number]}, loss")
        top = max(top, float(np.abs(parabola).max()))
    limit, (low, high) = HIGHEST * (top or 1.0), axes.get_ylim()
    axes.set_ylim(max(low, -limit), min(high, limit))
    axes.set_title(label, fontsize=9.5)
    axes.tick_params(labelsize=8.5)


_NAMES = ("largest eigenvalue", "second")
