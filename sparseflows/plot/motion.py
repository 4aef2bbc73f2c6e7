"""The vector field of a flow at one time, and the paths of samples from noise to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparseflows.errors import InputError
from sparseflows.evaluation.sampling import noise_rows
from sparseflows.flow.inputs import check_count
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.plot import grids
from sparseflows.plot.axes import start_colours
from sparseflows.plot.canvas import canvas, check_axes, name_axes
from sparseflows.plot.densities import draw_points
from sparseflows.plot.paths import draw_paths, path_ends
from sparseflows.plot.streams import Colour, colour_bar, colour_limits, draw_field
from sparseflows.plot.view import View, checked_extent, chosen_columns, view_of, window_of
from sparseflows.plot.windows import Array, Extent
from sparseflows.rng import derived_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS, SCALED, TIMES = 96, 500, 61
FAR = 10.0  # where paths are slowed down, times √(D/2); see `grids.bounded`
MOST_EVALUATIONS = 50_000
GREY = "0.75"


def plot_field(
    flow: Flow,
    ax: Axes | None = None,
    *,
    time: float = 0.5,
    colour: Colour = "divergence",
    data: Any = None,
    coordinates: str | None = None,
    extent: Sequence[float] | None = None,
    cells: int = CELLS,
    seed: int = 0,
    dim: int | None = None,
    solver: Solver | None = None,
) -> Axes:
    """Stream lines of the field f(t, z) of a flow of two columns at one time, on its divergence or speed in colour.

    f points from data to noise; sampling follows it backwards. A flow that whitens is shown as it is before that.

    Args:
        flow: in two dimensions.
        ax: axes to draw on; None makes a figure, with a scale of the colours.
        time: from 0 (data) to 1 (noise), a share of the way through all blocks.
        colour: `divergence` or `speed`.
        data: rows (N, 2), in the coordinates of the picture, shown where they are at that time.
        coordinates: `data`, or `standardised`, the flow's own; None: the data's where the flow knows its standardiser
            and sees its columns without maps.
        extent: (left, right, bottom, top); None: where samples lie on their way.
        cells: of the grid, on a side.
        seed: of the samples that window and colours are found by.
        dim: D, of flows whose fields do not say it.
        solver: of the paths.

    Raises:
        InputError: other than two columns, or options that do not fit.
    """
    view = _moving(flow, coordinates, dim, solver)
    if view.dim != 2:
        raise InputError(f"the field of {view.dim} columns is no picture of a plane; kind='samples' shows samples")
    if not 0 <= time <= 1:
        raise InputError(f"time is {time}; give a share from 0 (data) to 1 (noise)")
    if colour not in ("divergence", "speed"):
        raise InputError(f"unknown colour '{colour}' (known: divergence, speed)")
    if not 2 <= cells <= 2000:
        raise InputError(f"cells is {cells}; give 2 to 2,000")
    check_axes(ax)
    checked_extent(extent, 2, lambda: ())
    clock = time * len(flow.chain())
    block = min(int(clock), len(flow.chain()) - 1)
    when = grids.moment(flow, block, clock - block)
    where, (velocity, divergence), at_samples = _on_grid(view, when, clock, extent, cells, seed)
    axes, new = canvas(ax)
    limits = colour_limits([at_samples[1] if colour == "divergence" else np.linalg.norm(at_samples[0], axis=1)], colour)
    image = draw_field(axes, velocity, divergence, where, colour, limits, equal=view.equal)
    if data is not None:
        moved = _states(view, _unseen(view, view.data(data)), [0.0, clock])[-1]
        draw_points(axes, _seen(view, moved), where, "black", 3.0, view.equal, "data")
    name_axes(axes, view.label(0), view.label(1))
    if new:
        several = f" of block {block + 1}" if len(flow.chain()) > 1 else ""
        axes.set_title(f"t = {when.time:.3g}{several}", fontsize=10)
        bar = colour_bar(axes.figure, image, axes, colour)
        if colour == "speed" and view.way is not None:
            bar.set_label("speed |f|\n(the data's units\nper unit of t)", fontsize=8.5)
    return axes


def plot_paths(
    flow: Flow,
    ax: Axes | None = None,
    *,
    columns: Sequence[int | str] | None = None,
    data: Any = None,
    n: int = 128,
    coordinates: str | None = None,
    extent: Sequence[float] | None = None,
    seed: int = 0,
    dim: int | None = None,
    solver: Solver | None = None,
) -> Axes:
    """Paths of samples from noise (hollow) to data (full), coloured by where they start, in two columns.

    Args:
        flow: in two dimensions or more.
        ax: axes to draw on; None makes a figure, with a legend.
        columns: names, or places from 1, of the two columns; None: the first two.
        data: rows (N, D) to lay under them, in the coordinates of the picture.
        n: paths.
        coordinates: `data`, or `standardised`, the flow's own; None: the data's where the flow knows its standardiser
            and sees its columns without maps.
        extent: (left, right, bottom, top); None: where the paths lie.
        seed: of the noise.
        dim: D, of flows whose fields do not say it.
        solver: of the paths.

    Raises:
        InputError: a single column, or options that do not fit.
        SolveFailed: a path cannot be solved.
    """
    view = _moving(flow, coordinates, dim, solver)
    pair = chosen_columns(view, columns, 2)
    if len(pair) < 2:
        raise InputError("paths are shown in two columns; of a single one, kind='density' shows the density")
    if check_count(n) < 1:
        raise InputError("n is 0; give a number of paths from 1 on")
    check_axes(ax)
    noise = noise_rows(n, view.dim, derived_seed(seed, "plot/paths"))
    clock = np.linspace(len(flow.chain()), 0, TIMES).tolist()
    paths = np.stack([_seen(view, state)[:, pair] for state in _states(view, noise, clock)])
    rows = None if data is None else view.data(data)[:, pair]
    known = paths.reshape(-1, 2) if rows is None else np.concatenate([paths.reshape(-1, 2), rows])
    where = checked_extent(extent, 2, lambda: window_of(view, known))
    axes, new = canvas(ax)
    if rows is not None:
        draw_points(axes, rows, where, GREY, 4.0, view.equal, "data")
    draw_paths(axes, paths, start_colours(noise[:, pair]), where, equal=view.equal)
    name_axes(axes, view.label(pair[0]), view.label(pair[1]))
    if new:
        axes.figure.legend(handles=path_ends(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return axes


def _moving(flow: Flow, coordinates: str | None, dim: int | None, solver: Solver | None) -> View:
    view = view_of(flow, coordinates, dim, solver, moving=True)
    return replace(view, solver=replace(view.solver, max_nfe=max(view.solver.max_nfe, MOST_EVALUATIONS)))


def _on_grid(
    view: View, when: grids.Moment, clock: float, extent: Sequence[float] | None, cells: int, seed: int
) -> tuple[Extent, tuple[Array, Array], tuple[Array, Array]]:
    """The window; the field (cells, cells, 2) and its divergence (cells, cells) in it; both at samples (n, …)."""
    noise = noise_rows(SCALED, 2, derived_seed(seed, "plot/field"))
    states = _states(view, noise, [len(view.flow.chain()), clock, 0.0])
    ways = np.concatenate([_seen(view, state) for state in states])
    left, right, bottom, top = checked_extent(extent, 2, lambda: window_of(view, ways))
    where = (left, right, bottom, top)
    velocity, divergence = _field(view, when, _unseen(view, grids.make_grid(where, cells).points))
    both = velocity.reshape(cells, cells, 2), divergence.reshape(cells, cells)
    return where, both, _field(view, when, states[1])


@torch.no_grad()
def _states(view: View, start: Array, clock: Sequence[float]) -> Array:
    """States z (K, N, D) on the way, in the flow's own coordinates, slowed down far from everything."""
    calm = grids.bounded(view.flow, FAR * math.sqrt(max(1.0, view.dim / 2)))
    return grids.path(calm, start, clock, view.solver)


@torch.no_grad()
def _field(view: View, when: grids.Moment, states: Array) -> tuple[Array, Array]:
    """f (N, D) in the coordinates of the picture, and its divergence (N,), the same in all."""
    f, divergence = grids.field_at(view.flow, when, states)
    return _seen(view, f) - _seen(view, np.zeros_like(f)), divergence


def _seen(view: View, states: Array) -> Array:
    """States (N, D) of the flow in the coordinates of the picture: the whitening undone, and the standardising."""
    return view.leave(grids.to_data_coordinates(view.flow, states))


def _unseen(view: View, shown: Array) -> Array:
    """Points (N, D) of the picture as states of the flow."""
    if view.way is not None:
        shown = view.way.arrive(torch.from_numpy(shown), torch.float64).rows.numpy()
    return grids.to_first_block(view.flow, shown)
