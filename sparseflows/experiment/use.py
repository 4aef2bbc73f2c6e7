"""A trained stage put to use: samples, scores and maps, from and to the data's own coordinates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.tabular import Standardiser, load_points
from sparseflows.errors import RunError
from sparseflows.experiment.store import RunFolder

if TYPE_CHECKING:
    from sparseflows.flow.model import Flow
    from sparseflows.flow.ode import Solver

Array = NDArray[np.float64]


def draw_samples(run: Path, stage: str, n: int, seed: int) -> Array:
    """n samples (n, D) in the data's own coordinates; equal seeds give equal samples.

    Raises:
        InputError: not a run folder, no such stage.
        RunError: the solver failed.
    """
    folder = RunFolder.open(run)
    standardiser = Standardiser.from_dict(folder.read_data())
    flow, _ = _load(folder, stage, None, None)
    noise = _noise(n, len(standardiser.shift), seed)
    return standardiser.invert(_carry(flow, noise, reverse=True))


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
    folder = RunFolder.open(run)
    standardiser = Standardiser.from_dict(folder.read_data())
    rows = standardiser.apply(load_points(points, len(standardiser.shift)))
    flow, precision = _load(folder, stage, tol, dtype)
    from sparseflows.evaluation import likelihood, standard_error
    from sparseflows.flow.ode import Status

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
    folder = RunFolder.open(run)
    standardiser = Standardiser.from_dict(folder.read_data())
    rows = load_points(points, len(standardiser.shift))
    # Not the run's own precision: there and back, float32 loses a hundred times what the tolerance allows.
    flow, precision = _load(folder, stage, tol, dtype or "float64")
    from sparseflows.evaluation import as_dtype

    precise = as_dtype(flow, _torch_dtype(precision))
    precise.solver = flow.solver
    if to == "noise":
        return _carry(precise, standardiser.apply(rows), reverse=False)
    return standardiser.invert(_carry(precise, rows, reverse=True))


def _load(folder: RunFolder, stage: str, tol: float | None, dtype: str | None) -> tuple[Flow, str]:
    from sparseflows.experiment.loading import load

    flow = load(folder.path, stage)
    settings = folder.spec.evaluate
    solver: Solver = flow.solver if tol is None else replace(flow.solver, rtol=tol, atol=tol, max_nfe=200_000)
    flow.solver = solver
    return flow, dtype or settings.dtype


def _torch_dtype(name: str) -> Any:
    import torch

    return torch.float64 if name == "float64" else torch.float32


def _noise(n: int, dim: int, seed: int) -> Array:
    from sparseflows.rng import numpy_generator

    return numpy_generator(seed, "sample").standard_normal((n, dim))


def _carry(flow: Flow, rows: Array, reverse: bool) -> Array:
    import torch

    from sparseflows.evaluation import rows_per_chunk

    like = next(flow.parameters())
    chunk = rows_per_chunk(flow, rows.shape[1])
    with torch.no_grad():
        points = torch.as_tensor(rows, dtype=like.dtype, device=like.device)
        carry = flow.to_data if reverse else flow.to_noise
        moved: Array = torch.cat([carry(part) for part in points.split(chunk)]).double().cpu().numpy()
    return moved
