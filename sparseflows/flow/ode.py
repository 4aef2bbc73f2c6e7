"""One ODE solve by torchdiffeq: the state it reached, what it cost, and whether it worked.

torchdiffeq signals failure by assertions, and loops for as long as it takes; here a solve is capped,
counted, checked for finiteness, and ends with a status.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from sparseflows.errors import RunError

State = tuple[Tensor, ...]
FIXED_METHODS = ("euler", "midpoint", "rk4")


class Status(enum.Enum):
    """How a solve ended; the value is what a person is told."""

    DONE = "done"
    NON_FINITE = "the state or the field became infinite or NaN"
    OUT_OF_STEPS = "the solver ran out of steps"
    UNDERFLOW = "the solver's step became too small for the precision"


class SolveFailed(RunError):
    """A solve that did not reach its end, where no value can be given back."""

    def __init__(self, status: Status, nfe: int) -> None:
        super().__init__(f"{status.value} (after {nfe} evaluations of the field)")
        self.status, self.nfe = status, nfe


@dataclass(frozen=True)
class Solver:
    """How to solve.

    Attributes:
        method: dopri5, bosh3, dopri8, adaptive_heun, fehlberg2 (adaptive) or euler, midpoint, rk4 (fixed).
        rtol, atol: tolerances of the adaptive methods.
        steps: number of equal steps of a fixed method.
        max_nfe: evaluations of the field after which a solve is stopped.
        gradient: `backprop` through the solver's steps, or the continuous `adjoint` (constant memory, no
            second derivative).
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int | None = None
    max_nfe: int = 20_000
    gradient: str = "backprop"

    def at(self, tol: float) -> Solver:
        """The same solver at rtol = atol = `tol`."""
        return replace(self, rtol=tol, atol=tol)


@dataclass(frozen=True)
class Solution:
    """The state at the end, the evaluations spent, and the status; the state counts only where it is DONE."""

    state: State
    nfe: int
    status: Status

    def require(self) -> Solution:
        """Itself, or `SolveFailed`."""
        if self.status is not Status.DONE:
            raise SolveFailed(self.status, self.nfe)
        return self


class _Counted(nn.Module):
    """The right-hand side with its evaluations counted and capped (a module: the adjoint wants one)."""

    def __init__(self, function: Callable[[Tensor, State], State], max_nfe: int) -> None:
        super().__init__()
        self.function, self.max_nfe = function, max_nfe
        self.nfe = 0
        self.last: State = ()

    def forward(self, t: Tensor, state: State) -> State:
        if self.nfe >= self.max_nfe:
            raise SolveFailed(Status.OUT_OF_STEPS, self.nfe)
        self.nfe += 1
        rates = self.function(t, state)
        self.last = tuple(rate.detach() for rate in rates)
        return rates


def solve(
    function: Callable[[Tensor, State], State],
    state: State,
    solver: Solver,
    *,
    reverse: bool = False,
    parameters: Sequence[Tensor] = (),
) -> Solution:
    """Integrate d state/dt = function(t, state) over t from 0 to 1, or from 1 to 0.

    Args:
        function: rates of the state, tensors of the state's shapes.
        state: tensors at the start.
        solver: method, tolerances, cap, kind of gradient.
        reverse: from 1 to 0 instead.
        parameters: what the adjoint is to give gradients for (backpropagation finds them itself).

    Returns:
        The state at the end. A solve that fails comes back with its status; only the backward pass of the
        adjoint, which has no caller to come back to, raises `SolveFailed`.
    """
    counted = _Counted(function, solver.max_nfe)
    first = state[0]
    # Time is a scalar of the state's precision at least; the last point is a step of its own, because
    # the interpolation that torchdiffeq ends with is of lower order than its steps.
    times = torch.tensor([1.0, 0.0] if reverse else [0.0, 1.0], dtype=first.dtype, device=first.device)
    fixed = solver.method in FIXED_METHODS
    options = {"step_size": 1.0 / (solver.steps or 1)} if fixed else {"step_t": times[1:].clone()}
    arguments = {"rtol": solver.rtol, "atol": solver.atol, "method": solver.method, "options": options}
    try:
        if solver.gradient == "adjoint" and torch.is_grad_enabled():
            arguments["adjoint_params"] = tuple(parameters)
            path = odeint_adjoint(counted, state, times, adjoint_options=dict(options), **arguments)
        else:
            path = odeint(counted, state, times, **arguments)
    except SolveFailed as failure:
        return Solution(state, counted.nfe, failure.status)
    except AssertionError:
        finite = all(bool(torch.isfinite(rate).all()) for rate in counted.last)
        return Solution(state, counted.nfe, Status.UNDERFLOW if finite else Status.NON_FINITE)
    end = tuple(tensor[-1] for tensor in path)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in end)
    return Solution(end, counted.nfe, Status.DONE if finite else Status.NON_FINITE)
