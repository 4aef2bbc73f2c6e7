"""Vector field, divergence and density of a flow on a grid, and the paths of points: what pictures are drawn from.

Pure: a flow and points in, arrays out. The flow's time is counted by a *clock*: from 0 (data) to the number
of blocks (noise), so that 1.25 is a quarter of the way through the second block, t = 0.25 T there.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparseflows.errors import RunError
from sparseflows.evaluation.likelihood import as_dtype, likelihood, rows_per_chunk
from sparseflows.evaluation.sampling import Report
from sparseflows.flow import divergence
from sparseflows.flow.compiled import engine
from sparseflows.flow.fields import Field, MLPField
from sparseflows.flow.model import Block, Flow
from sparseflows.flow.solvers.ode import Solution, SolveFailed, Solver, State, Status, solve
from sparseflows.flow.solvers.tableaus import TABLEAUS
from sparseflows.plot.windows import Array, centres

TILE, SMALLEST_TILE = 20, 5  # cells on a side that are solved together: an easy tile need not take a hard one's steps
PATIENCE = 400  # evaluations; the flows measured take 60 to 200 where their data are


class Grid(NamedTuple):
    """Square cells of a square window from left to right and bottom to top of `extent`, standardised coordinates.

    `axis_x`, `axis_y` (cells,) are the cells' centres, `points` (cells², 2) all of them, x running fastest: a column of
    values becomes a picture by `reshape(cells, cells)`, its rows rising with y. `area` is that of one cell.
    """

    extent: tuple[float, float, float, float]
    axis_x: Array
    axis_y: Array
    points: Array
    area: float


class Moment(NamedTuple):
    """A time of the flow: block (from 0), t in that block's own time, and the block's end time T."""

    block: int
    time: float
    end_time: float


def make_grid(extent: tuple[float, float, float, float], cells: int) -> Grid:
    """`cells` × `cells` cells of the window `extent`."""
    left, right, bottom, top = extent
    axis_x, axis_y = centres(left, right, cells), centres(bottom, top, cells)
    points = np.stack(np.meshgrid(axis_x, axis_y), axis=-1).reshape(-1, 2)
    return Grid(extent, axis_x, axis_y, points, (right - left) * (top - bottom) / cells**2)


def moment(flow: Flow, block: int, share: float) -> Moment:
    """The time t = share · T of a block."""
    end_time = float(flow.chain()[block].end_time(_like(flow).reshape(1, 1)).detach())
    return Moment(block, share * end_time, end_time)


@torch.no_grad()
def field_at(flow: Flow, when: Moment, points: Array) -> tuple[Array, Array]:
    """f(t, z) (N, D) and its divergence tr ∂f/∂z (N,), exact, at points (N, D)."""
    field = _field(flow.chain()[when.block])
    z = _tensor(flow, points)
    t = torch.as_tensor(when.time, dtype=z.dtype, device=z.device)
    parts = [divergence.exact(field, t, part) for part in z.split(rows_per_chunk(flow, points.shape[1]))]
    velocity = torch.cat([part.velocity for part in parts])
    return _array(velocity), _array(torch.cat([part.trace for part in parts]))


def log_density(
    flow: Flow,
    grid: Grid,
    solver: Solver,
    dtype: str,
    report: Report | None = None,
    needed: NDArray[np.bool_] | None = None,
    reach: float | None = None,
) -> Array:
    """log p (cells²,) on a grid, nats, by `evaluation.likelihood`.

    Far from all data the field of a pruned network may be thousands of times as strong as elsewhere, and a
    few such cells would take longer than all others together. The compiled engine gives each cell steps of its own, and
    leaves those that take more than `PATIENCE` evaluations. These, or all of them where there is no engine, are solved
    a tile of the grid after the other.

    `needed` (cells²,) says which cells hold data or samples. Given it, a tile that takes more than `PATIENCE`
    evaluations is solved in smaller and smaller ones, and those without a needed cell are left out: −inf, for there is
    next to no probability where no sample is. A cell that cannot be solved is NaN. `report` is told after each tile.
    `reach` bounds the field for the tiles (see `bounded`).

    Raises:
        RunError: most of the cells cannot be solved.
    """
    cells = len(grid.axis_x)
    log_prob = _each_by_itself(flow, grid.points, replace(solver, max_nfe=PATIENCE), dtype)
    left = np.isnan(log_prob)
    log_prob[left] = -np.inf
    calm = flow if reach is None else bounded(flow, reach)
    waiting = in_tiles(np.arange(cells * cells).reshape(cells, cells), -(-cells // TILE))
    done = 0
    while waiting:
        tile = waiting.pop()
        rows = tile.ravel()[left[tile.ravel()]]
        if len(rows):
            patient = needed is None or (min(tile.shape) <= SMALLEST_TILE and bool(needed[rows].any()))
            limited = solver if patient else replace(solver, max_nfe=PATIENCE)
            found = likelihood(calm, grid.points[rows], limited, dtype, len(rows))
            if patient or found.status is Status.DONE:
                log_prob[rows] = found.log_prob
            elif needed is not None and needed[rows].any():
                waiting += in_tiles(tile, 2)
                continue
            if 2 * np.isnan(log_prob).sum() > len(log_prob):
                raise RunError(f"the density on most of the grid cannot be computed: {found.status.value}")
        done += tile.size
        if report:
            report(done, len(log_prob))
    return log_prob


@torch.no_grad()
def _each_by_itself(flow: Flow, points: Array, solver: Solver, dtype: str) -> Array:
    """log p (N,) of points (N, D), each with steps of its own, by the engine; NaN where it does not come to an end."""
    precise = as_dtype(flow, dtype)
    rows = _tensor(precise, points)
    if not all(engine.takes(block.field, rows, exact=True) for block in precise.chain()):
        return np.full(len(points), np.nan)
    found = precise.transform(rows, solver=solver, by_row=True)
    assert found.failed is not None
    log_prob = _array(found.log_prob())
    log_prob[_array(found.failed) > 0] = np.nan
    return log_prob


def in_tiles(tile: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
    """The places (n, m) of a grid's points in tiles: `parts` of them either way."""
    strips = np.array_split(tile, parts, axis=0)
    return [piece for strip in strips for piece in np.array_split(strip, parts, axis=1)]


