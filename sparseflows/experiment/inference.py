"""A trained stage put to use: samples, scores and maps, from and to the data's own coordinates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.tables.tabular import Standardiser, load_points
from sparseflows.errors import InputError, RunError
from sparseflows.experiment.folder.folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from sparseflows.flow.model import Flow
    from sparseflows.flow.solvers.ode import Solver

Array = NDArray[np.float64]

# Rows solved together share their steps, and fail together where one path runs off. It nearly always starts far
# out: so the outermost are solved by themselves.
_OUTERMOST, _TOGETHER = 0.01, 4096
# Standard deviations of the data. What is beyond the second does not come back (float32 reaches 3e38 much later);
# what is beyond the first by then may follow it, and is solved apart.
_SUSPECT, _RUN_OFF = 100.0, 1e6
_LOST_SHARE, _LOST_AT_LEAST = 0.01, 10


def draw_samples(run: Path, stage: str, n: int, seed: int) -> Array:
    """n samples (n, D) in the data's own coordinates; equal seeds give equal samples.

    Raises:
        InputError: not a run folder, no such stage.
        RunError: the solver failed.
    """
    folder = _open(run)
    flow, _, standardiser = _load(folder, stage, None, None)
    noise = _noise(n, len(standardiser.shift), seed)
    return standardiser.invert(_carry(flow, noise, reverse=True))


def draw_standardised(
    flow: Flow, dim: int, n: int, seed: int, report: Callable[[int, int], None] | None = None
) -> Array:
    """The same n samples (n, D) in standardised coordinates, of a flow that is loaded already; NaN where one is lost.

    A field that was learnt from data says little of what lies far outside them, and from there a path may
    run off to infinity: one in thousands, of flows that are fine otherwise. `draw_samples` then has nothing
    to give back; here such a path is stopped, and its row is NaN.

    Args:
        flow: its own solver is used.
        dim: D.
        n: samples.
        seed: equal seeds give equal samples.
        report: told after each chunk how many samples are done, of how many.

    Raises:
        SolveFailed: the solver ran out of steps, or more than 1 % of the samples (and more than 10) are lost.
    """
    import torch

    from sparseflows.flow.solvers.ode import SolveFailed, Status

    like = next(flow.parameters())
    noise = torch.as_tensor(_noise(n, dim, seed), dtype=like.dtype, device=like.device)
    outwards = noise.square().sum(1).argsort()
    inner = n - int(n * _OUTERMOST)
    places = [rows for part in (outwards[inner:], outwards[:inner]) for rows in part.split(_TOGETHER) if len(rows)]
    samples = torch.full_like(noise, math.nan)
    done, lost = 0, 0
    while places:
        rows = places.pop()
        try:
            with torch.no_grad(), _watched(flow) as sizes:
                samples[rows] = flow.to_data(noise[rows])
            done += len(rows)
        except SolveFailed as failure:
            if failure.status is Status.OUT_OF_STEPS:  # the search would take hours
                raise
            size = sizes.pop() if sizes else torch.zeros(len(rows))
            off = ~(size <= _RUN_OFF) if len(rows) > 1 else torch.ones(1, dtype=torch.bool)
            if off.any():
                suspect = ~off & (size > _SUSPECT)
                parts = [rows[suspect], rows[~off & ~suspect]]
            else:
                parts = [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            places += [part for part in parts if len(part)]
            lost, done = lost + int(off.sum()), done + int(off.sum())
            if lost > max(_LOST_AT_LEAST, n * _LOST_SHARE):
                raise
        if report is not None:
            report(done, n)
    drawn: Array = samples.double().cpu().numpy()
    return drawn


@contextlib.contextmanager
def _watched(flow: Flow) -> Iterator[list[Tensor]]:
    # Solves of `flow` fail as soon as a path runs off; the list then has the largest coordinate of every row (B,).
    from sparseflows.flow.solvers.ode import SolveFailed, Status

    sizes: list[Tensor] = []

    def check(field: Any, arguments: tuple[Any, ...]) -> None:
        size = arguments[1].abs().amax(1)
        if not bool(size.max() <= _RUN_OFF):
            sizes.append(size)
            raise SolveFailed(Status.NON_FINITE, 0)

    hooks = [field.register_forward_pre_hook(check) for field in flow.fields()]
    try:
        yield sizes
    finally:
        for hook in hooks:
            hook.remove()


def score_points(
    run: Path, stage: str, points: Path, coordinates: str, tol: float | None, dtype: str | None
) -> tuple[Array, dict[str, Any]]:
    """log p (N,) of a file's rows, and `nll, nll_se, n, nfe, log_scale`.

    Args:
        run: run folder.
        stage: as `load` takes it.
        points: .npy or .csv, in the data's own coordinates.
        coordinates: of the density: `standardised`, or `data`, which subtracts log_scale = Σ log s.
        tol: rtol = atol, or None for the run's own.
        dtype: precision of the solve, or None for the run's own.
    """
    folder = _open(run)
    own = load_points(points, len(folder.read_data()["shift"]))
    flow, precision, standardiser = _load(folder, stage, tol, dtype)
    rows = standardiser.apply(own)
    from sparseflows.evaluation.likelihood import likelihood, standard_error
    from sparseflows.flow.solvers.ode import Status

    found = likelihood(flow, rows, flow.solver, precision)
    if found.status is not Status.DONE:
        raise RunError(f"{folder.path}: the likelihood of {points} cannot be computed: {found.status.value}")
    if not np.isfinite(found.log_prob).all():
        row = int(np.argmin(np.isfinite(found.log_prob))) + 1
        raise RunError(f"{points}: log p of row {row} is not finite: it lies too far from the training data")
    log_prob = found.log_prob - (standardiser.log_scale if coordinates == "data" else 0.0)
    error = standard_error(log_prob)
    summary = {
        "nll": float(-log_prob.mean()),
        "nll_se": error if math.isfinite(error) else None,
        "n": len(log_prob),
        "nfe": found.nfe,
        "log_scale": standardiser.log_scale,
    }
    return log_prob, summary


def carry_points(run: Path, stage: str, points: Path, to: str, tol: float | None, dtype: str | None) -> Array:
    """Rows of a file carried to `noise` (from the data's own coordinates) or to `data` (into them): (N, D)."""
    folder = _open(run)
    rows = load_points(points, len(folder.read_data()["shift"]))
    # Not the run's own precision: there and back, float32 loses a hundred times what the tolerance allows.
    flow, precision, standardiser = _load(folder, stage, tol, dtype or "float64")
    from sparseflows.evaluation.likelihood import as_dtype

    precise = as_dtype(flow, _torch_dtype(precision))
    precise.solver = flow.solver
    if to == "noise":
        return _carry(precise, standardiser.apply(rows), reverse=False)
    return standardiser.invert(_carry(precise, rows, reverse=True))


def _open(run: Path) -> RunFolder:
    folder = RunFolder.open(run)
    if folder.spec.train.objective == "cross_entropy":
        raise InputError(f"{folder.path}: a classifier has no density to sample from or to score; give a flow's run")
    return folder


def _load(folder: RunFolder, stage: str, tol: float | None, dtype: str | None) -> tuple[Flow, str, Standardiser]:
    from sparseflows.experiment.loading import find, load

    record = find(folder, stage)
    flow = load(folder.path, f"{record.cascade}/{record.stage}")
    settings = folder.spec.evaluate
    solver: Solver = flow.solver if tol is None else replace(flow.solver, rtol=tol, atol=tol, max_nfe=200_000)
    flow.solver = solver
    return flow, dtype or settings.dtype, folder.standardiser(record.seed)


def _torch_dtype(name: str) -> Any:
    import torch

    return torch.float64 if name == "float64" else torch.float32


def _noise(n: int, dim: int, seed: int) -> Array:
    from sparseflows.rng import numpy_generator

    return numpy_generator(seed, "sample").standard_normal((n, dim))


def _carry(flow: Flow, rows: Array, reverse: bool) -> Array:
    import torch

    from sparseflows.evaluation.likelihood import rows_per_chunk

    like = next(flow.parameters())
    chunk = rows_per_chunk(flow, 0)  # no tangents here
    with torch.no_grad():
        points = torch.as_tensor(rows, dtype=like.dtype, device=like.device)
        carry = flow.to_data if reverse else flow.to_noise
        moved: Array = torch.cat([carry(part) for part in points.split(chunk)]).double().cpu().numpy()
    return moved
