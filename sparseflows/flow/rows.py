"""Each row has its own outcome: those that fail in a solve are solved again, apart from the others and more exactly."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow.divergence import DivergenceKind
from sparseflows.flow.inputs import Carrier, check_on_failure, check_transforms
from sparseflows.flow.solvers.by_row import all_finite
from sparseflows.flow.solvers.ode import SolveFailed, Solver, Status
from sparseflows.flow.transform import Transformed, standard_normal_log_prob
from sparseflows.specs.choices import FIXED

# A path that was beyond this when it stopped runs off the numbers: log N(z) is -inf long before (1.3e154), while a path
# that explodes at a finite time stops by its steps, some ten powers of ten from where it began.
BEYOND = 1e100
OTHER_METHOD = "dopri8"
FEW = 32  # rows that are tried again however many of all rows they are
SHOWN = 5  # rows named in a message


@dataclass(frozen=True)
class Rows:
    """Points (B, D) carried one way, row by row.

    Attributes:
        points: (B, D) where they arrived; NaN for a row that cannot be solved, infinite for one that runs off.
        trace: (B,) ∫₀ᵀ tr ∂f/∂z dt; NaN and 0 for those.
        unsolved: (B,) bool, rows that no solve carried to the end.
        infinite: (B,) bool, rows beyond all numbers: their log p is −inf.
        nfe: evaluations of the field in the solve of all rows.
        status: how the first unsolved row ended; DONE where there is none.
        again: (B,) bool, rows that only a further attempt carried to the end, by itself or in another precision.
    """

    points: Tensor
    trace: Tensor
    unsolved: Tensor
    infinite: Tensor
    nfe: int
    status: Status
    again: Tensor

    def without_graph(self, density: bool) -> Rows:
        """The same where gradients are asked for: rows that only further attempts solved are unsolved.

        Where the `density` is wanted, one whose log p is −inf keeps it: that has no gradient.
        """
        lost = self.again & ~self.infinite & ~(torch.isneginf(self.log_prob()) & density)
        if not bool(lost.any()):
            return self
        return replace(
            self,
            points=self.points.masked_fill(lost.unsqueeze(1), torch.nan),
            trace=self.trace.masked_fill(lost, torch.nan),
            unsolved=self.unsolved | lost,
        )

    def log_prob(self) -> Tensor:
        """log p (B,) in nats of rows that were carried from data to noise: NaN where unsolved, −inf where infinite."""
        return standard_normal_log_prob(self.points) + self.trace

    def require(self) -> Rows:
        """Itself where every row was solved.

        Raises:
            SolveFailed: rows are unsolved; it says how many, and which are the first.
        """
        if bool(self.unsolved.any()):
            places = self.unsolved.nonzero().flatten().tolist()
            shown = ", ".join(str(place) for place in places[:SHOWN]) + (", …" if len(places) > SHOWN else "")
            raise SolveFailed(self.status, self.nfe, f"{len(places)} of {len(self.points)} rows (from 0: {shown})")
        return self


@torch.no_grad()
def carry_rows(
    flow: Carrier,
    points: Tensor,
    solver: Solver,
    *,
    reverse: bool = False,
    divergence: DivergenceKind | None = "exact",
    noise: str = "rademacher",
    generator: torch.Generator | None = None,
) -> Rows:
    """Carry points (B, D) from data to noise, or back with `reverse`; what fails is solved again by itself.

    A row that the solve of all cannot carry is solved once more in float64, and then by another method. Where most rows
    fail it is the flow's fault, and nothing is tried again.

    Args:
        flow: in any precision.
        points: (B, D); rows with NaN are unsolved, rows with an infinite entry are infinite.
        solver: of the first solve; the others keep its tolerances.
        reverse: noise to data.
        divergence: exact, hutchinson, or None to leave the trace out.
        noise: of hutchinson.
        generator: of hutchinson's noise.
    """
    options = {"reverse": reverse, "divergence": divergence, "noise": noise, "generator": generator, "by_row": True}
    left = None if len(points) and all_finite(points) else torch.isfinite(points).all(1).nonzero().flatten()
    if left is not None:
        found = flow.transform(points[left], solver=solver, **options) if len(left) else None
        return _solved_again(flow, points, left, found, solver, options)
    found = flow.transform(points, solver=solver, **options)
    assert found.failed is not None
    if found.status is Status.DONE and (flow.whitening is None or all_finite(found.points)):
        return Rows(found.points, found.trace, found.failed, found.failed, found.nfe, Status.DONE, found.failed)
    return _solved_again(flow, points, torch.arange(len(points), device=points.device), found, solver, options)


def _solved_again(
    flow: Carrier, points: Tensor, left: Tensor, found: Transformed | None, solver: Solver, options: dict[str, Any]
) -> Rows:
    """What comes of points (B, D) whose rows `left` (n,) were solved together, once those that failed are again."""
    ends, trace = points.clone(), torch.zeros_like(points[:, 0])
    reached = torch.zeros_like(trace, dtype=torch.float64)
    nfe, status = (0, Status.DONE) if found is None else (found.nfe, found.status)
    if found is not None:
        left = _keep(found, left, ends, trace, reached)
    again = torch.zeros_like(trace, dtype=torch.bool)
    again[left] = True
    if 0 < len(left) <= max(FEW, len(points) // 2):
        for precise, other, dtype in _attempts(flow, solver, points.dtype):
            try:
                more = precise.transform(points[left].to(dtype), solver=other, **options)
            except (RuntimeError, TypeError):  # a field that is written for one precision
                continue
            left = _keep(more, left, ends, trace, reached)
            if not len(left):
                break
    lost = torch.zeros_like(again)
    lost[left] = True
    infinite = torch.isinf(points).any(1) | torch.where(lost, reached >= BEYOND, torch.isinf(ends).any(1))
    unsolved = (lost & ~infinite) | torch.isnan(points).any(1)
    ends[infinite], trace[infinite] = torch.inf, 0.0
    ends[unsolved], trace[unsolved] = torch.nan, torch.nan
    if not bool(unsolved.any()):
        status = Status.DONE
    elif status is Status.DONE:
        status = Status.NON_FINITE
    return Rows(ends, trace, unsolved, infinite, nfe, status, again & ~unsolved)


def carried(
    flow: Carrier, rows: Tensor, on_failure: str, solver: Solver, *, reverse: bool = False, **how: Any
) -> Transformed | Rows:
    """Rows (B, D) carried, with their graph where gradients are enabled, and what `on_failure` says of the others.

    Args:
        flow: the flow.
        rows: (B, D).
        on_failure: `raise`, or `nan` for the rows that cannot be solved.
        solver: how to solve. With gradients no row is solved again.
        reverse: noise to data.
        how: `divergence`, `noise`, `generator` of `carry_rows`.

    Raises:
        InputError: NaN among the rows, where that is not allowed for.
        SolveFailed: a row that cannot be solved, where that is not allowed for.
    """
    check_on_failure(on_failure)
    check_transforms(solver.method)
    if not torch.is_grad_enabled() and not solver.processes.several:
        alone = carry_rows(flow, rows, solver, reverse=reverse, **how)
        if on_failure == "raise" and bool(alone.unsolved.any()):
            check_rows(rows)
            return alone.require()
        return alone
    inside = torch._C._functorch.is_functorch_wrapped_tensor(rows)
    if on_failure == "raise" and not inside:
        check_rows(rows)
    if on_failure == "raise":
        whole = flow.transform(rows, reverse=reverse, solver=solver, **how)
        if whole.status is Status.DONE or inside or solver.processes.several:
            return whole.require()
    alone = carry_rows(flow, rows, solver, reverse=reverse, **how)
    good = (~(alone.unsolved | alone.infinite | alone.again)).nonzero().flatten()
    parts, lost = _with_graph(flow, rows, good, solver, reverse=reverse, **how)
    alone = replace(alone, again=alone.again.index_fill(0, lost, True))
    alone = alone.without_graph(density=how.get("divergence") is not None and not reverse)
    if on_failure == "raise":
        replace(alone, nfe=whole.nfe, status=whole.status).require()
    for part, solved in parts:
        points = alone.points.index_put((part,), solved.points)
        alone = replace(alone, points=points, trace=alone.trace.index_put((part,), solved.trace))
    return alone


def _with_graph(
    flow: Carrier, rows: Tensor, chosen: Tensor, solver: Solver, **how: Any
) -> tuple[list[tuple[Tensor, Transformed]], Tensor]:
    """The `chosen` (n,) of rows (B, D) carried with their graph: places and where they arrived; the places that failed.

    What fails together is halved until the rows are found that fail alone.

    Raises:
        SolveFailed: more than a few of them do.
    """
    done, lost, waiting = list[tuple[Tensor, Transformed]](), [chosen[:0]], [chosen] if len(chosen) else []
    while waiting:
        part = waiting.pop()
        found = flow.transform(rows[part], solver=solver, **how)
        if found.status is Status.DONE:
            done.append((part, found))
        elif len(part) > 1:
            waiting += part.split((len(part) + 1) // 2)
        else:
            lost.append(part)
        if len(lost) > FEW:
            found.require()
    return done, torch.cat(lost)


def check_rows(points: Tensor) -> None:
    """Check that points (B, D) hold no NaN.

    Raises:
        InputError: they do; it names the first row.
    """
    wrong = torch.isnan(points).any(1)
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(f"row {row} (from 0) of the points holds NaN; drop it or fill it in, or take on_failure='nan'")


def _attempts(flow: Carrier, solver: Solver, dtype: torch.dtype) -> Iterator[tuple[Carrier, Solver, torch.dtype]]:
    precise = flow
    if dtype is not torch.float64:
        try:
            precise, dtype = copy.deepcopy(flow).double(), torch.float64
        except Exception:  # a field of one's own that holds what cannot be copied: a lock, an open file
            precise = flow
        else:
            yield precise, solver, dtype
    if solver.method not in (*FIXED, OTHER_METHOD):
        yield precise, replace(solver, method=OTHER_METHOD), dtype


def _keep(found: Transformed, rows: Tensor, ends: Tensor, trace: Tensor, reached: Tensor) -> Tensor:
    """Write what was found of `rows` (n,) into ends (B, D), trace (B,) and reached (B,), how far out; those failed."""
    assert found.failed is not None
    reached[rows] = found.points.abs().amax(1).double()
    ends[rows] = found.points.to(ends)
    trace[rows] = found.trace.to(trace)
    return rows[found.failed]
