"""The structures of field.h, adaptive.h, updates.h and training.h, and what Python puts into them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import TENSORS, MLPField
from sparseflows.flow.solvers.ode import Solver
from sparseflows.flow.solvers.tableaus import Tableau

ACTIVATION_ORDER = ("sigmoid", "tanh", "softplus", "relu", "silu")  # as in vector.h; TENSORS too, in field.h
assert tuple(sorted(ACTIVATION_ORDER)) == tuple(sorted(ACTIVATIONS))
OPTIMISER_ORDER = ("sgd", "adam", "adamw")  # as in updates.h

_KINDS = {"int": ctypes.c_int, "long": ctypes.c_long, "double": ctypes.c_double, "pointer": ctypes.c_void_p}


def _members(*declarations: str) -> list[tuple[str, Any]]:
    """The members of a structure, declared as in C: the kind, then the names."""
    return [(name, _KINDS[kind]) for kind, *names in map(str.split, declarations) for name in names]


def doubles(values: Sequence[float]) -> Any:
    """The values as an array in C, never an empty one."""
    return (ctypes.c_double * max(1, len(values)))(*values)


class BlockStructure(ctypes.Structure):
    """One block of a flow: a field's tensors, T, and the lengths of given steps over τ."""

    _fields_ = _members(
        "int layers activation based",
        "pointer width tensor gradient",
        "double end_time of_end_time",
        "int steps",
        "pointer step",
    )
    gradients: list[Tensor]
    kept: list[Any]  # what the pointers point to

    @classmethod
    def of(
        cls,
        field: MLPField,
        end_time: float = 1.0,
        steps: Sequence[float] = (),
        with_gradients: bool = False,
        into: Sequence[Tensor | None] | None = None,
    ) -> BlockStructure:
        """A block with `field` as it is now; `with_gradients` gives it zeros to add the gradients of the tensors to.

        `into` are tensors (…) to add them to in place of the zeros, contiguous ones; None where none is wanted.
        """
        layers = field.linear_layers()
        widths = (ctypes.c_int * (len(layers) + 1))(field.dim, *field.hidden, field.dim)
        pointers, targets = ((ctypes.c_void_p * (len(TENSORS) * len(layers)))() for _ in range(2))
        lengths = doubles(steps)
        kept: list[Any] = [widths, pointers, targets, lengths]
        gradients, given = [], iter(into or ())
        for place, tensor in enumerate(tensor for layer in layers for tensor in layer.tensors()):
            if tensor is None:
                continue
            kept.append(tensor.detach().contiguous())
            pointers[place] = kept[-1].data_ptr()
            target = next(given) if into is not None else torch.zeros_like(kept[-1]) if with_gradients else None
            if target is not None:
                gradients.append(target)
                targets[place] = target.data_ptr()
        block = cls(
            len(layers),
            ACTIVATION_ORDER.index(field.activation),
            int(field.base == "gaussian"),
            *map(ctypes.addressof, kept[:3]),
            end_time,
            0.0,
            len(steps),
            ctypes.addressof(lengths),
        )
        block.gradients, block.kept = gradients, kept
        return block


class TableauStructure(ctypes.Structure):
    """A Runge-Kutta method; `a` has s × s entries."""

    _fields_ = _members("int stages order", "pointer a b c error")
    order: int
    kept: list[Any]

    @classmethod
    def of(cls, tableau: Tableau) -> TableauStructure:
        """The same method in C."""
        s = len(tableau.b)
        a = [value for row in tableau.a for value in (*row, *[0.0] * (s - len(row)))]
        kept = [doubles(values) for values in (a, tableau.b, tableau.c, tableau.error)]
        found = cls(s, tableau.order, *map(ctypes.addressof, kept))
        found.kept = kept
        return found


