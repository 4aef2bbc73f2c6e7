"""Fields and flows, handed to the C engine: pointers there, tensors back. All on the CPU, float32 or float64."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.compiled.build import library
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.ode import Carried, Solver, Status
from sparseflows.flow.solvers.tableaus import TABLEAUS, Tableau

NAMES = ("weight", "bias", "gate_weight", "gate_bias", "time_bias")  # of a layer's tensors, as in field.h
KINDS = ("value", "exact", "probed")
ACTIVATION_ORDER = ("sigmoid", "tanh", "softplus", "relu", "silu")
WIDEST = 256  # a hidden layer's neurons: wider matrices leave the caches, and the vendor's products are faster
MOST_DIMS = 16  # of an exact trace: more tangents than that fill products as wide as the vendor's
TILE = 8  # rows that go together
FIRST_STEP = 0.05  # of the first tile's adaptive solve; the others begin with the step that the tile before took
ROWS_OF_A_THREAD = 512  # at least: fewer are solved before a thread has begun
NO_MEMORY = 1
STATUSES = (Status.DONE, Status.NON_FINITE, Status.NON_FINITE, Status.OUT_OF_STEPS, Status.UNDERFLOW)  # as in solve.c


class _Block(ctypes.Structure):
    _fields_ = [
        ("layers", ctypes.c_int),
        ("activation", ctypes.c_int),
        ("based", ctypes.c_int),
        ("width", ctypes.c_void_p),
        ("tensor", ctypes.c_void_p),
        ("gradient", ctypes.c_void_p),
        ("end_time", ctypes.c_double),
        ("of_end_time", ctypes.c_double),
        ("steps", ctypes.c_int),
        ("step", ctypes.c_void_p),
    ]


class _Tableau(ctypes.Structure):
    _fields_ = [
        ("stages", ctypes.c_int),
        ("order", ctypes.c_int),
        ("a", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("c", ctypes.c_void_p),
        ("error", ctypes.c_void_p),
    ]


class _Control(ctypes.Structure):
    _fields_ = [
        ("rtol", ctypes.c_double),
        ("atol", ctypes.c_double),
        ("max_nfe", ctypes.c_long),
        ("by_row", ctypes.c_int),
        ("reverse", ctypes.c_int),
        ("first", ctypes.c_double),
        ("nfe", ctypes.c_long),
        ("steps", ctypes.c_void_p),
        ("room", ctypes.c_int),
        ("taken", ctypes.c_int),
    ]


def takes(field: object, points: Tensor, exact: bool) -> bool:
    """Can the engine evaluate `field` at `points` (B, D), and is it there?

    Not what PyTorch only pretends to compute: transforms of `torch.func`, traces, exports.
    """
    if type(field) is not MLPField or type(points) is not Tensor:
        return False
    layers = field.linear_layers()
    weight = layers[0].weight
    return (
        points.device.type == weight.device.type == "cpu"
        and type(weight) is nn.Parameter
        and weight.dtype == points.dtype
        and not torch._C._functorch.is_functorch_wrapped_tensor(points)
        and not torch.jit.is_tracing()
        and all(len(layer.bias) <= WIDEST for layer in layers[:-1])
        and (not exact or field.dim <= MOST_DIMS)
        and library(points.dtype) is not None
    )


@dataclass
class _Handed:
    """A block's structure and all that its pointers point to."""

    fields: tuple[Any, ...]
    kept: list[Any]
    gradients: list[Tensor]


def tensors_of(field: MLPField) -> list[Tensor]:
    """The field's parameters in the order that gradients come back in."""
    return [t for layer in field.linear_layers() for name in NAMES if (t := getattr(layer, name)) is not None]


