"""One ODE solve by torchdiffeq: the state it reached, what it cost, and whether it worked.

torchdiffeq signals failure by assertions, and loops for as long as it takes; here a solve is capped,
counted, checked for finiteness, and ends with a status.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import InputError, RunError, lookup
from sparseflows.flow.solvers.adjoint import checked_rates, once_differentiable
from sparseflows.flow.solvers.by_row import RowWatch, finite_rows
from sparseflows.flow.solvers.late import odeint, odeint_adjoint
from sparseflows.specs.choices import FIXED, GRADIENTS, SOLVERS

State = tuple[Tensor, ...]
NORMS = ("rows", "batch")


class Status(enum.Enum):
    """How a solve ended; the value is what a person is told."""

    DONE = "done"
    NON_FINITE = "the state or the field became infinite or NaN"
    OUT_OF_STEPS = "the solver ran out of steps"
    UNDERFLOW = "the solver's step became too small for the precision"


class SolveFailed(RunError):
    """A solve that did not reach its end, where no value can be given back."""

    def __init__(self, status: Status, nfe: int, what: str = "") -> None:
        where = f"{what} cannot be solved: " if what else ""
        super().__init__(f"{where}{status.value} (after {nfe} evaluations of the field)")
        self.status, self.nfe, self.what = status, nfe, what

    def __reduce__(self) -> tuple[type, tuple[Status, int, str]]:
        return type(self), (self.status, self.nfe, self.what)  # a worker process gives it back pickled


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
        norm: what an adaptive method holds below the tolerance: the error of every single row (`rows`), or
            the root mean square over the batch (`batch`, torchdiffeq's own, cheaper by a third), which lets
            single rows go wrong by a hundred tolerances.
        compiled: without gradients, dopri5 and bosh3 are left to the compiled engine where it takes the field, which
            solves every row in steps of its own, whatever the norm; False keeps to torchdiffeq.
        processes: that have a share of the batch each: an adaptive method with the norm `batch` takes the steps that
            one process would take for all of it (`shared.solve_shared`).

    Example:
        >>> Solver().at(1e-8).rtol
        1e-08
        >>> Solver("rk4", steps=20).steps
        20
        >>> Solver("rk4")
        Traceback (most recent call last):
        ...
        sparseflows.errors.InputError: steps goes with the fixed-step methods (euler, midpoint, rk4) and ...
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    steps: int | None = None
    max_nfe: int = 20_000
    gradient: str = "backprop"
    norm: str = "rows"
    compiled: bool = True
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        lookup("solver method", self.method, SOLVERS)
        lookup("gradient", self.gradient, GRADIENTS)
        lookup("norm", self.norm, dict.fromkeys(NORMS))
        if (self.steps is None) == (self.method in FIXED):
            raise InputError(
                f"steps goes with the fixed-step methods ({', '.join(FIXED)}) and with them only; "
                f"method is {self.method}"
            )
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < float("inf"):
                raise InputError(f"{name} is {value!r}; a tolerance is a finite number above 0")
            object.__setattr__(self, name, float(value))
        for name in ("steps", "max_nfe"):
            value = getattr(self, name)
            if value is None and name == "steps":
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name} is {value!r}; it is a whole number from 1 on")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.compiled, bool):
            raise InputError(f"compiled is {self.compiled!r}; it is True or False")
        if self.processes.several and self.norm != "batch":
            raise InputError("a batch that several processes share is solved with the norm 'batch'")

    def at(self, tol: float) -> Solver:
        """The same solver at rtol = atol = `tol`."""
        return replace(self, rtol=tol, atol=tol)


@dataclass(frozen=True)
class Solution:
    """How a solve ended.

    Attributes:
        state: at the end; it counts only where the status is DONE. Of a block without a graph: points (B, D), and the
            integral of the trace along the path as it was walked (B,).
        nfe: evaluations spent, the largest number of a row where rows are solved by themselves.
        status: why it ended.
        steps: lengths of the steps that an adaptive method took, in order; empty for a fixed one, and for rows
            by themselves.
        failed: where rows were solved by themselves, which of them did not reach the end (B,); `status` is then that of
            the first. None: all rows share `status`.
    """

    state: State
    nfe: int
    status: Status
    steps: tuple[float, ...] = ()
    failed: Tensor | None = None

    def require(self) -> Solution:
        """Itself, or `SolveFailed`."""
        if self.status is not Status.DONE:
            raise SolveFailed(self.status, self.nfe)
        return self


class Counted(nn.Module):
    """The right-hand side with its evaluations counted and capped (a module: the adjoint wants one).

    The first evaluation looks whether the rates depend on anything trainable beside `reach`; None asks nothing.
    """

    def __init__(
        self, function: Callable[[Tensor, State], State], max_nfe: int, reach: Sequence[Tensor] | None = None
    ) -> None:
        super().__init__()
        self.function, self.max_nfe, self.reach = function, max_nfe, reach
        self.nfe = 0
        self.last: State = ()
        self.steps: list[float] = []

    def forward(self, t: Tensor, state: State) -> State:
        """The rates of the state at t (), in its shapes, counted; raises `SolveFailed` where that was one too many."""
        if self.nfe >= self.max_nfe:
            raise SolveFailed(Status.OUT_OF_STEPS, self.nfe)
        self.nfe += 1
        if self.reach is None:
            rates = self.function(t, state)
        else:
            rates, self.reach = checked_rates(self.function, t, state, self.reach), None
        self.last = tuple(tensor.detach() for tensor in (*state, *rates))  # a field may give numbers for NaN
        return rates


class Stepping(Counted):
    """The same for an adaptive method, which tells its steps; torchdiffeq warns where a fixed one is asked to."""

    def callback_accept_step(self, t: Tensor, state: State, step: Tensor) -> None:
        """Note a step () that torchdiffeq keeps from t () on; it calls this after each."""
        self.steps.append(float(step.detach()))


class Watched(Stepping):
    """The same under a `RowWatch`, which learns what is tried and what is kept."""

    def __init__(self, function: Callable[[Tensor, State], State], max_nfe: int, watch: RowWatch) -> None:
        super().__init__(partial(watch.rates, function), max_nfe)
        self.watch = watch

    def callback_step(self, t: Tensor, state: State, step: Tensor) -> None:
        """Note a step () that torchdiffeq tries from t () on; it calls this before each."""
        self.watch.begin_step(float(step))

    def callback_accept_step(self, t: Tensor, state: State, step: Tensor) -> None:
        """Note a step () that torchdiffeq keeps from t () on."""
        super().callback_accept_step(t, state, step)
        self.watch.accept_step()


def ends_of_time(state: State, reverse: bool) -> Tensor:
    """Times (2,) of a solve, scalars of the state's precision at least: 0 and 1, or 1 and 0.

    The last one is to be a step of its own (`step_t`): the interpolation that torchdiffeq ends with is of lower order
    than its steps.
    """
    return torch.tensor([1.0, 0.0] if reverse else [0.0, 1.0], dtype=state[0].dtype, device=state[0].device)


def last_of(path: State) -> State:
    """The state at the last of the times that torchdiffeq gives it for."""
    return tuple(tensor[-1] for tensor in path)


def _equal_steps(steps: int) -> Callable[[object, object, Tensor], Tensor]:
    """The grid of a fixed method. (torchdiffeq's own, from a step size, takes a step too many where 1/(1/n) > n.)"""

    def grid(function: object, state: object, times: Tensor) -> Tensor:
        shares = torch.arange(steps + 1, dtype=times.dtype, device=times.device) / steps
        return torch.lerp(times[0], times[-1], shares)

    return grid


def _worst_row(state: State) -> Tensor:
    """The largest root mean square over a row, of all that the state holds of it: the row's own error norm."""
    squares = torch.cat([tensor.reshape(len(tensor), -1) for tensor in state], dim=1).square()
    return squares.mean(1).max().sqrt()


def solve(
    function: Callable[[Tensor, State], State],
    state: State,
    solver: Solver,
    *,
    reverse: bool = False,
    parameters: Sequence[Tensor] = (),
    by_row: bool = False,
) -> Solution:
    """Integrate d state/dt = function(t, state) over t from 0 to 1, or from 1 to 0.

    Args:
        function: rates of the state, tensors of the state's shapes.
        state: tensors at the start.
        solver: method, tolerances, cap, kind of gradient.
        reverse: from 1 to 0 instead.
        parameters: what the adjoint is to give gradients for (backpropagation finds them itself).
        by_row: a row that fails is set aside and told by `Solution.failed`, and the others are carried on (`by_row`);
            without gradients.

    Returns:
        The state at the end. A solve that fails comes back with its status; only the backward pass of the
        adjoint, which has no caller to come back to, raises: `SolveFailed`, or torchdiffeq's AssertionError.
    """
    adjoint = solver.gradient == "adjoint" and torch.is_grad_enabled()
    kind = Stepping if solver.steps is None else Counted
    counted = kind(function, solver.max_nfe, parameters if adjoint else None)
    watch = None
    if by_row and solver.steps is None:
        watch = RowWatch(len(state[0]), state[0], solver.norm == "batch")
        counted = Watched(function, solver.max_nfe, watch)
    times = ends_of_time(state, reverse)
    there: dict[str, Any]
    back: dict[str, Any]
    if solver.steps is not None:
        there = back = {"grid_constructor": _equal_steps(solver.steps)}
    else:
        # The adjoint's backward solve ends where this one starts; torchdiffeq has it in its own, rising time.
        there, back = {"step_t": times[1:].clone()}, {"step_t": -times[:1] if reverse else times[:1].clone()}
        if solver.norm == "rows":
            there["norm"] = _worst_row
        if watch is not None:
            there["norm"] = watch.norm
    arguments = {"rtol": solver.rtol, "atol": solver.atol, "method": solver.method, "options": there}

    def integrate() -> State:
        if adjoint:
            arguments["adjoint_params"] = tuple(parameters)
            path = odeint_adjoint(counted, state, times, adjoint_options=dict(back), **arguments)
            return tuple(once_differentiable(tensor) for tensor in last_of(path))
        return last_of(odeint(counted, state, times, **arguments))

    solution = attempt(counted, state, integrate)
    return _with_failed(solution, state, watch) if by_row else solution


def _with_failed(solution: Solution, start: State, watch: RowWatch | None) -> Solution:
    if solution.state is start:  # the solve as a whole did not end
        return replace(solution, failed=torch.ones_like(start[0][:, 0], dtype=torch.bool))
    failed = ~finite_rows(solution.state)
    status = Status.NON_FINITE if bool(failed.any()) else Status.DONE
    if watch is not None and bool(watch.failed.any()):
        status = Status.NON_FINITE if watch.infinite or bool(failed.any()) else Status.UNDERFLOW
        failed = failed | watch.failed
    return replace(solution, failed=failed, status=status)


def attempt(counted: Counted, state: State, integrate: Callable[[], State]) -> Solution:
    """What `integrate` gives from `state`, and how that ended; `counted` is the function it evaluates."""
    try:
        end = integrate()
    except SolveFailed as failure:
        return Solution(state, counted.nfe, failure.status)
    except AssertionError:
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in counted.last)
        return Solution(state, counted.nfe, Status.UNDERFLOW if finite else Status.NON_FINITE)
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in end)
    return Solution(end, counted.nfe, Status.DONE if finite else Status.NON_FINITE, tuple(counted.steps))