@torch.no_grad()
def path(flow: Flow, points: Array, clock: Sequence[float], solver: Solver) -> Array:
    """States (K, N, D) of points (N, D) at the K times of the clock, from the first on, forwards or backwards.

    The states are the blocks' z: where the flow whitens its data first, z(0) = W x is not yet x (see
    `to_data_coordinates`). Every interval is a solve of its own. (The solver's own interpolation between
    its steps, the alternative, is of lower order than the steps, and the last state would not be `to_data`.) A path
    that cannot be solved is NaN from there on.

    Raises:
        SolveFailed: most of the paths cannot be solved.
    """
    states = [_tensor(flow, points)]
    for start, end in pairwise(clock):
        states.append(_carry(flow, states[-1], start, end, solver))
    return _array(torch.stack(states))


def to_first_block(flow: Flow, points: Array) -> Array:
    """z(0) (N, D) of x: itself, or W x for a flow that whitens first."""
    return points if flow.whitening is None else points @ _array(flow.whitening).T


def to_data_coordinates(flow: Flow, points: Array) -> Array:
    """x (N, D) of z(0): itself, or W⁻¹ z for a flow that whitens first."""
    return points if flow.whitening is None else points @ np.linalg.inv(_array(flow.whitening)).T


class Bounded(nn.Module):
    """A field whose speed is limited beyond `reach` from the origin, so that no path can run to infinity.

    f / (1 + s |f| / reach), where s rises from 0 at `reach` to 1 at twice that. (Fading the field to zero
    instead, which was tried, leaves the solver a stiff problem there: five times the evaluations.)
    """

    def __init__(self, field: nn.Module, reach: float) -> None:
        super().__init__()
        self.field, self.reach = field, reach

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z), limited: (B, D)."""
        f: Tensor = self.field(t, z)
        return f * self._weight(z, f)

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f (B, D) and its products with v (K, B, D), limited. (The slope of the weight is left out: see `bounded`.)"""
        assert isinstance(self.field, Field)
        f, pushed = self.field.tangents(t, z, v)
        weight = self._weight(z, f)
        return f * weight, pushed * weight

    def _weight(self, z: Tensor, f: Tensor) -> Tensor:
        share = (torch.linalg.vector_norm(z, dim=1, keepdim=True) / self.reach - 1).clamp(0, 1)
        share = share * share * (3 - 2 * share)
        return 1 / (1 + share * torch.linalg.vector_norm(f, dim=1, keepdim=True) / self.reach)


def bounded(flow: Flow, reach: float) -> Flow:
    """A copy of `flow` whose paths slow down beyond `reach`; within it nothing changes.

    Far from all data the field of a heavily pruned network may carry a path to infinity, and one such cell
    of a grid would fail the whole solve. With reach 10 a path that is slowed down ends where the noise has
    density e^−50 at most: its cell is as empty as it was, so the log p of such a path (which lacks the slope
    of the limit) is good for nothing but that zero.
    """
    calm = copy.deepcopy(flow)
    for block in calm.chain():
        block.field = Bounded(block.field, reach)
    return calm


def _carry(flow: Flow, z: Tensor, start: float, end: float, solver: Solver) -> Tensor:
    if start == end:
        return z
    inner = range(math.floor(min(start, end)) + 1, math.ceil(max(start, end)))
    stops = [start, *(inner if end > start else reversed(inner)), end]
    for here, there in pairwise(stops):
        index = math.floor(min(here, there))
        z = _within(flow.chain()[index], z, here - index, there - index, solver)
    return z


def _within(block: Block, z: Tensor, start: float, end: float, solver: Solver) -> Tensor:
    # From t = start·T to end·T of one block, as a solve over s in [0, 1].
    on = torch.isfinite(z).all(1)
    found = _solve_part(block, z[on], start, end, solver)
    assert found.failed is not None
    ended = z.masked_fill(~on[:, None], math.nan)
    ended[on] = found.state[0].masked_fill(found.failed[:, None], math.nan)
    lost = int(ended.isnan().any(1).sum())
    if 2 * lost > len(z):
        raise SolveFailed(found.status, found.nfe, f"{lost} of {len(z)} paths")
    return ended


def _solve_part(block: Block, z: Tensor, start: float, end: float, solver: Solver) -> Solution:
    field, end_time = _field(block), block.end_time(z)
    if isinstance(field, MLPField) and solver.method in TABLEAUS and engine.takes(field, z, exact=False):
        begin, width = (float(share * end_time) for share in (min(start, end), abs(end - start)))
        return engine.carry(field, width, z, solver, False, reverse=end < start, by_row=True, begin=begin)
    length = (end - start) * end_time

    def rates(s: Tensor, state: State) -> State:
        return (length * field(start * end_time + s.to(z.dtype) * length, state[0]),)

    return solve(rates, (z,), solver, by_row=True)


def _field(block: Block) -> Field:
    field = block.field
    assert isinstance(field, Field)
    return field


def _like(flow: Flow) -> Tensor:
    return next(flow.parameters(), torch.zeros(1)).detach().reshape(-1)[:1]


def _tensor(flow: Flow, points: Array) -> Tensor:
    like = _like(flow)
    return torch.as_tensor(points, dtype=like.dtype, device=like.device)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().cpu().numpy()
