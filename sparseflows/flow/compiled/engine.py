"""Fields and flows, handed to the C engine: pointers there, tensors back. All on the CPU, float32 or float64."""

import ctypes
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.structures import BlockStructure, ControlStructure, TableauStructure, pointer
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.by_row import all_finite
from sparseflows.flow.solvers.ode import Solution, Solver, Status
from sparseflows.flow.solvers.tableaus import TABLEAUS, Tableau

VALUE, EXACT, PROBED = range(3)  # no trace, the exact one, Hutchinson's; as in field.h
WIDEST = 256  # a hidden layer's neurons: wider matrices leave the caches, and the vendor's products are faster
MOST_DIMS = 16  # of an exact trace: more tangents than that fill products as wide as the vendor's
TILE = 8  # rows that go together, each on a lane of its own where steps are adaptive
FIRST_SHARE = 0.5  # of tolerance^(1/order): the step over τ that is tried to find the one that rows begin with
ROWS_OF_A_THREAD = 512  # at least: fewer are solved before a thread has begun
NO_MEMORY = 1
STATUSES = (Status.DONE, Status.NON_FINITE, Status.NON_FINITE, Status.OUT_OF_STEPS, Status.UNDERFLOW)  # as in solve.c


def takes(field: object, points: Tensor, exact: bool) -> bool:
    """Whether the engine is there and can evaluate `field` at `points` (B, D), with the `exact` trace.

    Not what PyTorch only pretends to compute (transforms of `torch.func`, traces, exports), and not a field whose call
    does more than its tensors say (hooks, parametrizations).
    """
    if type(field) is not MLPField or type(points) is not Tensor:
        return False
    if not field.is_plain() or not _readable(points, points.dtype):
        return False
    layers = field.linear_layers()
    return (
        all(_readable(tensor, points.dtype) for layer in layers for tensor in layer.tensors() if tensor is not None)
        and not torch.jit.is_tracing()
        and all(len(layer.bias) <= WIDEST for layer in layers[:-1])
        and (not exact or field.dim <= MOST_DIMS)
        and library(points.dtype) is not None
    )