def _hand(field: MLPField, end_time: float, steps: Sequence[float], with_gradients: bool) -> _Handed:
    layers = field.linear_layers()
    widths = (ctypes.c_int * (len(layers) + 1))(field.dim, *field.hidden, field.dim)
    pointers = (ctypes.c_void_p * (len(NAMES) * len(layers)))()
    targets = (ctypes.c_void_p * (len(NAMES) * len(layers)))()
    kept: list[Any] = [widths, pointers, targets]
    gradients = []
    for place, tensor in enumerate(layer._parameters[name] for layer in layers for name in NAMES):
        if tensor is None:
            continue
        whole = tensor.detach().contiguous()
        kept.append(whole)
        pointers[place] = whole.data_ptr()
        if with_gradients:
            gradient = torch.zeros_like(whole)
            gradients.append(gradient)
            targets[place] = gradient.data_ptr()
    lengths = (ctypes.c_double * max(1, len(steps)))(*steps)
    kept.append(lengths)
    values = (
        len(layers),
        ACTIVATION_ORDER.index(field.activation),
        int(field.base == "gaussian"),
        ctypes.addressof(widths),
        ctypes.addressof(pointers),
        ctypes.addressof(targets),
        end_time,
        0.0,
        len(steps),
        ctypes.addressof(lengths),
    )
    return _Handed(values, kept, gradients)


def _engine(dtype: torch.dtype) -> ctypes.CDLL:
    found = library(dtype)
    assert found is not None, "the caller asks `takes` first"
    return found


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def evaluate(field: MLPField, t: Tensor, z: Tensor, kind: str, probes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """f(t, z) (B, D) and its trace (B,), zeros for kind `value`; no gradient.

    Args:
        field: one that `takes` takes.
        t: a scalar, or (B, 1).
        z: (B, D).
        kind: value, exact, or probed (Hutchinson).
        probes: (B, D) of probed.
    """
    points = z.detach().contiguous()
    velocity, trace = torch.empty_like(points), torch.zeros_like(points[:, 0])
    probes = None if probes is None else probes.contiguous()
    times = t.detach().to(points.dtype).contiguous()
    handed = _hand(field, 1.0, (), with_gradients=False)
    block = _Block(*handed.fields)
    status = _engine(points.dtype).evaluate(
        ctypes.byref(block), KINDS.index(kind), _pointer(points), _pointer(probes), _pointer(times),
        int(times.numel() > 1), ctypes.c_long(len(points)), 2 * TILE, _pointer(velocity), _pointer(trace),
    )  # fmt: skip
    _check(status)
    return velocity, trace


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
    kind: str,
    probes: Tensor | None = None,
    with_gradients: bool = False,
) -> Walked:
    """Carry points (B, D) from data to noise through all blocks, each on its grid of steps."""
    start = points.detach().contiguous()
    probes = None if probes is None else probes.contiguous()
    ends, traces = torch.empty_like(start), torch.zeros_like(start[:, 0])
    handed = [_hand(f, end, steps, with_gradients) for f, end, steps in zip(fields, end_times, grids, strict=True)]
    blocks = (_Block * len(handed))(*(_Block(*one.fields) for one in handed))
    constants, held = _constants(tableau)
    status = _engine(start.dtype).walk(
        blocks, len(handed), KINDS.index(kind), ctypes.byref(constants), _pointer(start), _pointer(probes),
        ctypes.c_long(len(start)), TILE, int(with_gradients), _pointer(ends), _pointer(traces),
    )  # fmt: skip
    _check(status)
    del held
    return Walked(ends, traces, [one.gradients for one in handed], [block.of_end_time for block in blocks])


def match(field: MLPField, t: Tensor, points: Tensor, targets: Tensor) -> tuple[float, list[Tensor]]:
    """The mean of |f(t, z) − target|² over rows (B, D) with times (B, 1), and its gradients (see `tensors_of`)."""
    handed = _hand(field, 1.0, (), with_gradients=True)
    block, loss = _Block(*handed.fields), ctypes.c_double()
    where, wanted, times = points.contiguous(), targets.contiguous(), t.contiguous()
    status = _engine(points.dtype).match(
        ctypes.byref(block), _pointer(where), _pointer(wanted), _pointer(times), ctypes.c_long(len(where)), 2 * TILE,
        ctypes.byref(loss),
    )  # fmt: skip
    _check(status)
    return loss.value, handed.gradients


