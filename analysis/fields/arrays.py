"""What the pictures of one stage are drawn from: arrays, and the numbers that go with them."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.fields.projection import Array, Pair, cell_means, choose_pairs
from analysis.runs.results import Report, Result
from sparseflows.data.splits import Splits
from sparseflows.evaluation.likelihood import subset
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import SolveFailed, Solver
from sparseflows.plot import grids
from sparseflows.plot.windows import square_window, window
from sparseflows.rng import numpy_generator

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of T: the times at which a block's field is shown
PREVIEW_SHARES, PREVIEW_CELLS = (0.0, 0.5, 1.0), 64
FIELD_CELLS, DENSITY_CELLS, COUNT_CELLS, PROJECTED_CELLS = 96, 100, 50, 16
SAMPLES, PATHS, PATH_TIMES, ROWS = 2000, 128, 61, 2000
NOISE_REACH = 3.2  # 99.4 % of two-dimensional standard noise is nearer to the origin than that
DATA_MARGIN = 0.15
SCALED = 500  # samples that the colour scale is taken from
OUTERMOST = 0.005  # share of the rows that may lie outside a pair's window, on either side
AT_LEAST = 3  # rows in a cell whose mean is shown
FAR = 10.0  # where the paths of a plane are slowed down; see `grids.bounded`
TOLERANCE = 1e-4  # of the paths' solves: well below what a picture resolves
DENSITY_TOLERANCE = 1e-3  # measured against 1e-5: peak and mass move by 2e-4 of themselves, in half the time
SOLVER = Solver("dopri5", TOLERANCE, TOLERANCE, max_nfe=50_000)


def field_arrays(
    flow: Flow, splits: Splits, report: Report, seed: int = 0, frames: int = 40, pairs: Sequence[Pair] | None = None
) -> Result:
    """The values and arrays of one stage.

    Arrays of all: `block` (from 1), `time`, `end_time` (M,): the moments whose field is shown;
    `rows` (P, n, 2): data in each pair of columns; `frames` (F, N, 2) and `frames_clock` (F,): samples on
    their way from noise to data in the first pair; `paths` (P, K, n, 2), `paths_clock` (K,): a few of them;
    `samples` (P, N, 2); a path that cannot be solved is NaN from there on; `columns` (P, 2), counted from 1, and
    `names` (P, 2) of a table whose columns have any. For two columns P = 1; see `_plane` and `_pairs` for the rest.
    Everything is in standardised coordinates.

    Values: `mass_on_grid` (two columns); `cells_left_out` (two columns: share of the density's cells that
    hold no sample and were too hard to solve; their density counts as 0, as that of cells that cannot be solved);
    `max_abs_divergence` (nats per unit of t; on the grid, or at the rows); `mean_speed` (mean |f| along the
    sample paths, standardised units per unit of t); `times`, `blocks`; `extent` of the field's window (one a
    pair, for more than two columns); `columns` (more than two).

    `seed` is that of the noise that is carried to data and of the rows that are shown, `frames` counts the states of
    the animation; `pairs` of columns, from 0, are shown where there are more than two; None chooses by correlation.

    Raises:
        RunError: most of its paths, or of the density's cells, cannot be solved.
    """
    plane = splits.train.shape[1] == 2
    pairs = [(0, 1)] if plane else pairs or choose_pairs(np.asarray(splits.train))
    rows = _shown_rows(splits, seed)
    noise = numpy_generator(seed, "field/samples").standard_normal((SAMPLES, splits.train.shape[1]))
    moving, speed = _samples(grids.bounded(flow, FAR) if plane else flow, noise, pairs, frames)
    common = moving | moments(flow, SHARES) | {"rows": _in_pairs(rows, pairs)} | named(flow, pairs)
    if plane:
        values, arrays = _plane(flow, splits, noise, moving["samples"][0], report)
    else:
        values, arrays = _pairs(flow, rows, pairs, report)
    values |= {"mean_speed": speed, "times": common["time"].tolist(), "blocks": common["block"].tolist()}
    arrays |= common
    # Single precision holds more than any picture shows, in half the space.
    large = {name: one for name, one in arrays.items() if one.dtype == np.float64 and one.size > 1000}
    return Result(values, arrays | {name: one.astype(np.float32) for name, one in large.items()})


def preview_arrays(flow: Flow, rows: Array) -> dict[str, Array]:
    """The field of a flow in two dimensions on a small grid, at few moments: a picture in half a second.

    Those of `named`, `moments`, `on_grid` and, unless their paths cannot be solved, `at_samples`.
    Standardised rows (N, 2) and the noise set the window, which is the same for every stage.
    """
    grid = grids.make_grid(square_window(rows, DATA_MARGIN, NOISE_REACH), PREVIEW_CELLS)
    arrays = moments(flow, PREVIEW_SHARES) | on_grid(flow, grid, PREVIEW_SHARES) | named(flow, [(0, 1)])
    with contextlib.suppress(SolveFailed):
        arrays |= at_samples(flow, numpy_generator(0, "glance").standard_normal((SCALED, 2)), PREVIEW_SHARES)
    return arrays


def named(flow: Flow, pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """`columns` (P, 2) from 1, of `pairs` from 0; and `names` (P, 2), where the flow's table has them."""
    names = getattr(flow, "columns", None)  # older pickles lack it
    found = {"columns": np.array(pairs) + 1}
    return found | {"names": np.array([[names[i], names[j]] for i, j in pairs])} if names else found


