"""Samples of a flow: noise carried to data, and drawn again where a path runs off."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from sparseflows.errors import RunError
from sparseflows.flow.divergence import DivergenceKind
from sparseflows.flow.inputs import Carrier, check_count, check_transforms
from sparseflows.flow.options import EXAMPLE, check_kind
from sparseflows.flow.rows import carry_rows
from sparseflows.flow.solvers.ode import SolveFailed, Solver, Status

REDRAWS = 20  # of draws that run off, before it is given up
RUN_OFF = 1e6  # standard deviations of the data: what is beyond is no sample


class Drawn(NamedTuple):
    """Samples (n, D), the noise (n, D) that each began at, and ∫₀ᵀ tr ∂f/∂z dt along its path (n,)."""

    samples: Tensor
    noise: Tensor
    trace: Tensor


def ran_off(points: Tensor, scale: float = 1.0) -> Tensor:
    """Which samples (B, D) are none: NaN, infinite, or farther out than `RUN_OFF` times the data's scale; (B,)."""
    return ~(points.abs().amax(1) <= RUN_OFF * scale)


def _scale_of(flow: Carrier, points: Tensor) -> float:
    """1 where the flow's coordinates are standardised ones, else what the samples (B, D) themselves say, 1 or more."""
    finite = points[torch.isfinite(points).all(1)]
    if flow.standardiser is not None or not len(finite):
        return 1.0
    return max(1.0, float(finite.abs().amax(1).median()))


def lost_draws(status: Status, nfe: int, which: str) -> RunError:
    """The error that says why draws were lost: they could not be solved, or they were solved and lie far out."""
    if status is not Status.DONE:
        return SolveFailed(status, nfe, which)
    return RunError(f"{which} run off beyond {RUN_OFF:g} standard deviations of the data; train longer, or prune less")


@torch.no_grad()
def draw(
    flow: Carrier,
    n: int,
    generator: torch.Generator | None,
    dim: int | None,
    solver: Solver,
    divergence: DivergenceKind | None,
    chunk: int | None = None,
) -> Drawn:
    """n samples; a draw whose path runs off, or cannot be solved, is drawn again, and a warning counts them.

    Args:
        flow: the flow.
        n: samples.
        generator: of the noise.
        dim: D, of flows whose fields do not say it.
        solver: how to solve.
        divergence: of the traces; None leaves them out.
        chunk: rows solved together; None solves all at once.

    Raises:
        InputError: n is no whole number from 0 on.
        RunError: some run off each time (SolveFailed where they cannot be solved).
    """
    check_kind("solver", solver, Solver, EXAMPLE)
    check_transforms(solver.method)
    check_kind("generator", generator, torch.Generator, "torch.Generator().manual_seed(0)")
    noise = flow.draw_noise((check_count(n), flow.dimension(dim)), generator)
    samples, trace, lost = noise.clone(), torch.zeros_like(noise[:, 0]), 0
    waiting = torch.arange(n, device=noise.device)
    for _ in range(1 + REDRAWS):
        if not len(waiting):
            break
        off = []
        for part in waiting.split(chunk or len(waiting)):
            found = carry_rows(flow, noise[part], solver, reverse=True, divergence=divergence)
            samples[part], trace[part] = found.points, found.trace
            off.append(part[ran_off(found.points, _scale_of(flow, found.points))])
        waiting = torch.cat(off)
        lost += len(waiting)
        noise[waiting] = flow.draw_noise((len(waiting), noise.shape[1]), generator)
    if len(waiting):
        raise lost_draws(found.status, found.nfe, f"{len(waiting)} of {n} draws, drawn {1 + REDRAWS} times,")
    if lost:
        warnings.warn(f"{lost} draws ran off on their way to {n} samples and were drawn again", stacklevel=3)
    return Drawn(samples, noise, trace)