def carry(
    field: MLPField,
    end_time: float,
    points: Tensor,
    solver: Solver,
    kind: str,
    probes: Tensor | None = None,
    reverse: bool = False,
) -> Carried:
    """Carry points (B, D) through a block by adaptive solves, each tile of rows with steps of its own; no gradient.

    With several threads (`torch.set_num_threads`) each takes a run of the rows.

    Args:
        field, end_time: f and T of the block.
        points: (B, D), data or, with `reverse`, noise.
        solver: an adaptive method of `TABLEAUS`.
        kind: value, exact, or probed (Hutchinson).
        probes: (B, D) of probed.
        reverse: from T to 0.
    """
    start = points.detach().contiguous()
    probes = None if probes is None else probes.contiguous()
    share = max(ROWS_OF_A_THREAD, -(-len(start) // torch.get_num_threads()))
    runs = [slice(first, first + share) for first in range(0, len(start), share)]

    def one(rows: slice) -> Carried:
        return _carry(field, end_time, start[rows], solver, kind, None if probes is None else probes[rows], reverse)

    if len(runs) == 1:
        return one(runs[0])
    with ThreadPoolExecutor(len(runs)) as threads:
        parts = list(threads.map(one, runs))
    return Carried(
        torch.cat([part.ends for part in parts]),
        torch.cat([part.traces for part in parts]),
        max(part.nfe for part in parts),
        next((part.status for part in parts if part.status is not Status.DONE), Status.DONE),
    )


def choose_steps(
    field: MLPField,
    end_time: float,
    points: Tensor,
    solver: Solver,
    first_step: float,
    kind: str,
    probes: Tensor | None = None,
) -> Carried:
    """The steps of one adaptive solve of all points (B, D) together, from data to noise.

    Args:
        field, end_time: f and T of the block.
        points: (B, D).
        solver: an adaptive method of `TABLEAUS`.
        first_step: to try first, over τ.
        kind: exact, or probed (Hutchinson).
        probes: (B, D) of probed.
    """
    return _carry(field, end_time, points.detach().contiguous(), solver, kind, probes, False, len(points), first_step)


def _carry(
    field: MLPField,
    end_time: float,
    start: Tensor,
    solver: Solver,
    kind: str,
    probes: Tensor | None,
    reverse: bool,
    tile: int = TILE,
    first_step: float = FIRST_STEP,
) -> Carried:
    ends, traces = torch.empty_like(start), torch.zeros_like(start[:, 0])
    handed = _hand(field, end_time, (), with_gradients=False)
    block = _Block(*handed.fields)
    constants, held = _constants(TABLEAUS[solver.method])
    steps = (ctypes.c_double * solver.max_nfe)()
    by_row = int(solver.norm == "rows")
    control = _Control(
        solver.rtol,
        solver.atol,
        solver.max_nfe,
        by_row,
        int(reverse),
        first_step,
        0,
        ctypes.addressof(steps),
        len(steps),
        0,
    )
    status = _engine(start.dtype).carry(
        ctypes.byref(block), KINDS.index(kind), ctypes.byref(constants), ctypes.byref(control), _pointer(start),
        _pointer(probes), ctypes.c_long(len(start)), tile, _pointer(ends), _pointer(traces),
    )  # fmt: skip
    del held
    if status == NO_MEMORY:
        _check(status)
    found = STATUSES[status]
    if found is Status.DONE and not bool(torch.isfinite(ends).all() & torch.isfinite(traces).all()):
        found = Status.NON_FINITE
    return Carried(ends, traces, control.nfe, found, tuple(steps[: control.taken]))


def _constants(tableau: Tableau) -> tuple[_Tableau, list[Any]]:
    s = len(tableau.b)
    a = (ctypes.c_double * (s * s))()
    for i, row in enumerate(tableau.a):
        for j, value in enumerate(row):
            a[i * s + j] = value
    vectors = [(ctypes.c_double * len(values))(*values) for values in (tableau.b, tableau.c, tableau.error)]
    held: list[Any] = [a, *vectors]
    return _Tableau(s, tableau.order, *(ctypes.addressof(one) for one in held)), held


def _check(status: int) -> None:
    if status:
        raise MemoryError("the engine was refused the memory that it asked for")


assert tuple(sorted(ACTIVATION_ORDER)) == tuple(sorted(ACTIVATIONS))
