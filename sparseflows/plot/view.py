"""How a flow is seen in a picture: in which coordinates, under which names, through which window. Arrays in and out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch

from sparseflows.data.tables.choosing import place_of, short
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import likelihood
from sparseflows.evaluation.sampling import draw_again
from sparseflows.flow.coordinates import OwnCoordinates, Standardised, coordinates_of
from sparseflows.flow.inputs import check_count
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.plot.grids import TILE, in_tiles
from sparseflows.plot.windows import Array, Extent, window
from sparseflows.rng import derived_seed
from sparseflows.specs.choices import ADAPTIVE

TOLERANCE = 1e-4  # of the solves: well below what a picture resolves
PATIENCE = 2000  # evaluations of the field; the flows measured take 60 to 200 where their data are
OUTERMOST = 0.005  # share of the rows that may lie outside a window, on either side
MARGIN = 0.1


@dataclass(frozen=True)
class View:
    """A flow in the coordinates of a picture.

    Attributes:
        flow: the flow.
        dim: D.
        way: to the data's own coordinates; None stays in the flow's own.
        solver: of all solves.
        note: what stands behind a column's name on an axis.
    """

    flow: Flow
    dim: int
    way: OwnCoordinates | None
    solver: Solver
    note: str

    @property
    def equal(self) -> bool:
        """Whether all columns have one unit."""
        if isinstance(self.way, Standardised):
            return bool((self.way.scale == self.way.scale[0]).all())
        return self.way is None

    @property
    def straight(self) -> bool:
        """Whether the way there is linear, so that the states between data and noise can be shown there too."""
        return self.way is None or isinstance(self.way, Standardised)

    def label(self, column: int) -> str:
        """What a column, from 0, is called on an axis."""
        names = getattr(self.flow, "columns", None)
        return f"{short(names[column]) if names else f'column {column + 1}'}{self.note}"

    def leave(self, rows: Array) -> Array:
        """The flow's rows (N, D) in the coordinates of the picture (N, D)."""
        if self.way is None:
            return rows
        shown: Array = self.way.leave(torch.from_numpy(np.ascontiguousarray(rows))).numpy()
        return shown

    def data(self, rows: Any) -> Array:
        """A user's rows (N, D), in the coordinates of the picture; a frame's columns are found by their names.

        Rows with a value that is missing or infinite are left out.

        Raises:
            InputError: other columns, no rows, no numbers.
        """
        names = getattr(self.flow, "columns", None)
        if names and hasattr(rows, "columns") and set(names) <= set(rows.columns):
            rows = rows[list(names)]
        try:
            found = np.asarray(rows.detach().cpu() if isinstance(rows, torch.Tensor) else rows, dtype=np.float64)
        except (TypeError, ValueError):
            kind = type(rows).__name__
            raise InputError(f"data is a {kind} that holds more than numbers; give numbers only") from None
        if found.ndim == 1 and self.dim == 1:
            found = found[:, None]
        if found.ndim != 2 or found.shape[1] != self.dim or not len(found):
            raise InputError(f"data has the shape {found.shape}; give rows (N, {self.dim}), N at least 1")
        return found[np.isfinite(found).all(1)]

    @torch.no_grad()
    def samples(self, n: int, seed: int) -> Array:
        """n samples (n, D); equal seeds give equal ones."""
        if not check_count(n):
            return np.empty((0, self.dim))
        seeds = (derived_seed(seed, f"plot/samples/{number}") for number in count())
        drawn, _ = draw_again(self._solved_by(), self.dim, n, lambda: next(seeds))
        return self.leave(drawn)

    @torch.no_grad()
    def density(self, points: Array) -> Array:
        """p (…) at points (…, D) of a curve or of a grid; NaN where it cannot be solved.

        A tile of a grid is solved together, so that an easy place need not take a hard one's steps.
        """
        shape, points = points.shape[:-1], points.reshape(-1, self.dim)
        places = np.arange(len(points)).reshape(shape)
        parts = -(-len(places) // (TILE if len(shape) > 1 else TILE**2))
        tiles = in_tiles(places, parts) if len(shape) > 1 else np.array_split(places, parts)
        density = np.zeros(len(points))
        dtype = str(self.flow.like().dtype).removeprefix("torch.")
        for tile in map(np.ravel, tiles):
            rows, log_slope, taken = torch.from_numpy(points[tile]), torch.zeros(()), None
            if self.way is not None:
                rows, log_slope, taken = self.way.arrive(rows, torch.float64)
            kept = tile if taken is None else tile[taken.numpy()]
            if len(kept):
                found = likelihood(self.flow, rows.numpy(), self.solver, dtype, len(kept))
                density[kept] = np.exp(found.log_prob + log_slope.numpy())
        return density.reshape(shape)

    def _solved_by(self) -> Flow:
        """The flow itself, or a shallow copy whose own solver is the picture's."""
        if self.flow.solver == self.solver:
            return self.flow
        other = copy.copy(self.flow)
        other.solver = self.solver
        return other


def view_of(flow: Flow, coordinates: str | None, dim: int | None, solver: Solver | None, moving: bool = False) -> View:
    """How `flow` is seen.

    Args:
        flow: the flow.
        coordinates: `data`, `standardised`, or None: the data's own where the flow knows them.
        dim: D, of flows whose fields do not say it.
        solver: of all solves; None takes the flow's own at the tolerance of a picture.
        moving: states between data and noise are to be shown, which a map of a column cannot take.

    Raises:
        InputError: unknown coordinates, or some that the flow has not.
    """
    if coordinates not in (None, "data", "standardised"):
        raise InputError(f"unknown coordinates '{coordinates}' (known: data, standardised)")
    known = flow.standardiser is not None
    way = coordinates_of(flow.standardiser) if coordinates == "data" or (coordinates is None and known) else None
    own = flow.solver
    quick = replace(own.at(TOLERANCE), max_nfe=min(PATIENCE, own.max_nfe)) if own.method in ADAPTIVE else own
    view = View(flow, flow.dimension(dim), way, solver or quick, "")
    if moving and not view.straight:
        if coordinates == "data":
            raise InputError(
                "the way between data and noise is not to be had in the data's own coordinates where the flow sees "
                "columns through maps (data.transform); take coordinates='standardised'"
            )
        view = replace(view, way=None)
    if view.way is None and known:
        mapped = not isinstance(coordinates_of(flow.standardiser), Standardised)
        view = replace(view, note=" (as the flow sees it)" if mapped else " (standardised)")
    return view


def chosen_columns(view: View, columns: Sequence[int | str] | None, most: int) -> list[int]:
    """Places, from 0, of the columns that a picture shows; None takes the first `most`.

    Raises:
        InputError: no such column, one that is there twice, none or too many.
    """
    if columns is None:
        return list(range(min(view.dim, most)))
    if isinstance(columns, str) or not 1 <= len(columns) <= most:
        raise InputError(f"columns is {columns!r}; give a list of 1 to {most} names, or places from 1")
    names = getattr(view.flow, "columns", None)
    places = [place_of(one, names, view.dim, "plot", "columns") for one in columns]
    if len(set(places)) < len(places):
        raise InputError(f"columns is {columns!r}; give each column once")
    return places


def span_of(values: Array) -> tuple[float, float]:
    """The window on values (N,) of one column, without the outermost and with a margin."""
    low, high = (float(end) for end in np.quantile(values, (OUTERMOST, 1 - OUTERMOST)))
    around = MARGIN * (high - low) or 1.0
    return low - around, high + around


def window_of(view: View, rows: Array) -> Extent:
    """The window on rows (N, 2): a square where both columns have one unit."""
    return window(rows, OUTERMOST, MARGIN) if view.equal else (*span_of(rows[:, 0]), *span_of(rows[:, 1]))


def checked_extent(
    extent: Sequence[float] | None, columns: int, otherwise: Callable[[], tuple[float, ...]]
) -> tuple[float, ...]:
    """The window on one or two `columns` that a user gave, or the one that `otherwise` finds.

    Raises:
        InputError: not as many numbers as that has, or not rising.
    """
    if extent is None:
        return otherwise()
    given = tuple(float(end) for end in extent)
    rising = len(given) == 2 * columns and all(low < high for low, high in zip(given[::2], given[1::2], strict=True))
    if not rising or not np.isfinite(given).all():
        wanted = "(left, right)" if columns == 1 else "(left, right, bottom, top)"
        raise InputError(f"extent is {given}; give {wanted}, rising")
    return given
