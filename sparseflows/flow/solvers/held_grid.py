"""A solve on a given grid of steps, with its exact gradient (the discrete adjoint), and the choice of that grid.

The grid is chosen by an embedded error estimate and then held for some training steps, so that a step pays for no
rejected and no estimated evaluation. Every row is solved by itself on such a grid; rows go in tiles that stay in the
caches. The gradient is that of the discretised solve: the adjoint of every Runge-Kutta step, written out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sparseflows.flow.divergence import exact, hutchinson
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.mlp_kernel import Evaluated, MLPKernel, Weights
from sparseflows.flow.solvers.ode import Solution, Status
from sparseflows.flow.solvers.tableaus import Tableau

Steps = tuple[float, ...]
TILE = 256  # rows: what one evaluation touches then stays in a core's second-level cache
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0  # of the step-size controller, as usual (Hairer, Nørsett and Wanner 1993, II.4)


def solve_on_grid(
    field: MLPField,
    end_time: Tensor,
    points: Tensor,
    steps: Steps,
    tableau: Tableau,
    probes: Tensor | None = None,
    recompute: bool = False,
    tile: int = TILE,
) -> tuple[Tensor, Tensor]:
    """Points (B, D) carried from data to noise, and ∫₀ᵀ tr ∂f/∂z dt (B,), differentiable once.

    Args:
        field, end_time, tableau: f(t, z), T () and the method.
        points: (B, D), where the paths start.
        steps: lengths of the steps over τ = t/T; their sum is 1.
        probes: (B, D) of Hutchinson's estimate; None for the exact trace.
        recompute: keep only the states and evaluate the field once more on the way back: memory does not grow with
            the number of steps.
        tile: rows that are walked together.
    """
    settings = (steps, tableau, recompute, tile)
    if not field.is_plain():
        how = {"end_time": 1.0, "steps": steps, "tableau": tableau, "keep": False, "recompute": False}
        end, trace, _ = _walk(SimpleNamespace(kernel=_Called(field, end_time, probes), **how), points, slice(None))
        return end, trace
    found: tuple[Tensor, Tensor] = _GridSolve.apply(
        points, end_time, MLPKernel(field, probes), settings, *field.tensors()
    )
    return found


class _Called:
    """Evaluations dz/dτ of a field that hooks or parametrizations have a say in: by calling it, and by autograd."""

    def __init__(self, field: MLPField, end_time: Tensor, probes: Tensor | None) -> None:
        self.field, self.end_time, self.probes = field, end_time, probes

    def forward(self, tau: float, z: Tensor, rows: slice = slice(None)) -> Evaluated:
        """T·f (B, D) and T·tr ∂f/∂z (B,) at t = τT and z (B, D), with the probes of `rows`."""
        t = self.end_time * tau
        here = exact(self.field, t, z) if self.probes is None else hutchinson(self.field, t, z, self.probes[rows])
        return Evaluated(self.end_time * here.velocity, self.end_time * here.trace, tau, [])


@dataclass
class _Stage:
    """One evaluation: τ, the point, and, unless it is to be computed again, what its gradient needs."""

    tau: float
    point: Tensor
    evaluated: Evaluated | None


class _GridSolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        points: Tensor,
        end_time: Tensor,
        kernel: MLPKernel,
        settings: tuple[Steps, Tableau, bool, int],
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.kernel, ctx.end_time, ctx.keep = kernel, float(end_time.detach()), any(ctx.needs_input_grad)
        ctx.steps, ctx.tableau, ctx.recompute, tile = settings
        ctx.tiles = [slice(first, first + tile) for first in range(0, len(points), tile)]
        ends, traces, ctx.tapes = zip(*(_walk(ctx, points[rows], rows) for rows in ctx.tiles), strict=True)
        return torch.cat(ends), torch.cat(traces)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_end: Tensor, of_trace: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.kernel.zeros()
        parts, of_end_time = [], of_end.new_zeros(())
        for rows, tape in zip(ctx.tiles, ctx.tapes, strict=True):
            found, more = _walk_back(ctx, tape, of_end[rows], of_trace[rows], rows, gradients)
            parts.append(found)
            of_end_time = of_end_time + more
        flat = [tensor for layer in gradients for tensor in layer if tensor is not None]
        return torch.cat(parts), of_end_time, None, None, *flat


def _walk(ctx: Any, z: Tensor, rows: slice) -> tuple[Tensor, Tensor, list[list[_Stage]]]:
    tableau, end_time, tape = ctx.tableau, ctx.end_time, list[list[_Stage]]()
    trace, tau = torch.zeros_like(z[:, 0]), 0.0
    for step in ctx.steps:
        stages, rates = list[_Stage](), list[Tensor]()
        for coefficients, c in zip(tableau.a, tableau.c, strict=True):
            point = combine(z, rates, coefficients, step * end_time)
            here = ctx.kernel.forward((tau + c * step) * end_time, point, rows)
            rates.append(here.velocity)
            stages.append(_Stage(tau + c * step, point, None if ctx.recompute or not ctx.keep else here))
            trace = combine(trace, [here.trace], (tableau.b[len(rates) - 1],), step * end_time)
        z = combine(z, rates, tableau.b, step * end_time)
        tau += step
        if ctx.keep:
            tape.append(stages)
    return z, trace, tape


def combine(start: Tensor, rates: Sequence[Tensor], coefficients: Sequence[float], step: float) -> Tensor:
    """start + step · Σ coefficients_i rates_i, all of one shape: (B, D) or (B,)."""
    for rate, coefficient in zip(rates, coefficients, strict=True):
        if coefficient:
            start = torch.add(start, rate, alpha=coefficient * step)
    return start


def _walk_back(
    ctx: Any, tape: list[list[_Stage]], of_z: Tensor, of_trace: Tensor, rows: slice, gradients: list[Weights]
) -> tuple[Tensor, Tensor]:
    """The gradient of the start (B, D) and of T; those of the parameters are added to `gradients`."""
    kernel, tableau, end_time = ctx.kernel, ctx.tableau, ctx.end_time
    of_end_time = torch.zeros((), dtype=of_z.dtype, device=of_z.device)
    for stages, step in zip(reversed(tape), reversed(ctx.steps), strict=True):
        of_points: list[Tensor] = []  # of the later stages' points, the last first
        for i in range(len(stages) - 1, -1, -1):
            stage = stages[i]
            # The rate k_i = T·f stands in the step's end with b_i, and in each later stage j with a_ji.
            of_rate = of_z * (tableau.b[i] * step)
            for back, found in enumerate(of_points):
                coefficient = tableau.a[len(stages) - 1 - back][i]
                if coefficient:
                    of_rate.add_(found, alpha=coefficient * step)
            of_trace_rate = of_trace * (tableau.b[i] * step)
            here = stage.evaluated or kernel.forward(stage.tau * end_time, stage.point, rows)
            stage.evaluated = None  # its memory is free for the one before
            of_point, of_t = kernel.backward(here, of_rate * end_time, of_trace_rate * end_time, gradients, rows)
            of_end_time = of_end_time + of_t * stage.tau
            of_end_time += (of_rate * here.velocity).sum() + (of_trace_rate * here.trace).sum()
            of_points.append(of_point)
        for found in of_points:
            of_z = of_z + found
    return of_z, of_end_time


@torch.no_grad()
def choose_grid(
    field: MLPField,
    end_time: Tensor,
    points: Tensor,
    tableau: Tableau,
    tol: float,
    first_step: float = 0.1,
    probes: Tensor | None = None,
    max_nfe: int = 5000,
) -> Solution:
    """The steps that hold the embedded error of points and trace below `tol`, root mean square over the rows.

    Args:
        field, end_time, tableau, probes: as in `solve_on_grid`.
        points: (B, D), the rows that the grid is chosen by.
        tol: rtol = atol.
        first_step: to try first, over τ: that of the grid before is a good one.
        max_nfe: evaluations after which the choice is given up.
    """
    kernel: MLPKernel | _Called
    if field.is_plain():
        kernel, whole = MLPKernel(field, probes), float(end_time.detach())
    else:
        kernel, whole = _Called(field, end_time, probes), 1.0
    z, trace = points, torch.zeros_like(points[:, 0])
    here = kernel.forward(0.0, z)
    tau, step, nfe = 0.0, min(1.0, first_step), 1
    steps: list[float] = []
    while True:
        rates, traces = [here.velocity], [here.trace]
        for coefficients, c in zip(tableau.a[1:], tableau.c[1:], strict=True):
            stage = kernel.forward((tau + c * step) * whole, combine(z, rates, coefficients, step * whole))
            rates.append(stage.velocity)
            traces.append(stage.trace)
        z_new = combine(z, rates, tableau.b, step * whole)
        trace_new = combine(trace, traces, tableau.b, step * whole)
        ahead = kernel.forward((tau + step) * whole, z_new)
        nfe += len(tableau.b)
        error = z.new_zeros(())
        for old, new, slopes in (z, z_new, [*rates, ahead.velocity]), (trace, trace_new, [*traces, ahead.trace]):
            estimate = combine(torch.zeros_like(old), slopes, tableau.error, step * whole)
            error += (estimate / (1 + torch.maximum(old.abs(), new.abs()))).square().sum()
        size = float((error / (z.numel() + trace.numel())).sqrt()) / tol
        infinite = not size < float("inf")
        if infinite:
            size = GROW**tableau.order * 1e3  # a step into the infinite: a smaller one may pass beside it
        if size <= 1:
            steps.append(step)
            tau, z, trace, here = tau + step, z_new, trace_new, ahead
            if tau >= 1 - 1e-9:
                total = sum(steps)
                return Solution((z, trace), nfe, Status.DONE, tuple(length / total for length in steps))
        if nfe >= max_nfe or step < 1e-7:
            status = Status.NON_FINITE if infinite else Status.UNDERFLOW
            return Solution((z, trace), nfe, Status.OUT_OF_STEPS if nfe >= max_nfe else status)
        factor = GROW if size == 0 else min(GROW, max(SHRINK, SAFETY * size ** (-1 / tableau.order)))
        step = min(step * (min(1.0, factor) if size > 1 else factor), 1 - tau)
