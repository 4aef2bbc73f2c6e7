"""A trained stage put to use: samples, scores and maps, from and to the data's own coordinates."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.tables.choosing import Expected
from sparseflows.data.tables.loading import Table, load_points
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import InputError, RunError
from sparseflows.experiment.folder.choosing import find
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.splitting import reading_of
from sparseflows.rng import derived_seed

if TYPE_CHECKING:
    from sparseflows.flow.model import Flow

Array = NDArray[np.float64]
SHOWN = 5  # rows named in a message


class Outside(NamedTuple):
    """Rows of a file that a map of `data.transform` does not take: which (N,), and what is wrong with the first few."""

    rows: NDArray[np.bool_]
    faults: tuple[str, ...]


def draw_samples(run: Path, stage: str, n: int, seed: int) -> tuple[Array, int]:
    """n samples (n, D) in the data's own coordinates, and how many draws ran off and were drawn again.

    Equal seeds give equal samples.

    Raises:
        InputError: not a run folder, no such stage.
        RunError: the solver failed.
    """
    folder = _open(run)
    record = find(folder, stage)
    flow, _, standardiser = _load(folder, record, None, None)
    from sparseflows.evaluation.sampling import carry, noise_rows
    from sparseflows.flow.draws import REDRAWS, RUN_OFF

    drawn, lost = carry(flow, noise_rows(n, len(standardiser.shift), seed), reverse=True), 0
    for again in range(REDRAWS):
        off = ~(np.abs(drawn).max(1) <= RUN_OFF)
        if not off.any():
            return standardiser.invert(drawn), lost
        count = int(off.sum())
        more = noise_rows(count, drawn.shape[1], derived_seed(seed, f"sample/again/{again}"))
        drawn[off], lost = carry(flow, more, reverse=True), lost + count
    raise RunError(f"{folder.path}: {int(off.sum())} of {n} samples run off to infinity each time they are drawn")


def score_points(
    run: Path, stage: str, points: Path, coordinates: str, tol: float | None, dtype: str | None
) -> tuple[Array, dict[str, Any], Outside]:
    """log p (N,) of a file's rows, and `nll, nll_se, n, nfe, log_scale, rows_infinite, rows_unsolved, nll_finite`.

    A row beyond all numbers has −inf, one that cannot be solved NaN, and so has one with a missing value, where the run
    was trained without such rows. A row that a map of `data.transform` does not take (a logarithm of −3) has −inf: the
    flow has no density there; these rows come third. `nll` is over all rows: None where one of them is infinite or
    unsolved; `nll_finite` is over the others.

    Args:
        run: run folder.
        stage: as `load` takes it.
        points: .npy or .csv, in the data's own coordinates.
        coordinates: of the density: `standardised`, or `data`, which subtracts log_scale = Σ log s.
        tol: rtol = atol, or None for the run's own.
        dtype: precision of the solve, or None for the run's own.
    """
    folder = _open(run)
    own, record = _read_points(folder, points), find(folder, stage)
    flow, precision, standardiser = _load(folder, record, tol, dtype)
    rows, outside = _taken(standardiser, own)
    from sparseflows.evaluation.likelihood import Likelihood, likelihood

    log_prob = np.where(np.isnan(own.values).any(axis=1), np.nan, -np.inf)
    reached = np.isfinite(rows).all(axis=1)
    rows = rows[reached]
    found = likelihood(flow, rows, flow.solver, precision)
    log_prob[reached] = (
        found.log_prob + standardiser.log_slope(rows) - (standardiser.log_scale if coordinates == "data" else 0.0)
    )
    shown = Likelihood(log_prob, found.nfe, found.status)
    whole = len(shown.finite) == len(log_prob)
    summary = {
        "nll": shown.nll if whole else None,
        "nll_se": shown.se if whole and math.isfinite(shown.se) else None,
        "n": len(log_prob),
        "nfe": found.nfe,
        "log_scale": standardiser.log_scale,
        "rows_infinite": shown.rows_infinite,
        "rows_unsolved": shown.rows_unsolved,
        "nll_finite": shown.nll if len(shown.finite) else None,
    }
    return log_prob, summary, outside


def carry_points(
    run: Path, stage: str, points: Path, to: str, tol: float | None, dtype: str | None
) -> tuple[Array, Outside]:
    """Rows of a file carried to `noise` (from the data's own coordinates) or to `data` (into them): (N, D).

    A row that cannot be solved is NaN, one beyond all numbers infinite. So is a row NaN that a map of `data.transform`
    does not take: no noise belongs to it; these rows come second.
    """
    folder = _open(run)
    own, record = _read_points(folder, points, to == "data"), find(folder, stage)
    # Not the run's own precision: there and back, float32 loses a hundred times what the tolerance allows.
    flow, precision, standardiser = _load(folder, record, tol, dtype or "float64")
    from sparseflows.evaluation.sampling import carry

    if to == "noise":
        rows, outside = _taken(standardiser, own)
        noise = np.full(rows.shape, np.nan)
        noise[~outside.rows] = carry(flow, rows[~outside.rows], dtype=precision)
        return noise, outside
    moved = standardiser.invert(carry(flow, own.values, reverse=True, dtype=precision))
    return moved, Outside(np.zeros(len(moved), dtype=bool), ())


def column_names(run: Path) -> tuple[str, ...] | None:
    """The names of the columns that a run was trained on, where its file had any."""
    names = RunFolder.open(run).read_data().get("columns")
    return None if names is None else tuple(names)


def _read_points(folder: RunFolder, points: Path, noise: bool = False) -> Table:
    """The rows of a file in the run's columns, found by their names where both have any; those of noise by place."""
    kept = folder.read_data()
    names = None if noise or kept.get("columns") is None else tuple(kept["columns"])
    table = load_points(points, Expected(len(kept["shift"]), names), reading_of(folder.spec.data))
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    return table


def _taken(standardiser: Standardiser, own: Table) -> tuple[Array, Outside]:
    """A file's rows (N, D) in the flow's coordinates, and which of them a map does not take: those hold NaN."""
    rows = standardiser.try_apply(own.values)
    outside = np.isnan(rows).any(axis=1) & ~np.isnan(own.values).any(axis=1)
    first = np.flatnonzero(outside)[:SHOWN]
    return rows, Outside(outside, tuple(standardiser.fault(own.values[row], own.called) for row in first))


def _open(run: Path) -> RunFolder:
    folder = RunFolder.open(run)
    if folder.spec.train.objective == "cross_entropy":
        raise InputError(f"{folder.path}: a classifier has no density to sample from or to score; give a flow's run")
    return folder


def _load(folder: RunFolder, record: Record, tol: float | None, dtype: str | None) -> tuple[Flow, str, Standardiser]:
    from sparseflows.experiment.loading import load

    flow = load(folder.path, f"{record.cascade}/{record.stage}")
    if tol is not None:
        flow.solver = replace(flow.solver, rtol=tol, atol=tol, max_nfe=200_000)
    return flow, dtype or folder.spec.evaluate.dtype, folder.standardiser(record.seed)