def solved(states: Array) -> NDArray[np.bool_]:
    """Which paths (N,) of states (K, N, D) are finite all along."""
    return np.asarray(np.isfinite(states).all(axis=(0, 2)))


def times(flow: Flow, shares: Sequence[float]) -> list[grids.Moment]:
    """The moments at those shares of T of every block."""
    return [grids.moment(flow, block, share) for block in range(len(flow.chain())) for share in shares]


def moments(flow: Flow, shares: Sequence[float]) -> dict[str, Array]:
    """`block` (from 1), `time` and `end_time` (M,) of `times`."""
    block, time, end_time = (np.array(values) for values in zip(*times(flow, shares), strict=True))
    return {"block": block + 1, "time": time, "end_time": end_time}


def on_grid(flow: Flow, grid: grids.Grid, shares: Sequence[float]) -> dict[str, Array]:
    """`field_extent` (4,), `velocity` (M, cells, cells, 2) and `divergence` (M, cells, cells) at `times`."""
    fields = [grids.field_at(flow, when, grid.points) for when in times(flow, shares)]
    side = len(grid.axis_x)
    return {
        "field_extent": np.array(grid.extent),
        "velocity": np.stack([velocity.reshape(side, side, 2) for velocity, _ in fields]),
        "divergence": np.stack([trace.reshape(side, side) for _, trace in fields]),
    }


def at_samples(flow: Flow, noise: Array, shares: Sequence[float]) -> dict[str, Array]:
    """What colours are scaled by: `sample_divergence` and `sample_speed` (M, n) where noise (n, 2) is at `times`.

    Raises:
        SolveFailed: most of its paths cannot be solved.
    """
    clock = [block + share for block in range(len(flow.chain())) for share in shares]
    states = grids.path(grids.bounded(flow, FAR), noise, [len(flow.chain()), *reversed(clock)], SOLVER)[:0:-1]
    states = states[:, solved(states)]
    found = [grids.field_at(flow, when, z) for when, z in zip(times(flow, shares), states, strict=True)]
    return {
        "sample_divergence": np.stack([divergence for _, divergence in found]),
        "sample_speed": np.stack([np.linalg.norm(f, axis=1) for f, _ in found]),
    }


