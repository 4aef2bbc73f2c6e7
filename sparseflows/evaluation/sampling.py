"""Samples of a flow, and points carried through it, as they are reported: by the flow's own solver, in chunks."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseflows.errors import RunError
from sparseflows.evaluation.likelihood import Array, as_dtype, as_points, rows_per_chunk
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.solvers.ode import SolveFailed, Status
from sparseflows.rng import numpy_generator

Report = Callable[[int, int], None]
"""It is told how many are done, of how many."""

# Rows solved together share their steps, and fail together where one path runs off. It nearly always starts far
# out: so the outermost are solved by themselves.
OUTERMOST, TOGETHER = 0.01, 4096
# Standard deviations of the data. What is beyond the second does not come back (float32 reaches 3e38 much later);
# what is beyond the first by then may follow it, and is solved apart.
SUSPECT, RUN_OFF = 100.0, 1e6
LOST_SHARE, LOST_AT_LEAST = 0.01, 10
REDRAWS = 20  # of samples that are lost, before it is given up


def noise_rows(n: int, dim: int, seed: int) -> Array:
    """Standard normal rows (n, D) that samples start from; equal seeds give equal rows."""
    return numpy_generator(seed, "sample").standard_normal((n, dim))


@torch.no_grad()
def carry(flow: BaseFlow, rows: Array, *, reverse: bool = False, dtype: str | None = None) -> Array:
    """Rows (N, D) carried from data to noise, or from noise to data with `reverse`: (N, D).

    Args:
        flow: its own solver is used.
        rows: in standardised coordinates where they are data.
        reverse: noise to data.
        dtype: float32 or float64; None is the flow's own precision.

    Raises:
        SolveFailed: a chunk did not reach its end.
    """
    precise = flow if dtype is None else as_dtype(flow, dtype)
    move = precise.to_data if reverse else precise.to_noise
    chunks = as_points(precise, rows).split(rows_per_chunk(precise, 0))  # no tangents here
    moved: Array = torch.cat([move(part) for part in chunks]).double().cpu().numpy()
    return moved


@torch.no_grad()
def draw_standardised(flow: BaseFlow, dim: int, n: int, seed: int, report: Report | None = None) -> Array:
    """n samples (n, D) in standardised coordinates; the row of one that is lost is NaN.

    A field that was learnt from data says little of what lies far outside them, and from there a path may
    run off to infinity: one in thousands, of flows that are fine otherwise. `carry` then has nothing to give
    back; here such a path is stopped, and its row is NaN.

    Args:
        flow: its own solver is used.
        dim: D.
        n: samples.
        seed: equal seeds give equal samples, those that `carry` makes of `noise_rows`.
        report: told after each chunk how many samples are done, of how many.

    Raises:
        SolveFailed: the solver ran out of steps, or more than 1 % of the samples (and more than 10) are lost.
    """
    noise = as_points(flow, noise_rows(n, dim, seed))
    outwards = noise.square().sum(1).argsort()
    inner = n - int(n * OUTERMOST)
    places = [rows for part in (outwards[inner:], outwards[:inner]) for rows in part.split(TOGETHER) if len(rows)]
    samples = torch.full_like(noise, math.nan)
    done, lost = 0, 0
    while places:
        rows = places.pop()
        try:
            with _watched(flow) as sizes:
                samples[rows] = flow.to_data(noise[rows])
            done += len(rows)
        except SolveFailed as failure:
            if failure.status is Status.OUT_OF_STEPS:  # the search would take hours
                raise
            size = sizes.pop() if sizes else torch.zeros(len(rows))
            off = ~(size <= RUN_OFF) if len(rows) > 1 else torch.ones(1, dtype=torch.bool)
            if off.any():
                suspect = ~off & (size > SUSPECT)
                parts = [rows[suspect], rows[~off & ~suspect]]
            else:
                parts = [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            places += [part for part in parts if len(part)]
            lost, done = lost + int(off.sum()), done + int(off.sum())
            if lost > max(LOST_AT_LEAST, n * LOST_SHARE):
                raise
        if report is not None:
            report(done, n)
    drawn: Array = samples.double().cpu().numpy()
    return drawn


def draw_again(flow: BaseFlow, dim: int, n: int, seed: Callable[[], int]) -> Array:
    """n samples (n, D) in standardised coordinates; those that are lost are drawn again, each time with a new `seed`.

    Raises:
        SolveFailed: as `draw_standardised`.
        RunError: some are lost each time.
    """
    drawn = draw_standardised(flow, dim, n, seed())
    for _ in range(REDRAWS):
        lost = np.isnan(drawn).any(1)
        if not lost.any():
            return drawn
        drawn[lost] = draw_standardised(flow, dim, int(lost.sum()), seed())
    raise RunError(f"{int(lost.sum())} of {n} samples run off to infinity each time; fit again")


@contextlib.contextmanager
def _watched(flow: BaseFlow) -> Iterator[list[Tensor]]:
    # Solves of `flow` fail as soon as a path runs off; the list then has the largest coordinate of every row (B,).
    sizes: list[Tensor] = []

    def check(field: Any, arguments: tuple[Any, ...]) -> None:
        size = arguments[1].abs().amax(1)
        if not bool(size.max() <= RUN_OFF):
            sizes.append(size)
            raise SolveFailed(Status.NON_FINITE, 0)

    with contextlib.ExitStack() as hooks:
        for field in flow.fields():
            hooks.enter_context(field.register_forward_pre_hook(check))
        yield sizes
