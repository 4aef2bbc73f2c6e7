"""Samples of a flow: noise carried to data, and drawn again where a path runs off."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from sparseflows.flow.divergence import DivergenceKind
from sparseflows.flow.inputs import Carrier, check_count
from sparseflows.flow.rows import carry_rows
from sparseflows.flow.solvers.ode import SolveFailed, Solver

REDRAWS = 20  # of draws that run off, before it is given up
RUN_OFF = 1e6  # standard deviations of the data: what is beyond is no sample


class Drawn(NamedTuple):
    """Samples (n, D), the noise (n, D) that each began at, and ∫₀ᵀ tr ∂f/∂z dt along its path (n,)."""

    samples: Tensor
    noise: Tensor
    trace: Tensor


def ran_off(points: Tensor) -> Tensor:
    """Which samples (B, D) in standardised coordinates are none: NaN, infinite, or farther out than `RUN_OFF`; (B,)."""
    return ~(points.abs().amax(1) <= RUN_OFF)


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
        SolveFailed: some run off each time.
    """
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
            off.append(part[ran_off(found.points)])
        waiting = torch.cat(off)
        lost += len(waiting)
        noise[waiting] = flow.draw_noise((len(waiting), noise.shape[1]), generator)
    if len(waiting):
        raise SolveFailed(found.status, found.nfe, f"{len(waiting)} of {n} draws, drawn {1 + REDRAWS} times,")
    if lost:
        warnings.warn(f"{lost} draws ran off on their way to {n} samples and were drawn again", stacklevel=3)
    return Drawn(samples, noise, trace)