class ControlStructure(ctypes.Structure):
    """What an adaptive solve is held to, and what it reports: `nfe`, and its first `taken` steps."""

    _fields_ = _members(
        "double rtol atol", "long max_nfe", "int by_row reverse", "double begin first", "long nfe", "pointer steps",
        "int room taken", "pointer status",
    )  # fmt: skip
    lengths: Any
    statuses: Tensor | None

    @classmethod
    def of(
        cls,
        solver: Solver,
        first_step: float,
        reverse: bool,
        rows: int | None = None,
        room: int = 0,
        begin: float = 0.0,
    ) -> ControlStructure:
        """The control of a solve by `solver` that tries `first_step` first; of `rows`, each ends by itself.

        It goes from t = `begin` to `begin` + T, or back. `statuses` are int32 (rows,). `room` lengths of steps are
        kept.
        """
        statuses = None if rows is None else torch.zeros(rows, dtype=torch.int32)
        lengths = (ctypes.c_double * room)()
        by_row = int(solver.norm == "rows")
        found = cls(
            solver.rtol, solver.atol, solver.max_nfe, by_row, int(reverse), begin, first_step, 0,
            ctypes.addressof(lengths), room, 0, pointer(statuses),
        )  # fmt: skip
        found.lengths, found.statuses = lengths, statuses
        return found


@dataclass
class Update:
    """An optimiser between two steps, with all that a step changes: P params as one vector each.

    Attributes:
        optimiser: one of `OPTIMISER_ORDER`.
        weight_decay, momentum, beta2, eps: of PyTorch's optimiser; `momentum` is Adam's first beta, too.
        clip: largest norm of the gradient; 0 for none.
        average_decay: of the averaged weights.
        weights, gradient: (P,).
        mean, square: the moments (P,); SGD has its momentum buffer alone.
        average: averaged weights (P,), if any.
        withheld, gone: uint8 (P,), 1 where gradients, and where weights, are held at 0.
        steps, averaged: how many steps the optimiser, and the average, have behind them.
    """

    optimiser: str
    weight_decay: float
    momentum: float
    beta2: float
    eps: float
    clip: float
    average_decay: float
    weights: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor | None
    average: Tensor | None
    withheld: Tensor | None
    gone: Tensor | None
    steps: int
    averaged: int


class UpdateStructure(ctypes.Structure):
    """An `Update` in C."""

    _fields_ = _members(
        "int optimiser", "long params", "double weight_decay momentum beta2 eps clip average_decay",
        "pointer weights gradient mean square average withheld gone", "double steps averaged",
    )  # fmt: skip

    @classmethod
    def of(cls, update: Update) -> UpdateStructure:
        """The same update in C, whose tensors are the live ones.

        Raises:
            AssertionError: a vector is not contiguous, or not of the length or the precision of the others.
        """
        size = len(update.weights)
        numbers = [getattr(update, name) for name, _ in cls._fields_[2:]]
        vectors = [one for one in numbers if isinstance(one, Tensor)]
        assert all(len(one) == size and one.is_contiguous() for one in vectors)
        assert {one.dtype for one in vectors} <= {update.weights.dtype, torch.uint8}
        handed = (pointer(one) if one is None or isinstance(one, Tensor) else one for one in numbers)
        return cls(OPTIMISER_ORDER.index(update.optimiser), size, *handed)


class CourseStructure(ctypes.Structure):
    """Batches, noise, times and rates of steps to be taken; C says how many were, and the loss of each."""

    _fields_ = _members("int steps taken", "pointer rows data noise time rate loss")
    taken: int
    losses: Any
    kept: list[Any]

    @classmethod
    def of(cls, draws: Sequence[tuple[Tensor, Tensor, Tensor]], rates: Sequence[float]) -> CourseStructure:
        """Steps on data and noise (B, D) and times (B, 1) each, contiguous; B may change from step to step."""
        rows = (ctypes.c_long * len(draws))(*(len(data) for data, _, _ in draws))
        pointers = [
            (ctypes.c_void_p * len(draws))(*(tensor.data_ptr() for tensor in kind)) for kind in zip(*draws, strict=True)
        ]
        losses = doubles([0.0] * len(draws))
        kept = [rows, *pointers, doubles(rates), losses]
        found = cls(len(draws), 0, *map(ctypes.addressof, kept))
        found.losses, found.kept = losses, [*kept, draws]
        return found


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where the numbers of a contiguous tensor (…) lie; NULL for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
