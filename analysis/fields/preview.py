"""A flow's field on a small grid at the start, the middle and the end of every block: a picture in half a second."""

from __future__ import annotations

from itertools import product

import numpy as np

from analysis.fields import grids
from analysis.fields.arrays import DATA_MARGIN, FAR, MAX_NFE, NOISE_REACH, SCALED, TOLERANCE, Array
from analysis.fields.projection import square_window
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import SolveFailed, Solver
from sparseflows.rng import numpy_generator

SHARES = (0.0, 0.5, 1.0)  # of T
CELLS = 64  # a side


def preview_arrays(flow: Flow, rows: Array) -> dict[str, Array]:
    """Arrays as `plots.fields` takes them, of a flow in two dimensions.

    Args:
        flow: whose field.
        rows: standardised rows (N, 2); they and the noise set the window, which is the same for every stage.

    `block` (from 1), `time`, `end_time` (M,); `field_extent` (4,), `velocity` (M, cells, cells, 2), `divergence`
    (M, cells, cells); `columns` (1, 2). `sample_divergence` and `sample_speed` (M, n), what colours are scaled by,
    at samples on their way; left out where their paths cannot be solved.
    """
    grid = grids.make_grid(square_window(rows, DATA_MARGIN, NOISE_REACH), CELLS)
    places = list(product(range(len(flow.chain())), SHARES))
    times = [grids.moment(flow, block, share) for block, share in places]
    fields = [grids.field_at(flow, when, grid.points) for when in times]
    arrays = {
        "block": np.array([when.block + 1 for when in times]),
        "time": np.array([when.time for when in times]),
        "end_time": np.array([when.end_time for when in times]),
        "columns": np.array([[1, 2]]),
        "field_extent": np.array(grid.extent),
        "velocity": np.stack([velocity.reshape(CELLS, CELLS, 2) for velocity, _ in fields]),
        "divergence": np.stack([trace.reshape(CELLS, CELLS) for _, trace in fields]),
    }
    noise = numpy_generator(0, "glance").standard_normal((SCALED, 2))
    clock = [len(flow.chain()), *(block + share for block, share in reversed(places))]
    solver = Solver("dopri5", TOLERANCE, TOLERANCE, max_nfe=MAX_NFE)
    try:
        states = grids.path(grids.bounded(flow, FAR), noise, clock, solver)[:0:-1]
    except SolveFailed:
        return arrays
    found = [grids.field_at(flow, when, z) for when, z in zip(times, states, strict=True)]
    return arrays | {
        "sample_divergence": np.stack([trace for _, trace in found]),
        "sample_speed": np.stack([np.linalg.norm(f, axis=1) for f, _ in found]),
    }
