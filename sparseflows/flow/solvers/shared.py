"""An adaptive solve of a batch whose rows several processes share: they take the steps that one would take for all.

A solver's step follows from the root mean square of the error over the batch, so that is what the processes agree
on, once a step: sums of squares and counts are added up over them. With it they also agree on how the solve ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparseflows.distributed.processes import Processes
from sparseflows.flow.solvers.late import odeint
from sparseflows.flow.solvers.ode import (
    Solution,
    SolveFailed,
    Solver,
    State,
    Status,
    Stepping,
    attempt,
    ends_of_time,
    last_of,
)

FAILURES = tuple(status for status in Status if status is not Status.DONE)  # the first that any process met, counts


def solve_shared(
    function: Callable[[Tensor, State], State],
    state: State,
    solver: Solver,
    *,
    reverse: bool = False,
    parameters: Sequence[Tensor] = (),
) -> Solution:
    """`ode.solve` by an adaptive method, of this process's rows (B, …), on the steps of the whole batch.

    All processes of `solver.processes` call it at once, and get the same steps, NFE and status. The adjoint gives each
    of them an equal part of the parameters' gradient, not that of its own rows: see `_Adjoint`.
    """
    counted = Stepping(function, solver.max_nfe)
    times = ends_of_time(state, reverse)
    norm = SharedNorm(solver.processes, counted, state)
    options = {"step_t": times[1:].clone(), "norm": norm}
    settings = {"rtol": solver.rtol, "atol": solver.atol, "method": solver.method, "options": options}

    def integrate() -> State:
        if solver.gradient == "adjoint" and torch.is_grad_enabled():
            wanted = tuple(p for p in parameters if p.requires_grad)
            end: State = _Adjoint.apply(counted, norm, times, settings, len(state), *state, *wanted)
            return end
        return last_of(odeint(counted, state, times, **settings))

    solution = attempt(counted, state, integrate)
    return replace(solution, status=norm.leave(solution.status))


class SharedNorm:
    """torchdiffeq's norm of an error, the largest root mean square of the state's tensors, over all processes' rows.

    Differentiable, because the first step's size is. What goes round is one vector: sums of squares, counts, and votes
    on how the solve ends, so that a process which has failed is understood by those that have not.
    """

    def __init__(self, processes: Processes, counted: Stepping, state: State) -> None:
        self.processes, self.counted, self.like, self.tensors = processes, counted, state[0], len(state)

    def __call__(self, state: State) -> Tensor:
        """The norm () of a state, which is an error estimate divided by its tolerance.

        Raises:
            SolveFailed: another process has given the solve up.
        """
        squares = [tensor.to(torch.float64).square().sum() for tensor in state]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.counted.last[: self.tensors]):
            # A finite error may hide a state that is not; then one process alone would stop after this step.
            squares = [torch.full_like(square, torch.inf) for square in squares]
        total = self._vote(squares, [tensor.numel() for tensor in state], None)
        if total[-1].item() > 0:
            raise SolveFailed(decided(total[2 * self.tensors : -1]), self.counted.nfe)
        found = [(total[i] / total[self.tensors + i]).sqrt() for i in range(self.tensors)]
        return max(found).to(self.like.dtype)

    def leave(self, status: Status) -> Status:
        """How the solve ended for all of them, once each has left it."""
        nothing = [torch.zeros((), dtype=torch.float64, device=self.like.device)] * self.tensors
        while True:
            total = self._vote(nothing, [0] * self.tensors, status)
            if round(total[-1].item()) == self.processes.world:
                return decided(total[2 * self.tensors : -1])

    def _vote(self, squares: list[Tensor], counts: list[int], status: Status | None) -> Tensor:
        votes = [*counts, *(float(status is one) for one in FAILURES), float(status is not None)]
        return self.processes.sum(torch.cat([torch.stack(squares), squares[0].new_tensor(votes)]))


def decided(votes: Tensor) -> Status:
    """The status of all, from how many processes met each of `FAILURES`, (3,)."""
    return next((status for status, count in zip(FAILURES, votes.tolist(), strict=True) if count > 0), Status.DONE)


def agreed(processes: Processes, value: Tensor, status: Status) -> tuple[float, Status]:
    """The sum of the processes' parts () of a loss, and the status they all go by."""
    if not processes.several:
        return value.item() if status is Status.DONE else torch.nan, status
    part = value.item() if status is Status.DONE else 0.0
    votes = [part, *(float(status is one) for one in FAILURES)]
    total = torch.tensor(votes, dtype=torch.float64, device=value.device)
    processes.add_(total)
    return float(total[0]), decided(total[1:])


class _Adjoint(torch.autograd.Function):
    """The continuous adjoint (Chen et al. 2018) with the steps of torchdiffeq's, of the whole batch.

    Its state holds the parameters' gradients, which are sums over the rows, and their error counts in the choice of
    the steps. So the rates of these sums are added up over the processes at every evaluation of the way back; each
    process then holds the gradient of the whole batch, and gives an equal part of it to be added up by the training.
    """

    @staticmethod
    def forward(
        ctx: Any,
        counted: Stepping,
        norm: SharedNorm,
        times: Tensor,
        settings: dict[str, Any],
        tensors: int,
        *inputs: Tensor,
    ) -> State:
        end = last_of(odeint(counted, inputs[:tensors], times, **settings))
        ctx.counted, ctx.norm, ctx.times, ctx.settings, ctx.tensors = counted, norm, times, settings, tensors
        ctx.save_for_backward(*end, *inputs[tensors:])
        return end

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *of_end: Tensor) -> tuple[Tensor | None, ...]:
        n, processes, counted = ctx.tensors, ctx.norm.processes, ctx.counted
        end, parameters = ctx.saved_tensors[:n], ctx.saved_tensors[n:]

        def rates(t: Tensor, augmented: State) -> State:
            with torch.enable_grad():
                time = t.detach().requires_grad_(True)
                here = tuple(tensor.detach().requires_grad_(True) for tensor in augmented[:n])
                found = counted(time, here)
                above = [-tensor for tensor in augmented[n : 2 * n]]
                wanted = (*here, time, *parameters)
                gradients = torch.autograd.grad(found, wanted, above, allow_unused=True, materialize_grads=True)
            whole = torch.cat([gradient.reshape(-1) for gradient in gradients[n:]])
            processes.add_(whole)
            sums = whole.split([like.numel() for like in wanted[n:]])
            shaped = [total.view(like.shape) for total, like in zip(sums, wanted[n:], strict=True)]
            return (*(tensor.detach() for tensor in found), *gradients[:n], *shaped)

        def norm(augmented: State) -> Tensor:
            """As torchdiffeq's of its adjoint: the largest of the state's, its gradient's and each sum's own."""
            shared = [ctx.norm(augmented[:n]), ctx.norm(augmented[n : 2 * n])]
            return max(*shared, *(tensor.square().mean().sqrt() for tensor in augmented[2 * n :]))

        sums = (torch.zeros_like(ctx.times[0]), *(torch.zeros_like(parameter) for parameter in parameters))
        start = (*end, *of_end, *sums)
        settings = ctx.settings | {"options": {"step_t": ctx.times[:1].clone(), "norm": norm}}
        path = last_of(odeint(rates, start, ctx.times.flip(0), **settings))
        parts = [total / processes.world for total in path[2 * n + 1 :]]
        return (None, None, None, None, None, *path[n : 2 * n], *parts)
