"""x ↔ z through one block, with the log-determinant and the path's regularisers. Pure functions.

The block's own time runs from 0 to T; the solve runs over τ = t/T in [0, 1], so that a trained end time
T needs no special case: dz/dτ = T·f(Tτ, z).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparseflows.flow.compiled import engine
from sparseflows.flow.divergence import DivergenceRule, Hutchinson, exact, exact_trace
from sparseflows.flow.fields import Field, MLPField
from sparseflows.flow.solvers.ode import SolveFailed, Solver, State, Status, solve
from sparseflows.flow.solvers.shared import solve_shared
from sparseflows.flow.solvers.tableaus import TABLEAUS


@dataclass(frozen=True)
class Transformed:
    """Points carried through a block (or several).

    Attributes:
        points: (B, D).
        trace: ∫₀ᵀ tr ∂f/∂z dt along each path, (B,), whichever way the path was walked.
        kinetic: ∫|f|² dt, (B,); zero unless asked for.
        jacobian: ∫‖∂f/∂z‖²_F dt, (B,); zero unless asked for.
        nfe: evaluations of the field.
        status: how the solve ended.
        failed: (B,) bool where rows were solved by themselves: those that did not reach the end, whose point is the
            last they had reached. None: all share `status`.
    """

    points: Tensor
    trace: Tensor
    kinetic: Tensor
    jacobian: Tensor
    nfe: int
    status: Status
    failed: Tensor | None = None

    def require(self) -> Transformed:
        """Itself, or `SolveFailed`."""
        if self.status is not Status.DONE:
            raise SolveFailed(self.status, self.nfe)
        return self

    def followed_by(self, step: Transformed) -> Transformed:
        """This and then `step`, which began at these points (B, D); a row that failed here stays where it was."""
        failed, points, status = step.failed, step.points, step.status
        if self.failed is not None and step.failed is not None:
            points = torch.where(self.failed.unsqueeze(1), self.points, points)
            failed, status = self.failed | step.failed, status if self.status is Status.DONE else self.status
        return Transformed(
            points,
            self.trace + step.trace,
            self.kinetic + step.kinetic,
            self.jacobian + step.jacobian,
            self.nfe + step.nfe,
            status,
            failed,
        )

    def log_prob(self) -> Tensor:
        """log p (B,) in nats of the rows that were carried to these points, from data to noise."""
        return standard_normal_log_prob(self.points) + self.trace


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats for z (B, D): (B,)."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def transform(
    field: Field,
    end_time: Tensor,
    points: Tensor,
    solver: Solver,
    *,
    reverse: bool = False,
    divergence: DivergenceRule | None = None,
    regularise: bool = False,
    parameters: Sequence[Tensor] = (),
    by_row: bool = False,
) -> Transformed:
    """Carry `points` (B, D) from data to noise, or back with `reverse`.

    Args:
        field: f(t, z).
        end_time: T ().
        points: where the paths start.
        solver: see `ode.Solver`.
        reverse: from T to 0 instead of 0 to T.
        divergence: how to take the trace; None leaves it out (the field is twice as cheap then).
        regularise: accumulate the kinetic energy and the Jacobian's norm as well.
        parameters: for the adjoint.
        by_row: a row that fails fails alone (`Transformed.failed`); without gradients.
    """
    if solver.compiled and solver.method in TABLEAUS and not regularise and not torch.is_grad_enabled():
        found = _by_engine(field, end_time, points, solver, reverse, divergence, by_row)
        if found is not None:
            return found
    rows = points.shape[0]
    zeros = torch.zeros(rows, dtype=points.dtype, device=points.device)
    if divergence is exact and not regularise:
        divergence = exact_trace

    def rates(tau: Tensor, state: State) -> State:
        t = tau.to(points.dtype) * end_time
        if divergence is None:
            return (end_time * field(t, state[0]),)
        here = divergence(field, t, state[0])
        speed = (end_time * here.velocity, end_time * here.trace)
        if not regularise:
            return speed
        return (*speed, end_time * here.velocity.square().sum(1), end_time * here.frobenius)

    extra = 0 if divergence is None else 3 if regularise else 1
    start = (points, *(zeros for _ in range(extra)))
    # Rows on fixed steps know nothing of one another.
    how = solve_shared if solver.processes.several and solver.steps is None else partial(solve, by_row=by_row)
    solution = how(rates, start, solver, reverse=reverse, parameters=(*parameters, end_time))
    sign = -1.0 if reverse else 1.0
    trace, kinetic, jacobian = [sign * tensor for tensor in solution.state[1:]] + [zeros] * (3 - extra)
    return Transformed(solution.state[0], trace, kinetic, jacobian, solution.nfe, solution.status, solution.failed)


def _by_engine(
    field: Field,
    end_time: Tensor,
    points: Tensor,
    solver: Solver,
    reverse: bool,
    divergence: DivergenceRule | None,
    by_row: bool,
) -> Transformed | None:
    """The same by the compiled engine, each row with steps of its own; None where it cannot."""
    probes = divergence.probes if isinstance(divergence, Hutchinson) else None
    if divergence not in (None, exact) and probes is None:
        return None  # a rule of the caller's own
    if not engine.takes(field, points, divergence is exact):
        return None
    assert isinstance(field, MLPField)
    found = engine.carry(field, float(end_time), points, solver, divergence is exact, probes, reverse, by_row)
    zeros = torch.zeros_like(points[:, 0])
    ends, traces = found.state
    return Transformed(ends, -traces if reverse else traces, zeros, zeros, found.nfe, found.status, found.failed)
