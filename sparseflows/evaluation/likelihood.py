"""Exact NLL ± s.e., KL gap and NFE: the one place that computes reported numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseflows.data.splits import Splits
from sparseflows.data.tables.mapped import MappedRows, Rows
from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import RunError
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.fields import MLPField
from sparseflows.flow.rows import carry_rows
from sparseflows.flow.smaller.compact import AnyFlow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import numpy_generator
from sparseflows.specs import EvaluateSpec

Array = NDArray[np.float64]
TRAIN_ROWS = 2048  # at most, for nll_train
SELECTION_TOLERANCE = 1e-4  # of the validation NLL that picks weights within a training


@dataclass(frozen=True)
class Likelihood:
    """log p of some rows by an adaptive solver with the exact divergence; each row has its own outcome.

    Attributes:
        log_prob: (N,), nats, standardised coordinates: NaN for a row that cannot be solved, −inf for one beyond all
            numbers.
        nfe: evaluations of the field in one solve (the largest over the chunks).
        status: how the first unsolved row ended; DONE where there is none.
    """

    log_prob: Array
    nfe: int
    status: Status

    @property
    def finite(self) -> Array:
        """log p (n,) of the rows that have one."""
        return self.log_prob[np.isfinite(self.log_prob)]

    @property
    def rows_unsolved(self) -> int:
        """Rows that could not be solved."""
        return int(np.isnan(self.log_prob).sum())

    @property
    def rows_infinite(self) -> int:
        """Rows beyond all numbers, with log p = −inf."""
        return int(np.isneginf(self.log_prob).sum())

    @property
    def usable(self) -> bool:
        """Whether enough of the rows have a number: at least half."""
        return 2 * len(self.finite) >= len(self.log_prob)

    @property
    def nll(self) -> float:
        """−mean log p, nats, over the rows that have one; NaN where none has."""
        return float(-self.finite.mean()) if len(self.finite) else math.nan

    @property
    def se(self) -> float:
        """Standard error of `nll` over its rows; NaN for a single row."""
        return standard_error(self.finite)

    def require(self, what: str) -> Likelihood:
        """Itself, or a RunError that says what cannot be computed, and why."""
        if self.status is not Status.DONE:
            first = int(np.isnan(self.log_prob).argmax()) + 1
            raise RunError(
                f"{what} of {self.rows_unsolved:,} of {len(self.log_prob):,} rows (the first: {first}) cannot be "
                f"computed: {self.status.value}"
            )
        return self


def standard_error(values: Array) -> float:
    """Sample standard deviation / √n; NaN for fewer than two values.

    Example:
        >>> standard_error(np.array([1.0, 2.0, 3.0, 4.0])) == math.sqrt(5 / 3 / 4)
        True
    """
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def rows_per_chunk(flow: BaseFlow, dim: int) -> int:
    """Rows to solve together: enough to keep the matrix products busy, few enough to stay near the caches."""
    widest = max((max(f.hidden, default=1) for f in flow.fields() if isinstance(f, MLPField)), default=64)
    return max(64, 2**18 // ((dim + 1) * widest))


def as_dtype(flow: AnyFlow, dtype: torch.dtype | str) -> AnyFlow:
    """`flow` itself where it has that precision already, else a copy in it."""
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return flow if all(p.dtype == wanted for p in flow.parameters()) else deep_copy(flow).to(wanted)


def selection_solver(settings: EvaluateSpec) -> Solver:
    """The solver of the validation NLL that weights are chosen by: as exact as a choice needs, one norm a batch."""
    return replace(reporting_solver(settings), norm="batch").at(SELECTION_TOLERANCE)


def as_points(flow: BaseFlow, rows: Array) -> Tensor:
    """Rows (N, D) as points in the flow's precision and on its device (N, D); one without parameters has float64."""
    like = next(flow.parameters(), torch.empty(0, dtype=torch.float64))
    return torch.as_tensor(rows, dtype=like.dtype, device=like.device)


