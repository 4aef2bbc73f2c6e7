"""Samples of a flow, and points carried through it, as they are reported: by the flow's own solver, in chunks."""

import math
from collections.abc import Callable

import numpy as np
import torch

from sparseflows.errors import RunError
from sparseflows.evaluation.likelihood import Array, as_dtype, as_points, rows_per_chunk
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.draws import REDRAWS, lost_draws, ran_off
from sparseflows.flow.rows import carry_rows
from sparseflows.rng import numpy_generator

Report = Callable[[int, int], None]
"""It is told how many are done, of how many."""

# torchdiffeq solves rows together, on the same steps. A path that runs off nearly always starts far out: so the
# outermost go by themselves, and cost the others nothing.
OUTERMOST, TOGETHER = 0.01, 4096
MOST_LOST, LOST_AT_LEAST = 0.5, 10  # of the samples: a flow that loses more is no model of anything


def noise_rows(n: int, dim: int, seed: int) -> Array:
    """Standard normal rows (n, D) that samples start from; equal seeds give equal rows."""
    return numpy_generator(seed, "sample").standard_normal((n, dim))


@torch.no_grad()
def carry(flow: BaseFlow, rows: Array, *, reverse: bool = False, dtype: str | None = None) -> Array:
    """Rows (N, D) carried from data to noise, or from noise to data with `reverse`: (N, D).

    A row that cannot be solved is NaN, one beyond all numbers infinite.

    Args:
        flow: its own solver is used.
        rows: in standardised coordinates where they are data.
        reverse: noise to data.
        dtype: float32 or float64; None is the flow's own precision.
    """
    precise = flow if dtype is None else as_dtype(flow, dtype)
    chunks = as_points(precise, rows).split(rows_per_chunk(precise, 0))  # no tangents here
    found = [carry_rows(precise, part, precise.solver, reverse=reverse, divergence=None).points for part in chunks]
    moved: Array = torch.cat(found).double().cpu().numpy()
    return moved


@torch.no_grad()
def draw_standardised(flow: BaseFlow, dim: int, n: int, seed: int, report: Report | None = None) -> Array:
    """n samples (n, D) in standardised coordinates; the row of one that is lost is NaN.

    A field that was learnt from data says little of what lies far outside them, and from there a path may
    run off to infinity: one in thousands, of flows that are fine otherwise.

    Args:
        flow: its own solver is used.
        dim: D.
        n: samples.
        seed: equal seeds give equal samples, those that `carry` makes of `noise_rows`.
        report: told after each chunk how many samples are done, of how many.

    Raises:
        RunError: more than half of the samples are lost (and more than 10); SolveFailed where they cannot be solved.
    """
    noise = as_points(flow, noise_rows(n, dim, seed))
    outwards = noise.square().sum(1).argsort()
    inner = n - int(n * OUTERMOST)
    places = [rows for part in (outwards[inner:], outwards[:inner]) for rows in part.split(TOGETHER) if len(rows)]
    samples = torch.full_like(noise, math.nan)
    done, lost = 0, 0
    for rows in reversed(places):
        found = carry_rows(flow, noise[rows], flow.solver, reverse=True, divergence=None)
        off = ran_off(found.points)
        samples[rows] = found.points.masked_fill(off.unsqueeze(1), math.nan)
        done, lost = done + len(rows), lost + int(off.sum())
        if lost > max(LOST_AT_LEAST, n * MOST_LOST):
            raise lost_draws(found.status, found.nfe, f"{lost} of {n} samples")
        if report is not None:
            report(done, n)
    drawn: Array = samples.double().cpu().numpy()
    return drawn


def draw_again(flow: BaseFlow, dim: int, n: int, seed: Callable[[], int]) -> tuple[Array, int]:
    """n samples (n, D) in standardised coordinates, and how many draws were lost on the way.

    What is lost is drawn again, each time with a new `seed`.

    Raises:
        RunError: as `draw_standardised`, or some are lost each time.
    """
    drawn, total = draw_standardised(flow, dim, n, seed()), 0
    for _ in range(REDRAWS):
        lost = np.isnan(drawn).any(1)
        if not lost.any():
            return drawn, total
        total += int(lost.sum())
        drawn[lost] = draw_standardised(flow, dim, int(lost.sum()), seed())
    raise RunError(f"{int(lost.sum())} of {n} samples run off to infinity each time; train longer, or prune less")