def _plane(
    flow: Flow, splits: Splits, noise: Array, samples: Array, report: Report
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Two columns: the field and its divergence on a grid, the density beside the true one.

    Arrays: those of `at_samples` and `on_grid`; `density_extent` (4,), `density` (cells, cells), and `truth`: the
    true density on the same cells, or, where that is not known, the test rows counted in wider cells;
    `truth_is_known` says which.
    """
    everything = np.concatenate([splits.train, splits.validation, splits.test])
    grid = grids.make_grid(square_window(everything, DATA_MARGIN, NOISE_REACH), FIELD_CELLS)
    field = on_grid(flow, grid, SHARES)
    around = grids.make_grid(square_window(everything, DATA_MARGIN), DENSITY_CELLS)
    needed = np.zeros(len(around.points), dtype=bool)
    for shown in (everything, samples[np.isfinite(samples).all(axis=1)]):
        _, counts = cell_means(shown, np.zeros((len(shown), 1)), around.extent, DENSITY_CELLS)
        needed |= counts.ravel() > 0
    solver = SOLVER.at(DENSITY_TOLERANCE)
    log_density = grids.log_density(flow, around, solver, "float32", report, needed, FAR)
    density = np.exp(log_density).reshape(DENSITY_CELLS, DENSITY_CELLS)
    values = {
        "mass_on_grid": float(np.nansum(density) * around.area),
        "cells_left_out": float(np.isneginf(log_density).mean()),
        "max_abs_divergence": float(np.abs(field["divergence"]).max()),
        "extent": list(grid.extent),
    }
    return values, at_samples(flow, noise[:SCALED], SHARES) | field | {
        "density_extent": np.array(around.extent),
        "density": density,
        "truth": _truth(splits, around),
        "truth_is_known": np.array(splits.log_prob_true is not None),
    }


def _truth(splits: Splits, around: grids.Grid) -> Array:
    if splits.log_prob_true is not None:
        side = len(around.axis_x)
        return np.exp(splits.log_prob_true(around.points)).reshape(side, side)
    wide = grids.make_grid(around.extent, COUNT_CELLS)
    _, counts = cell_means(np.asarray(splits.test), np.zeros((len(splits.test), 1)), around.extent, COUNT_CELLS)
    return counts / (len(splits.test) * wide.area)


def _pairs(flow: Flow, rows: Array, pairs: Sequence[Pair], report: Report) -> tuple[dict[str, Any], dict[str, Array]]:
    """More columns: the field's components i, j at rows carried to the time, averaged over cells of (z_i, z_j).

    Arrays: `field_extent` (P, 4), `velocity` (P, M, cells, cells, 2), `divergence` (P, M, cells, cells): the
    cells' means, NaN where there are too few rows, of f's two components and of tr ∂f/∂z over all columns;
    `rows_extent` (P, 4): the window on data and samples.
    """
    shape = (len(pairs), len(flow.chain()) * len(SHARES), PROJECTED_CELLS, PROJECTED_CELLS)
    velocity, trace = np.full((*shape, 2), np.nan), np.full(shape, np.nan)
    windows = [window(rows[:, pair], OUTERMOST, DATA_MARGIN, NOISE_REACH) for pair in pairs]
    z, largest = grids.to_first_block(flow, rows), 0.0
    for index, when in enumerate(times(flow, SHARES)):
        block, share = divmod(index, len(SHARES))
        if share:
            z = grids.path(flow, z, [block + SHARES[share - 1], block + SHARES[share]], SOLVER)[-1]
        z = z[solved(z[None])]
        f, divergence = grids.field_at(flow, when, z)
        largest = max(largest, float(np.abs(divergence).max()))
        for number, pair in enumerate(pairs):
            both = np.column_stack([f[:, pair], divergence])
            means, _ = cell_means(z[:, pair], both, windows[number], PROJECTED_CELLS, AT_LEAST)
            velocity[number, index], trace[number, index] = means[..., :2], means[..., 2]
        report(index + 1, shape[1])
    values = {
        "max_abs_divergence": largest,
        "extent": [list(one) for one in windows],
        "columns": [[i + 1, j + 1] for i, j in pairs],
    }
    around = [window(rows[:, pair], OUTERMOST, DATA_MARGIN) for pair in pairs]
    return values, {
        "field_extent": np.array(windows),
        "velocity": velocity,
        "divergence": trace,
        "rows_extent": np.array(around),
    }


def _samples(flow: Flow, noise: Array, pairs: Sequence[Pair], frames: int) -> tuple[dict[str, Array], float]:
    # Noise carried to data: all of it at the frames' times, some of it at closer ones; and the mean speed.
    blocks = len(flow.chain())
    clock, closer = np.linspace(blocks, 0, frames), np.linspace(blocks, 0, PATH_TIMES)
    states = grids.path(flow, noise, clock.tolist(), SOLVER)
    paths = grids.path(flow, noise[:PATHS], closer.tolist(), SOLVER)
    speeds = []
    for time, z in zip(closer, paths, strict=True):
        block = min(int(time), blocks - 1)
        f, _ = grids.field_at(flow, grids.moment(flow, block, float(time) - block), z)
        speeds.append(np.nanmean(np.linalg.norm(f, axis=1)))
    states[-1], paths[-1] = (grids.to_data_coordinates(flow, last) for last in (states[-1], paths[-1]))
    arrays = {
        "frames": _in_pairs(states, pairs[:1])[0],
        "frames_clock": clock,
        "paths": _in_pairs(paths, pairs),
        "paths_clock": closer,
        "samples": _in_pairs(states[-1], pairs),
    }
    return arrays, float(np.mean(speeds))


def _shown_rows(splits: Splits, seed: int) -> Array:
    # Test rows; a table's few are filled up with validation and training rows, for it is a picture of the data.
    parts, wanted = [], ROWS
    for name, part in (("test", splits.test), ("validation", splits.validation), ("train", splits.train)):
        if wanted > 0:
            parts.append(subset(part, wanted, seed, f"field/{name}"))
            wanted -= len(parts[-1])
    return np.concatenate(parts)


def _in_pairs(rows: Array, pairs: Sequence[Pair]) -> Array:
    return np.stack([rows[..., list(pair)] for pair in pairs])
