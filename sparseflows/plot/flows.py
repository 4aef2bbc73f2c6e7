"""The density of a flow, and its samples: pictures of one column, of two, and of pairs of more.

All return the axes that they drew on, call no `plt.show()`, change no settings of matplotlib's, and draw with
generators of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparseflows.errors import InputError, lookup
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.plot.axes import frame
from sparseflows.plot.canvas import canvas, check_axes, draw_histogram, grid_of_axes, name_axes, tell_apart
from sparseflows.plot.densities import DATA_COLOUR, FLOW_COLOUR, density_bar, draw_density, draw_points
from sparseflows.plot.motion import plot_field, plot_paths
from sparseflows.plot.style import COLOURS
from sparseflows.plot.view import View, checked_extent, chosen_columns, span_of, view_of, window_of
from sparseflows.plot.windows import Array, centres

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE_POINTS = 400
WINDOW_SAMPLES = 1000  # that a window is found by, at least
MOST_COLUMNS, SHOWN_COLUMNS = 12, 5
OVERLAY_COLOUR = COLOURS[5]  # of data on a density: apart from its every colour


def plot_flow(flow: Flow, ax: Any = None, kind: str | None = None, **options: Any) -> Any:
    """The picture of a flow that `kind` names, on axes `ax` or new ones: `Flow.plot`.

    Args:
        flow: the flow.
        ax: axes; for pairs of K columns an array of them (K, K); None makes a figure.
        kind: `density`, `samples`, `field`, `paths`; None takes the density of one or two columns, and samples of more.
        options: of `plot_density`, `plot_samples`, `plot_field` or `plot_paths`.

    Returns:
        The axes, or the array of them.

    Raises:
        InputError: an unknown kind, or one that such a flow has no picture of.
    """
    if kind is None:
        kind = "density" if flow.dimension(options.get("dim")) <= 2 else "samples"
    kinds: dict[str, Callable[..., Any]] = {
        "density": plot_density,
        "samples": plot_samples,
        "field": plot_field,
        "paths": plot_paths,
    }
    return lookup("kind", kind, kinds)(flow, ax, **options)


def plot_density(
    flow: Flow,
    ax: Axes | None = None,
    *,
    data: Any = None,
    n: int | None = None,
    coordinates: str | None = None,
    extent: Sequence[float] | None = None,
    cells: int | None = None,
    seed: int = 0,
    dim: int | None = None,
    solver: Solver | None = None,
) -> Axes:
    """The exact density of a flow of one column, as a curve on a histogram of its samples, or of two, as an image.

    What cannot be solved is left blank. New axes have a scale of the colours beside them; on a user's own
    `ax.figure.colorbar(ax.images[0])` adds one.

    Args:
        flow: in one or two dimensions.
        ax: axes to draw on; None makes a figure.
        data: rows (N, D) to lay over it, in the coordinates of the picture.
        n: samples to show; None: 4,000 counted beside the curve, 300 points on the image.
        coordinates: `data`, or `standardised`, the flow's own; None: the data's where the flow knows its standardiser.
        extent: (left, right), and (…, bottom, top) of two columns; None: where samples and data lie.
        cells: points of the curve, or cells on a side of the image; None: 400, or 100.
        seed: of the samples.
        dim: D, of flows whose fields do not say it.
        solver: instead of the flow's own at a tolerance of 1e-4.

    Raises:
        InputError: more than two columns, or options that do not fit.

    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import torch
    >>> from sparseflows import Flow
    >>> from sparseflows.flow.fields import LinearField
    >>> ax = Flow(LinearField(torch.zeros(1, 1))).plot(dim=1)  # the field that stands still: N(0, I)
    >>> x, p = ax.lines[0].get_data()
    >>> f"{p.max():.4f}"
    '0.3989'
    """
    view = view_of(flow, coordinates, dim, solver)
    if view.dim > 2:
        raise InputError(
            f"the density of {view.dim} columns is no picture; kind='samples' shows samples in pairs of columns"
        )
    n = (4000 if view.dim == 1 else 300) if n is None else n
    cells = (CURVE_POINTS if view.dim == 1 else 100) if cells is None else cells
    if not 2 <= cells <= 2000:
        raise InputError(f"cells is {cells}; give 2 to 2,000")
    check_axes(ax)
    rows = None if data is None else view.data(data)
    checked_extent(extent, view.dim, lambda: ())
    drawn = view.samples(n if extent is not None else max(n, WINDOW_SAMPLES), seed)
    known = drawn if rows is None else np.concatenate([drawn, rows])
    if view.dim == 1:
        span = checked_extent(extent, 1, lambda: span_of(known[:, 0]))
        axes, _ = canvas(ax)
        _curve(axes, view, (span[0], span[1]), cells, drawn[:n, 0], rows)
        return axes
    left, right, bottom, top = checked_extent(extent, 2, lambda: window_of(view, known))
    x, y = centres(left, right, cells), centres(bottom, top, cells)
    density = view.density(np.stack(np.meshgrid(x, y), axis=-1))
    highest = float(np.nanmax(density, initial=0.0)) or 1.0
    where = (left, right, bottom, top)
    axes, new = canvas(ax)
    image = draw_density(axes, density, where, highest, view.equal)
    for points, colour, name in ((drawn[:n], "white", "samples"), (rows, OVERLAY_COLOUR, "data")):
        if points is not None and len(points):
            draw_points(axes, points, where, colour, 2.5, view.equal, name)
    name_axes(axes, view.label(0), view.label(1))
    tell_apart(axes, rows is not None)
    if new:
        density_bar(axes.figure, image, axes, [density], highest)
    return axes


def plot_samples(
    flow: Flow,
    ax: Any = None,
    *,
    columns: Sequence[int | str] | None = None,
    data: Any = None,
    n: int = 2000,
    coordinates: str | None = None,
    seed: int = 0,
    dim: int | None = None,
    solver: Solver | None = None,
) -> Any:
    """Samples of a flow: counted (one column), as points (two), or in pairs of columns (more), with data over them.

    Args:
        flow: in any number of dimensions.
        ax: axes, or an array of axes (K, K) for K > 2 columns; None makes a figure.
        columns: names, or places from 1, of the columns to show, at most 12; None: all, of more than 5 the first 5.
        data: rows (N, D) to show beside them, in the coordinates of the picture.
        n: samples.
        coordinates: `data`, or `standardised`, the flow's own; None: the data's where the flow knows its standardiser.
        seed: of the samples.
        dim: D, of flows whose fields do not say it.
        solver: instead of the flow's own at a tolerance of 1e-4.

    Returns:
        The axes, of K > 2 columns an array (K, K) of them, of which those above the diagonal are switched off.

    Raises:
        InputError: columns that are not there, or axes that do not fit.
    """
    view = view_of(flow, coordinates, dim, solver)
    places = chosen_columns(view, columns, SHOWN_COLUMNS if columns is None else MOST_COLUMNS)
    check_axes(ax, len(places) if len(places) > 2 else 1)
    rows = None if data is None else view.data(data)
    drawn = view.samples(n, seed)
    if not len(drawn) and rows is None:
        raise InputError("n is 0, and there is no data; give one of them")
    known = drawn if rows is None else np.concatenate([drawn, rows])
    shown = [(drawn, FLOW_COLOUR, "samples")] if len(drawn) else []
    shown += [(rows, DATA_COLOUR, "data")] if rows is not None else []
    if len(places) > 2:
        grid = grid_of_axes(ax, len(places))
        _pairs(grid, view, places, known, shown)
        return grid
    axes, _ = canvas(ax)
    if len(places) == 1:
        _counted(axes, view, places[0], known, shown)
    else:
        _scattered(axes, view, places, known, shown)
        name_axes(axes, view.label(places[0]), view.label(places[1]))
    tell_apart(axes, len(shown) > 1)
    return axes


Shown = list[tuple[Array, str, str]]


def _curve(axes: Axes, view: View, span: tuple[float, float], points: int, drawn: Array, rows: Array | None) -> None:
    if len(drawn):
        draw_histogram(axes, drawn, span, FLOW_COLOUR, "samples")
    if rows is not None:
        draw_histogram(axes, rows[:, 0], span, DATA_COLOUR, "data")
    x = np.linspace(*span, points)
    axes.plot(x, view.density(x[:, None]), color=FLOW_COLOUR, linewidth=1.6, label="density")
    _upright(axes, span, view.label(0))
    tell_apart(axes, bool(len(drawn)) or rows is not None)


def _counted(axes: Axes, view: View, place: int, known: Array, shown: Shown) -> None:
    span = span_of(known[:, place])
    for values, colour, name in shown:
        draw_histogram(axes, values[:, place], span, colour, name)
    _upright(axes, span, view.label(place))


def _upright(axes: Axes, span: tuple[float, float], label: str) -> None:
    """A density above a column's values."""
    frame(axes, equal=False)
    axes.set(xlim=span, ylim=(0, None))
    name_axes(axes, label, "density")


def _scattered(axes: Axes, view: View, pair: Sequence[int], known: Array, shown: Shown, equal: bool = True) -> None:
    extent = window_of(view, known[:, pair])
    for points, colour, name in shown:
        draw_points(axes, points[:, pair], extent, colour, 2.5, equal and view.equal, name)


def _pairs(grid: np.ndarray, view: View, places: Sequence[int], known: Array, shown: Shown) -> None:
    for row, second in enumerate(places):
        for column, first in enumerate(places):
            axes = grid[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            if column == row:
                _counted(axes, view, first, known, shown)
                axes.set_yticks([])
            else:
                _scattered(axes, view, (first, second), known, shown, equal=False)
                axes.set(xlim=span_of(known[:, first]), ylim=span_of(known[:, second]))
            last, first_in_row = row == len(places) - 1, column == 0 and row > 0
            axes.tick_params(labelsize=7, labelbottom=last, labelleft=first_in_row)
            name_axes(axes, view.label(first) if last else "", view.label(second) if first_in_row else "")
    if len(shown) > 1:
        handles, labels = grid[0, 0].get_legend_handles_labels()
        grid[0, 1].legend(handles, labels, fontsize=8, frameon=False, loc="upper left")
