"""A flow's field on a small grid at the start, the middle and the end of every block: a picture in half a second."""

from __future__ import annotations

import contextlib

import numpy as np

from analysis.fields import grids
from analysis.fields.arrays import DATA_MARGIN, NOISE_REACH, SCALED, Array, at_samples, moments, on_grid
from analysis.fields.projection import square_window
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import SolveFailed
from sparseflows.rng import numpy_generator

SHARES = (0.0, 0.5, 1.0)  # of T
CELLS = 64  # a side


def preview_arrays(flow: Flow, rows: Array) -> dict[str, Array]:
    """Arrays as `plots.fields` takes them, of a flow in two dimensions.

    `columns` (1, 2), and those of `fields.arrays.moments`, `on_grid` and, unless their paths cannot be solved,
    `at_samples`.

    Args:
        flow: whose field.
        rows: standardised rows (N, 2); they and the noise set the window, which is the same for every stage.
    """
    grid = grids.make_grid(square_window(rows, DATA_MARGIN, NOISE_REACH), CELLS)
    arrays = moments(flow, SHARES) | on_grid(flow, grid, SHARES) | {"columns": np.array([[1, 2]])}
    with contextlib.suppress(SolveFailed):
        arrays |= at_samples(flow, numpy_generator(0, "glance").standard_normal((SCALED, 2)), SHARES)
    return arrays
