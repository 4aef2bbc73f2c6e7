"""The vector field of `analysis.fields.arrays`: stream lines, or arrows of its projection, on a colour map."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.fields.plane import chosen, heading, label_axes, labels_of, pair_of
from analysis.plots.style import render
from sparseflows.plot.streams import Colour, colour_bar, colour_limits, draw_field
from sparseflows.plot.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL_INCHES = 2.2
PREVIEW_DPI, ARROWS = 110, 16  # a side: arrows on a coarse grid show what stream lines do, in a tenth of the time


def field_figure(arrays: Mapping[str, np.ndarray], title: str, colour: Colour) -> dict[str, bytes]:
    """The field of one stage at its times, a block a row (a pair and block, for more than two columns): png, pdf, npz.

    `colour` says what the colour shows, on one scale for all panels.
    """
    used = ("block", "time", "end_time", "columns", "field_extent", "velocity", "divergence")

    def draw(figure: Figure) -> None:
        draw_moments(figure, arrays, colour)
        heading(figure, title, _convention(arrays))

    return render(draw, chosen(arrays, used), size_of(arrays))


def preview_figure(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """A PNG of `analysis.fields.arrays.preview_arrays`: arrows, a block a row; the colour is the divergence."""
    with theme():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_of(arrays), dpi=PREVIEW_DPI, layout="constrained")
        draw_moments(figure, arrays, "divergence", _coarse)
        heading(figure, title, "the field f(t, z), from data to noise; sampling follows it backwards")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def size_of(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Width and height (inches) of a figure with all moments."""
    lines = _lines(arrays)
    return PANEL_INCHES * len(lines[0][1]) + 1.3, (PANEL_INCHES + 0.3) * len(lines) + 0.85


def field_of(arrays: Mapping[str, np.ndarray], number: int, moment: int) -> tuple[np.ndarray, np.ndarray]:
    """Velocity (cells, cells, 2) and divergence (cells, cells) in the `number`-th pair of columns at a moment."""
    place = moment if pair_of(arrays, number) is None else (number, moment)
    return arrays["velocity"][place], arrays["divergence"][place]


def when(arrays: Mapping[str, np.ndarray], moment: int) -> str:
    """What stands above a moment's panel: block (of several), t, and which end of the flow it is."""
    block, time, blocks = int(arrays["block"][moment]), float(arrays["time"][moment]), int(arrays["block"].max())
    ends = {(blocks, float(arrays["end_time"][-1])): " (noise)", (1, 0.0): " (data)"}
    return f"{f'block {block}, ' if blocks > 1 else ''}t = {time:.3g}{ends.get((block, time), '')}"


def draw_moments(
    figure: Figure, arrays: Mapping[str, np.ndarray], colour: Colour, draw: Callable[..., Any] = draw_field
) -> None:
    """Every moment on one colour scale; `draw` makes a panel, as `draw_field` does."""
    lines, several_blocks = _lines(arrays), arrays["block"].max() > 1
    limits = colour_limits([scale_values(arrays, colour)], colour)
    grid = figure.subplots(len(lines), len(lines[0][1]), sharex="row", sharey="row", squeeze=False)
    image = None
    for row, (number, moments) in enumerate(lines):
        pair, extent = pair_of(arrays, number), np.atleast_2d(arrays["field_extent"])[number].tolist()
        for column, (axes, moment) in enumerate(zip(grid[row], moments, strict=True)):
            image = draw(axes, *field_of(arrays, number, moment), extent, colour, limits)
            if row == 0 or several_blocks:
                axes.set_title(when(arrays, moment), fontsize=9.5)
            label_axes(axes, labels_of(arrays, number), column == 0, row == len(lines) - 1 or pair is not None)
    colour_bar(figure, image, grid, colour, len(lines))


def scale_values(arrays: Mapping[str, np.ndarray], colour: Colour, moment: int | slice = slice(None)) -> np.ndarray:
    """The numbers (N,) that set the colour scale of some moments: those at the samples then, or the cells with rows.

    Not those of a whole grid: its corners, where no path goes, may be thousands of times as strong.
    """
    if f"sample_{colour}" in arrays:
        return np.ravel(arrays[f"sample_{colour}"][moment])
    if colour == "divergence":
        return np.ravel(arrays["divergence"][:, moment])
    return np.ravel(np.linalg.norm(arrays["velocity"][:, moment], axis=-1))


def _coarse(axes: Axes, velocity: np.ndarray, divergence: np.ndarray, *rest: Any) -> Any:
    image = draw_field(axes, _means(velocity), _means(divergence), *rest)
    image.set(data=divergence, interpolation="bilinear")  # few arrows, fine colours
    return image


def _means(values: np.ndarray) -> np.ndarray:
    # Over squares of cells, so that the arrows stand at their centres.
    side = len(values) // ARROWS
    means: np.ndarray = values.reshape(ARROWS, side, ARROWS, side, *values.shape[2:]).mean((1, 3))
    return means


def _lines(arrays: Mapping[str, np.ndarray]) -> list[tuple[int, list[int]]]:
    # The rows of panels: a pair of columns, and the moments of one block.
    blocks = [np.flatnonzero(arrays["block"] == block).tolist() for block in np.unique(arrays["block"])]
    return [(number, line) for number in range(len(np.atleast_2d(arrays["field_extent"]))) for line in blocks]


def _convention(arrays: Mapping[str, np.ndarray]) -> str:
    lines = "f points from data to noise; sampling follows it backwards"
    if arrays["field_extent"].ndim == 1:
        return f"stream lines of the field f(t, z); {lines}"
    return (
        "a projection: mean of f's components i, j over the rows in each cell (grey: fewer than 3 rows), "
        f"colours: over all columns\n{lines}"
    )
