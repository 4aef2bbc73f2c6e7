"""A row of panels over the prune ratios, as the paper has it: field, density and samples of one method's stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots.fields.densities import density_limit, truth_title
from analysis.plots.fields.plane import Panel, heading, label_axes, labels_of
from analysis.plots.fields.streams import field_of, scale_values
from analysis.plots.style import Arrays, render
from sparseflows.plot.densities import DATA_COLOUR, FLOW_COLOUR, density_bar, draw_density, draw_points
from sparseflows.plot.streams import Colour, colour_bar, colour_limits, draw_field

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = 1.75


def panels_figure(columns: Sequence[Panel], title: str, colour: Colour) -> dict[str, bytes]:
    """Data and the stages side by side, each row on one scale: png, pdf, npz.

    Rows: the field half-way between data and noise, the density (two columns of data only), samples in the
    first pair of columns.

    `columns` are the stages, dense first, with the arrays of `analysis.fields.arrays`.
    """
    first = columns[0].arrays
    plane = first["field_extent"].ndim == 1
    rows = 3 if plane else 2
    fields = [field_of(one.arrays, 0, middle_index(one.arrays)) for one in columns]
    groups = [scale_values(one.arrays, colour, middle_index(one.arrays)) for one in columns]
    limits = colour_limits(groups, colour)
    extent = np.atleast_2d(first["field_extent"])[0].tolist()
    near = first["density_extent"].tolist() if plane else first["rows_extent"][0].tolist()

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, 1 + len(columns), squeeze=False)
        _data_column(grid[:, 0], first, near)
        image: Any = None
        for number, (one, (velocity, divergence)) in enumerate(zip(columns, fields, strict=True), 1):
            top, *_, bottom = grid[:, number]
            image = draw_field(top, velocity, divergence, extent, colour, limits, density=0.65)
            top.set_title(one.title, fontsize=8.5, linespacing=1.3)
            label_axes(top, labels_of(first, 0), number == 1, False)
            draw_points(bottom, one.arrays["samples"][0], near, FLOW_COLOUR, 1.4)
            label_axes(bottom, labels_of(first, 0), False, True)
        colour_bar(figure, image, list(grid[0]), colour)
        if plane:
            limit = density_limit(first)
            for number, one in enumerate(columns, 1):
                image = draw_density(grid[1, number], one.arrays["density"], near, limit)
                label_axes(grid[1, number], labels_of(first, 0), False, False)
            density_bar(figure, image, list(grid[1]), [one.arrays["density"] for one in columns], limit)
        heading(figure, title)

    return render(draw, _saved(columns, fields), (INCHES * (1 + len(columns)) + 1.5, (INCHES + 0.08) * rows + 0.95))


def _data_column(axes: Any, arrays: Mapping[str, np.ndarray], near: Sequence[float]) -> None:
    top, *middle, bottom = axes
    top.set_axis_off()
    top.text(0.5, 0.5, _note(arrays), transform=top.transAxes, ha="center", va="center", fontsize=8, linespacing=1.4)
    for one in middle:
        draw_density(one, arrays["truth"], near, density_limit(arrays))
        one.set_title(truth_title(arrays), fontsize=8.5)
        label_axes(one, labels_of(arrays, 0), True, False)
    draw_points(bottom, arrays["rows"][0], near, DATA_COLOUR, 1.4)
    bottom.set_title("data", fontsize=8.5)
    label_axes(bottom, labels_of(arrays, 0), True, True)


def middle_index(arrays: Mapping[str, np.ndarray]) -> int:
    """Which of the moments lies half-way through the middle block."""
    block = (int(arrays["block"].max()) + 1) // 2
    here = np.flatnonzero(arrays["block"] == block)
    return int(here[np.argmin(np.abs(arrays["time"][here] - arrays["end_time"][here] / 2))])


def _note(arrays: Mapping[str, np.ndarray]) -> str:
    index = middle_index(arrays)
    blocks = int(arrays["block"].max())
    when = f"t = {arrays['time'][index]:.3g}" + (f" of block {arrays['block'][index]}" if blocks > 1 else "")
    if arrays["field_extent"].ndim == 1:
        return f"field f at {when}\n(points from data\nto noise; sampling\nfollows it backwards)"
    mean = "mean of f's\ncomponents i, j over\nthe rows in a cell"
    return f"projected field at\n{when}: {mean}\n(f points from\ndata to noise)"


def _saved(columns: Sequence[Panel], fields: Sequence[tuple[np.ndarray, np.ndarray]]) -> Arrays:
    first = columns[0].arrays
    saved = {
        "stage": np.array([one.title.replace("\n", ", ") for one in columns]),
        "velocity": np.stack([velocity for velocity, _ in fields]),
        "divergence": np.stack([divergence for _, divergence in fields]),
        "samples": np.stack([one.arrays["samples"][0] for one in columns]),
        "rows": first["rows"][0],
        "columns": first["columns"][0],
        "time": first["time"][middle_index(first)],
        "block": first["block"][middle_index(first)],
        "field_extent": np.atleast_2d(first["field_extent"])[0],
    }
    if "names" in first:
        saved["names"] = first["names"][0]
    if "density" in first:
        names = ("density_extent", "truth", "truth_is_known")
        return saved | {"density": np.stack([one.arrays["density"] for one in columns])} | {n: first[n] for n in names}
    return saved | {"rows_extent": first["rows_extent"][0]}
