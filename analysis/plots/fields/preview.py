"""The field as arrows on a coarse grid: what stream lines show, in a tenth of the time."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from analysis.plots.fields.plane import heading, label_axes
from analysis.plots.fields.streams import PANEL_INCHES, colour_bar, colour_limits, draw_field, scale_values
from analysis.plots.style import theme

SCREEN_DPI = 110
ARROWS = 16  # a side


def preview_figure(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """A PNG: a block a row, its times side by side; the colour is the divergence, on one scale for all panels.

    Args:
        arrays: see `analysis.fields.preview.preview_arrays`.
        title: what stage it is.
    """
    blocks = int(arrays["block"].max())
    columns = len(arrays["block"]) // blocks
    limits = colour_limits([scale_values(arrays, "divergence")], "divergence")
    extent = arrays["field_extent"].tolist()
    with theme():
        from matplotlib.figure import Figure

        size = (PANEL_INCHES * columns + 1.3, (PANEL_INCHES + 0.3) * blocks + 0.85)
        figure = Figure(figsize=size, dpi=SCREEN_DPI, layout="constrained")
        grid = figure.subplots(blocks, columns, sharex=True, sharey=True, squeeze=False)
        image = None
        for index, axes in enumerate(grid.ravel()):
            trace = arrays["divergence"][index]
            coarse = _means(arrays["velocity"][index]), _means(trace)
            image = draw_field(axes, *coarse, extent, "divergence", limits)
            image.set(data=trace, interpolation="bilinear")  # few arrows, fine colours
            axes.set_title(_when(arrays, index, blocks), fontsize=9.5)
            label_axes(axes, None, index % columns == 0, index // columns == blocks - 1)
        colour_bar(figure, image, grid, "divergence", blocks)
        heading(figure, title, "the field f(t, z), from data to noise; sampling follows it backwards")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _means(values: np.ndarray) -> np.ndarray:
    # Over squares of cells, so that the arrows stand at their centres.
    side = len(values) // ARROWS
    means: np.ndarray = values.reshape(ARROWS, side, ARROWS, side, *values.shape[2:]).mean((1, 3))
    return means


def _when(arrays: Mapping[str, np.ndarray], index: int, blocks: int) -> str:
    block, time = int(arrays["block"][index]), float(arrays["time"][index])
    ends = {(1, 0.0): " (data)", (blocks, float(arrays["end_time"][-1])): " (noise)"}
    return f"{f'block {block}, ' if blocks > 1 else ''}t = {time:.3g}{ends.get((block, time), '')}"