def _readable(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether the engine can read the memory of `tensor` as numbers of that precision."""
    return (
        (type(tensor) is nn.Parameter or type(tensor) is Tensor)
        and tensor.is_cpu
        and tensor.dtype is dtype
        and tensor.layout is torch.strided
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


@dataclass(frozen=True)
class Walked:
    """Ends (B, D), traces (B,), and the gradients of the mean of −log N(end) − trace: block by block, and of each T."""

    ends: Tensor
    traces: Tensor
    gradients: list[list[Tensor]]
    of_end_times: list[float]


def walk(
    fields: Sequence[MLPField],
    end_times: Sequence[float],
    grids: Sequence[Sequence[float]],
    tableau: Tableau,
    points: Tensor,
    probes: Tensor | None = None,
    with_gradients: bool = False,
) -> Walked:
    """Carry points (B, D) from data to noise through all blocks, each on its grid of steps.

    `probes` (B, D) are Hutchinson's; None is the exact trace.
    """
    start, probes = points.detach().contiguous(), None if probes is None else probes.contiguous()
    ends, traces = torch.empty_like(start), torch.zeros_like(start[:, 0])
    handed = [BlockStructure.of(*one, with_gradients) for one in zip(fields, end_times, grids, strict=True)]
    blocks, method = (BlockStructure * len(handed))(*handed), TableauStructure.of(tableau)
    status = engine_of(start.dtype).walk(
        blocks, len(handed), _kind(probes), ctypes.byref(method), pointer(start), pointer(probes),
        ctypes.c_long(len(start)), TILE, int(with_gradients), pointer(ends), pointer(traces),
    )  # fmt: skip
    require_memory(status)
    return Walked(ends, traces, [one.gradients for one in handed], [block.of_end_time for block in blocks])


def match(field: MLPField, t: Tensor, points: Tensor, targets: Tensor) -> tuple[float, list[Tensor]]:
    """The mean of |f(t, z) − target|² over points and targets (B, D) at times (B, 1), and its gradients.

    The gradients are those by `field.tensors()`, in their order and shapes.
    """
    block, loss = BlockStructure.of(field, with_gradients=True), ctypes.c_double()
    where, wanted, times = points.contiguous(), targets.contiguous(), t.contiguous()
    status = engine_of(points.dtype).match(
        ctypes.byref(block), pointer(where), pointer(wanted), pointer(times), ctypes.c_long(len(where)), 2 * TILE,
        ctypes.byref(loss),
    )  # fmt: skip
    require_memory(status)
    return loss.value, block.gradients


def carry(
    field: MLPField,
    end_time: float,
    points: Tensor,
    solver: Solver,
    exact: bool = True,
    probes: Tensor | None = None,
    reverse: bool = False,
    by_row: bool = False,
    begin: float = 0.0,
) -> Solution:
    """Carry points (B, D) through a block by adaptive solves, each row with steps of its own; no gradient.

    A row's result is a function of that row alone, to the last bit. With several threads (`torch.set_num_threads`) each
    takes a run of the rows.

    Args:
        field, end_time: f and T of the block; of a part of its way, how long that is.
        points: (B, D), data or, with `reverse`, noise.
        solver: an adaptive method of `TABLEAUS`.
        exact: take the exact trace; without it and without probes, none.
        probes: (B, D) of Hutchinson's estimate.
        reverse: from T to 0.
        by_row: a row that fails fails alone, and all others are carried to their end.
        begin: where on its way the block's own time begins.
    """
    start, kind = points.detach().contiguous(), _kind(probes, exact)
    share = max(ROWS_OF_A_THREAD, -(-len(start) // torch.get_num_threads()))
    runs = [slice(first, first + share) for first in range(0, len(start), share)]

    def one(rows: slice) -> Solution:
        own = None if probes is None else probes[rows].contiguous()
        return _carry(field, end_time, start[rows], solver, kind, own, reverse, by_row=by_row, begin=begin)

    if len(runs) == 1:
        return one(runs[0])
    with ThreadPoolExecutor(len(runs)) as threads:
        parts = list(threads.map(one, runs))
    return Solution(
        tuple(torch.cat(tensors) for tensors in zip(*(part.state for part in parts), strict=True)),
        max(part.nfe for part in parts),
        next((part.status for part in parts if part.status is not Status.DONE), Status.DONE),
        failed=torch.cat([part.failed for part in parts if part.failed is not None]) if by_row else None,
    )


def choose_steps(
    field: MLPField, end_time: float, points: Tensor, solver: Solver, first_step: float, probes: Tensor | None = None
) -> Solution:
    """The steps of one adaptive solve of all points (B, D) together, from data to noise; arguments as in `carry`.

    `first_step` is to be tried first, over τ; without probes it is the exact trace.
    """
    start, kind = points.detach().contiguous(), _kind(probes)
    return _carry(field, end_time, start, solver, kind, probes, False, 0, first_step)


def _carry(
    field: MLPField,
    end_time: float,
    start: Tensor,
    solver: Solver,
    kind: int,
    probes: Tensor | None,
    reverse: bool,
    lanes: int = TILE,
    first_step: float | None = None,
    by_row: bool = False,
    begin: float = 0.0,
) -> Solution:
    # Every row with steps of its own, so many at a time; with 0 lanes all rows share theirs, and these are told.
    ends, traces = start.clone(), torch.zeros_like(start[:, 0])
    block, method = BlockStructure.of(field, end_time), _method(solver.method)
    first = first_step or FIRST_SHARE * solver.rtol ** (1 / method.order)
    rows, room = len(start) if by_row else None, 0 if lanes else solver.max_nfe
    control = ControlStructure.of(solver, first, reverse, rows, room, begin)
    status = engine_of(start.dtype).carry(
        ctypes.byref(block), kind, ctypes.byref(method), ctypes.byref(control), pointer(start),
        pointer(probes), ctypes.c_long(len(start)), min(lanes, len(start)), pointer(ends), pointer(traces),
    )  # fmt: skip
    require_memory(status == NO_MEMORY)
    found, failed = STATUSES[status], None
    good = control.statuses is None or not bool(control.statuses.any())
    if good and all_finite(ends) and all_finite(traces):
        failed = None if control.statuses is None else torch.zeros_like(traces, dtype=torch.bool)
    elif control.statuses is not None:
        finite = torch.isfinite(ends).all(1) & torch.isfinite(traces)
        ended = control.statuses.masked_fill((control.statuses == 0) & ~finite, STATUSES.index(Status.NON_FINITE))
        failed = ended != 0
        found = STATUSES[int(ended[failed][0])] if bool(failed.any()) else Status.DONE
    elif found is Status.DONE and not bool(torch.isfinite(ends).all() & torch.isfinite(traces).all()):
        found = Status.NON_FINITE
    return Solution((ends, traces), control.nfe, found, tuple(control.lengths[: control.taken]), failed)


@functools.cache  # a tenth of the time of a single row
def _method(name: str) -> TableauStructure:
    return TableauStructure.of(TABLEAUS[name])


def engine_of(dtype: torch.dtype) -> Any:
    """The library of a precision, which is there: the caller has asked `takes`."""
    found = library(dtype)
    assert found is not None, "the caller asks `takes` first"
    return found


def _kind(probes: Tensor | None, exact: bool = True) -> int:
    return PROBED if probes is not None else EXACT if exact else VALUE


def require_memory(refused: int) -> None:
    """Raise MemoryError where the engine was refused what it asked for."""
    if refused:
        raise MemoryError("the engine was refused the memory that it asked for")
