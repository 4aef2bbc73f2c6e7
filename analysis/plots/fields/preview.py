"""The field as arrows on a coarse grid: what stream lines show, in a tenth of the time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.fields.plane import heading
from analysis.plots.fields.streams import draw_field, draw_moments, size_of
from analysis.plots.style import theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCREEN_DPI = 110
ARROWS = 16  # a side


def preview_figure(arrays: Mapping[str, np.ndarray], title: str) -> bytes:
    """A PNG of `analysis.fields.preview.preview_arrays`: a block a row; the colour is the divergence, on one scale."""
    with theme():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_of(arrays), dpi=SCREEN_DPI, layout="constrained")
        draw_moments(figure, arrays, "divergence", _coarse)
        heading(figure, title, "the field f(t, z), from data to noise; sampling follows it backwards")
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _coarse(axes: Axes, velocity: np.ndarray, divergence: np.ndarray, *rest: Any) -> Any:
    image = draw_field(axes, _means(velocity), _means(divergence), *rest)
    image.set(data=divergence, interpolation="bilinear")  # few arrows, fine colours
    return image


def _means(values: np.ndarray) -> np.ndarray:
    # Over squares of cells, so that the arrows stand at their centres.
    side = len(values) // ARROWS
    means: np.ndarray = values.reshape(ARROWS, side, ARROWS, side, *values.shape[2:]).mean((1, 3))
    return means
