"""Samples on their way from noise to data: their paths, and an animation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from analysis.plots.fields.plane import chosen, heading, label_axes, labels_of
from analysis.plots.gif import animate
from analysis.plots.style import render
from sparseflows.plot.axes import frame, start_colours
from sparseflows.plot.paths import draw_paths, path_ends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = 4.2  # of the animation
SECONDS, FIRST_SECONDS, LAST_SECONDS = 0.08, 0.6, 2.0
SHADES = 24


def trajectories_figure(arrays: Mapping[str, np.ndarray], title: str) -> dict[str, bytes]:
    """Paths of samples from noise to data, a panel a pair of columns: png, pdf, npz."""
    shown = chosen(arrays, ("paths", "paths_clock", "columns", "field_extent"))
    paths = arrays["paths"]
    extents = np.atleast_2d(arrays["field_extent"])

    def draw(figure: Figure) -> None:
        grid = figure.subplots(1, len(paths), squeeze=False)[0]
        for number, (axes, one) in enumerate(zip(grid, paths, strict=True)):
            draw_paths(axes, one, start_colours(one[0]), extents[number])
            label_axes(axes, labels_of(arrays, number), True, True)
        figure.legend(handles=path_ends(), loc="outside lower center", ncols=2, frameon=False)
        heading(figure, title, f"paths of {paths.shape[2]} samples from noise to data, coloured by where they start")

    return render(draw, shown, (4.0 * len(paths) + 0.3 if len(paths) > 1 else 5.4, 4.95 if len(paths) > 1 else 6.2))


def animation(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """The samples' frames as a GIF that loops for ever and rests on its last frame; equal arrays give equal bytes."""
    frames, clock = arrays["frames"], arrays["frames_clock"]
    extent = np.atleast_2d(arrays["field_extent"])[0]
    blocks = int(arrays["block"].max())

    def draw(figure: Figure) -> Callable[[int], None]:
        axes = figure.add_subplot()
        rows, start = arrays["rows"][0], frames[0]
        axes.scatter(rows[:, 0], rows[:, 1], s=3, c="0.82", linewidths=0, zorder=1)
        points = axes.scatter(start[:, 0], start[:, 1], s=5, c=start_colours(start), linewidths=0, zorder=2)
        frame(axes, extent)
        label_axes(axes, labels_of(arrays, 0), True, True)
        axes.set_title(title, fontsize=9.5, loc="center")
        said = axes.text(0.03, 0.965, "", transform=axes.transAxes, va="top", fontsize=11, zorder=3)
        axes.text(0.97, 0.03, "grey: data", transform=axes.transAxes, ha="right", fontsize=8.5, color="0.5")

        def show(number: int) -> None:
            points.set_offsets(frames[number])
            said.set_text(_time(arrays, float(clock[number]), blocks))

        return show

    # The colours that are drawn, and their blends with white at edges.
    ramp = start_colours(np.column_stack([np.linspace(-2, 2, SHADES), np.zeros(SHADES)]))[:, :3]
    colours = np.concatenate([ramp + (1 - ramp) * share for share in (0, 1 / 3, 2 / 3)])
    seconds = [FIRST_SECONDS, *[SECONDS] * (len(frames) - 2), LAST_SECONDS]
    return animate(draw, (INCHES, INCHES * 1.09), seconds, colours)


def _time(arrays: Mapping[str, np.ndarray], clock: float, blocks: int) -> str:
    block = min(int(clock), blocks - 1)
    end_time = float(arrays["end_time"][arrays["block"] == block + 1][0])
    named = f"block {block + 1}, " if blocks > 1 else ""
    where = ", noise" if clock == blocks else ", data" if clock == 0 else ""
    return f"{named}t = {(clock - block) * end_time:.2f}{where}"