@torch.no_grad()
def likelihood(
    flow: BaseFlow,
    rows: Array,
    solver: Solver,
    dtype: str = "float64",
    chunk: int | None = None,
    processes: Processes = ALONE,
) -> Likelihood:
    """Exact log p of `rows` (N, D), in standardised coordinates; rows that fail are solved again (`flow.rows`).

    Args:
        flow: of any precision; it is evaluated in `dtype`.
        rows: standardised.
        solver: how to solve; for reported numbers rtol = atol ≤ 1e-5.
        dtype: float32 or float64.
        chunk: rows solved together; None chooses by memory.
        processes: that each solve some of the chunks; all get the same numbers, to the bit those of one process.
    """
    precise = as_dtype(flow, dtype)
    points = as_points(precise, rows)

    def solve(part: Tensor) -> Likelihood:
        result = carry_rows(precise, part, solver)
        return Likelihood(result.log_prob().double().cpu().numpy(), result.nfe, result.status)

    chunks = points.split(chunk or rows_per_chunk(precise, points.shape[1]))
    parts = list(processes.spread(solve, chunks, lambda found: found.rows_unsolved == len(found.log_prob)))
    log_prob = np.full(len(rows), np.nan)  # where a whole chunk failed, those after it were not tried
    solved = np.concatenate([found.log_prob for found in parts])
    log_prob[: len(solved)] = solved
    status = next((found.status for found in parts if found.status is not Status.DONE), Status.DONE)
    return Likelihood(log_prob, max(found.nfe for found in parts), status)


def reporting_solver(settings: EvaluateSpec) -> Solver:
    """The solver of every reported likelihood: dopri5 at the tolerances of `evaluate`."""
    return Solver("dopri5", settings.rtol, settings.atol, max_nfe=settings.max_nfe)


def subset(rows: Rows, at_most: int | None, seed: int, purpose: str) -> Array:
    """All rows (N, D), or a seeded choice of `at_most` of them, in their order; those on disk are read."""
    if at_most is None or len(rows) <= at_most:
        return np.asarray(rows)
    generator = numpy_generator(seed, f"evaluate/{purpose}")
    if isinstance(rows, MappedRows):  # a permutation of so many would not be small
        return rows[np.sort(generator.choice(len(rows), at_most, replace=False))]
    return rows[np.sort(generator.permutation(len(rows))[:at_most])]


@dataclass(frozen=True)
class Evaluation:
    """What one stage's row of results.csv says of its likelihood. None: does not apply.

    Where test rows are unsolved or infinite, `nll_test`, its error and the KL gap are over the others.
    """

    nll_val: float
    nll_test: float
    nll_test_se: float
    n_test: int
    nll_train: float
    kl_gap: float | None
    kl_gap_se: float | None
    nfe: int
    rows_unsolved: int
    rows_infinite: int


def evaluate(
    flow: BaseFlow, splits: Splits, settings: EvaluateSpec, data_seed: int, processes: Processes = ALONE
) -> Evaluation | Status:
    """Exact NLL on training, validation and test rows, and the KL gap where the true density is known.

    The KL gap is the mean over the test rows of log p_true − log p_flow, a paired difference.

    Returns:
        The numbers, or the status of the solve where most of its rows have none.
    """
    solver = reporting_solver(settings)
    test = subset(splits.test, settings.max_rows, data_seed, "test")
    parts = {
        "train": subset(splits.train, min(TRAIN_ROWS, settings.max_rows or TRAIN_ROWS), data_seed, "train"),
        "validation": subset(splits.validation, settings.max_rows, data_seed, "validation"),
        "test": test,
    }
    found = {name: likelihood(flow, rows, solver, settings.dtype, processes=processes) for name, rows in parts.items()}
    for result in found.values():
        if not result.usable:
            return result.status if result.status is not Status.DONE else Status.NON_FINITE
    # Where the flow sees columns through maps, back to the standardised coordinates of the columns themselves.
    found = {
        name: replace(result, log_prob=result.log_prob + splits.standardiser.log_slope(parts[name]))
        for name, result in found.items()
    }
    gap = None
    if splits.log_prob_true is not None:
        gap = (splits.log_prob_true(test) - found["test"].log_prob)[np.isfinite(found["test"].log_prob)]
    return Evaluation(
        nll_val=found["validation"].nll,
        nll_test=found["test"].nll,
        nll_test_se=found["test"].se,
        n_test=len(test),
        nll_train=found["train"].nll,
        kl_gap=None if gap is None else float(gap.mean()),
        kl_gap_se=None if gap is None else standard_error(gap),
        nfe=found["test"].nfe,
        rows_unsolved=found["test"].rows_unsolved,
        rows_infinite=found["test"].rows_infinite,
    )
