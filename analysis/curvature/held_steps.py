"""log p on steps that are held: a smooth, deterministic function of the params, row by row.

An adaptive solver chooses its steps anew for every params vector and every chunk of rows: its loss has
jumps, and its chunks do not add up. Here the steps are chosen once, for all rows together, and kept.
(The adjoint is no way out: its gradients have no second derivative.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.curvature.fused_activations import exact_divergence
from sparseflows.errors import RunError
from sparseflows.flow.fields import Field
from sparseflows.flow.model import Block, Flow, standard_normal_log_prob
from sparseflows.flow.solvers.ode import Solver, State, Status, solve
from sparseflows.flow.solvers.tableaus import TABLEAUS

DOPRI5 = TABLEAUS["dopri5"]
# The fifth-order step of Dormand and Prince; its error estimate is not needed on steps that are held.
STAGES, WEIGHTS, NODES = (DOPRI5.a, DOPRI5.b, DOPRI5.c)


@dataclass(frozen=True)
class HeldSteps:
    """The step lengths of every block, in its own time scaled to [0, 1]; `nfe` evaluations of the fields in all."""

    blocks: tuple[tuple[float, ...], ...]

    @property
    def nfe(self) -> int:
        """Evaluations of the fields in one solve."""
        return len(NODES) * sum(len(steps) for steps in self.blocks)


@torch.no_grad()
def choose_steps(flow: Flow, rows: Tensor, tol: float) -> HeldSteps:
    """The steps that dopri5 takes for log p of `rows` (N, D) at rtol = atol = `tol`.

    The error is held in the mean over the rows, for the loss is a mean: a step controller that follows the
    worst row takes twice as many steps.

    Raises:
        RunError: the solver does not reach the end.
    """
    solver = Solver("dopri5", tol, tol, max_nfe=20_000, norm="batch")
    points, chosen = flow.whiten(rows)[0], []
    for block in flow.chain():
        end_time, field = block.end_time(points), block.field
        assert isinstance(field, Field)

        def rates(tau: Tensor, state: State, field: Field = field, end_time: Tensor = end_time) -> State:
            here = exact_divergence(field, tau * end_time, state[0])
            return end_time * here.velocity, end_time * here.trace

        found = solve(rates, (points, torch.zeros_like(points[:, 0])), solver)
        if found.status is not Status.DONE:
            raise RunError(f"the likelihood cannot be solved: {found.status.value} (after {found.nfe} evaluations)")
        points = found.state[0]
        chosen.append(found.steps)
    return HeldSteps(tuple(chosen))


def log_prob_on_steps(flow: Flow, rows: Tensor, held: HeldSteps) -> Tensor:
    """log p (B,) in nats of `rows` (B, D) on the steps `held`, as often differentiable as the fields."""
    points, log_det = flow.whiten(rows)
    trace = torch.zeros_like(rows[:, 0]) + log_det
    for block, steps in zip(flow.chain(), held.blocks, strict=True):
        points, gained = _carry(block, points, steps)
        trace = trace + gained
    return standard_normal_log_prob(points) + trace


def _carry(block: Block, points: Tensor, steps: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """z(T) (B, D) and ∫ tr ∂f/∂z dt (B,) by Runge-Kutta steps of the given lengths."""
    end_time, field = block.end_time(points), block.field
    assert isinstance(field, Field)
    trace, start = torch.zeros_like(points[:, 0]), 0.0
    for length in steps:
        velocities: list[Tensor] = []
        traces: list[Tensor] = []
        for node, stage, weight in zip(NODES, STAGES, WEIGHTS, strict=True):
            z = points + _weighted(velocities, stage, length) if stage else points
            t = (start + node * length) * end_time
            if weight:
                here = exact_divergence(field, t, z)
                velocities.append(end_time * here.velocity)
                traces.append(end_time * here.trace)
            else:  # the trace does not act back on the path: only the stages that count need it
                velocities.append(end_time * field(t, z))
        points = points + _weighted(velocities, WEIGHTS, length)
        trace = trace + _weighted(traces, [weight for weight in WEIGHTS if weight], length)
        start += length
    return points, trace


def _weighted(rates: Sequence[Tensor], weights: Sequence[float], length: float) -> Tensor:
    # One product instead of a sum term by term: a quarter of the nodes in the graph, which is differentiated twice.
    stacked = torch.stack(list(rates), dim=-1)
    return stacked @ (length * torch.tensor(weights, dtype=stacked.dtype, device=stacked.device))
