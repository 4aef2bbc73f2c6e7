"""Vector fields whose sparse matrices are multiplied as such: what unstructured pruning saves in seconds.

Inside, everything is feature-major, (features, rows of the batch), and contiguous: a matrix in compressed
sparse rows (CSR) then adds whole rows to whole rows. Batches are cut into tiles that stay in the processor's
cache, and a tangent goes through all layers before the next one starts, so that what is done by element
meets its operands there. (`F.linear` with a CSR weight, and one product for all tangents, were both slower.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import MLPField, gaussian_velocity
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.compact import compact, with_fields
from sparseflows.flow.smaller.sparse_layer import SparseLayer, multiply, paths

# The share of zeros above which CSR is the faster (one thread, log p with the exact divergence, one matrix alone):
# measured from 0.76 to 0.80 at widths of 860 and 512, from 0.8 to 0.9 at 256, where there is little to gain.
BREAK_EVEN = 0.8
TILE_BYTES = 2**18  # of a tile (widest layer × rows); four of them fit into a second-level cache of 1 MiB


def to_sparse(flow: Flow, threshold: float | None = None) -> Flow:
    """A new flow that computes what `flow` computes, to rounding, multiplying only by weights that are not 0.

    Dead neurons are taken out first (see `compact`). Then every weight matrix whose share of zeros is above
    `threshold` is executed as compressed sparse rows, every other as it is. A field without such a matrix,
    or which is no `MLPField`, stays the field it was. The new flow is for inference: it gives no gradients,
    and refuses where they are asked for.

    Args:
        flow: masked or not; it is left as it is.
        threshold: share of zeros in [0, 1]; None takes `BREAK_EVEN`, above which the sparse product is faster.

    Raises:
        InputError: a threshold outside [0, 1].
    """
    limit = BREAK_EVEN if threshold is None else threshold
    if not 0 <= limit <= 1:
        raise InputError(f"threshold is {threshold}; it is a share of zeros, from 0 to 1")
    smaller = compact(flow)
    fields = [_sparse_field(field, limit) for field in smaller.fields()]
    if any(isinstance(field, SparseField) for field in fields):
        smaller = with_fields(smaller, fields).requires_grad_(False)
    return smaller


def sparsity(weight: Tensor) -> float:
    """Share of the entries of `weight` that are exactly 0."""
    return 1 - int(torch.count_nonzero(weight)) / weight.numel()


def _sparse_field(field: nn.Module, threshold: float) -> nn.Module:
    if not isinstance(field, MLPField) or not field.hidden:
        return field
    sparse = [sparsity(layer.weight) > threshold for layer in field.linear_layers()]
    return SparseField(field, sparse) if any(sparse) else field


class _Matrices(NamedTuple):
    """What a field multiplies by: the matrix of every layer, and for each input the first two together."""

    matrices: list[Tensor]
    paths: list[Tensor]


class SparseField(nn.Module):
    """An `MLPField` with some of its matrices executed as CSR. Implements `fields.Field`, without gradients.

    Args:
        field: with a hidden layer at least; its parameters are copied.
        sparse: for each layer, whether its matrix is to be CSR.
    """

    def __init__(self, field: MLPField, sparse: list[bool]) -> None:
        super().__init__()
        self.dim, self.time, self.base, self.activation = field.dim, field.time, field.base, field.activation
        self._sigma = ACTIVATIONS[field.activation]
        self.layers = nn.ModuleList(SparseLayer(*both) for both in zip(field.linear_layers(), sparse, strict=True))
        self._matrices: _Matrices | None = None
        self.register_load_state_dict_post_hook(_forget)

    @property
    def hidden(self) -> list[int]:
        """Neurons of each hidden layer."""
        return [layer.shape[0] for layer in self.sparse_layers()[:-1]]

    def sparse_layers(self) -> list[SparseLayer]:
        """The layers in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, SparseLayer)]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z): (B, D) → (B, D).

        Raises:
            InputError: a gradient would be needed.
        """
        self._refuse_gradients(t, z)
        values = [self._values(clock, points)[0].T for clock, points, _ in self._tiles(t, z)]
        return self._with_base(t, z, torch.cat(values))

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(t, z) and (∂f/∂z)v for v (K, B or 1, D): (B, D), (K, B, D). Raises as `forward`."""
        self._refuse_gradients(t, z, v)
        shortcuts = self._multiplied().paths if _is_identity(v) else ()
        values, columns = [], []
        for clock, points, rows in self._tiles(t, z):
            slopes: list[Tensor] = []
            value, gate = self._values(clock, points, slopes)
            pushed = self._pushed(slopes, v if v.shape[1] == 1 else v[:, rows], shortcuts)
            values.append(value.T)
            columns.append(pushed if gate is None else pushed.mul_(gate))
        f, u = torch.cat(values), torch.cat(columns, 2).transpose(1, 2)
        return self._with_base(t, z, f), u if self.base == "none" else u + gaussian_velocity(t) * v

    def _tiles(self, t: Tensor, z: Tensor) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """The batch in even parts: t () or (1, b), the points (D, b), and which rows they are."""
        width = max(self.hidden)
        parts = max(1, round(len(z) * width * z.element_size() / TILE_BYTES))
        size = -(-len(z) // parts)
        for start in range(0, len(z), size):
            rows = slice(start, start + size)
            yield (t[rows].T if t.ndim else t), z[rows].T.contiguous(), rows

    def _values(self, t: Tensor, h: Tensor, slopes: list[Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        """f (D, b) and the last layer's gate; ∂h/∂(W h) of every hidden layer, (n, b), is added to `slopes`."""
        *inner, last = self.sparse_layers()
        *matrices, closing = self._multiplied().matrices
        for layer, matrix in zip(inner, matrices, strict=True):
            gate = layer.gate(t)
            x = layer.value(t, h, matrix, gate)
            h = self._sigma.value(x)
            if slopes is not None:
                slope = self._sigma.derivative(x, h)
                slopes.append(slope if gate is None else slope.mul_(gate))
        gate = last.gate(t)
        return last.value(t, h, closing, gate), gate

    def _pushed(self, slopes: list[Tensor], v: Tensor, shortcuts: Sequence[Tensor]) -> Tensor:
        """(K, D, b): the tangents v (K, 1 or b, D) pushed through all layers, but for the last one's gate."""
        matrices = self._multiplied().matrices
        pushed = v.new_empty(len(v), self.dim, slopes[0].shape[1])
        scratch = [torch.empty_like(slope) for slope in slopes]
        shared = matrices[0] @ v[:, 0].T.contiguous() if v.shape[1] == 1 and not shortcuts else None  # (n, K)
        for k, end in enumerate(pushed):
            outputs = [*scratch, end]
            if shortcuts:
                done, u = 1, multiply(shortcuts[k], slopes[0], outputs[1])
            elif shared is not None:
                done, u = 0, shared[:, k : k + 1]
            else:
                done, u = 0, multiply(matrices[0], v[k].T.contiguous(), outputs[0])
            for index in range(done, len(slopes)):
                torch.mul(u, slopes[index], out=outputs[index])
                u = multiply(matrices[index + 1], outputs[index], outputs[index + 1])
        return pushed

    def _multiplied(self) -> _Matrices:
        if self._matrices is None:
            layers = self.sparse_layers()
            self._matrices = _Matrices([layer.matrix() for layer in layers], paths(layers[0], layers[1]))
        return self._matrices

    def _with_base(self, t: Tensor, z: Tensor, f: Tensor) -> Tensor:
        return f if self.base == "none" else f + gaussian_velocity(t) * z

    def _refuse_gradients(self, *inputs: Tensor) -> None:
        asked = (*inputs, self.sparse_layers()[-1].bias)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in asked):
            raise InputError(
                "a gradient was asked of a sparse flow, which is for inference only; "
                "use torch.no_grad(), or the flow that it was made from"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseField:
        self._matrices = None  # another device or precision
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_matrices": None}


def _forget(field: nn.Module, keys: object) -> None:
    """After a state was loaded: the matrices are those of the state before."""
    assert isinstance(field, SparseField)
    field._matrices = None


def _is_identity(v: Tensor) -> bool:
    """Is v (K, 1, D) the D unit tangents?"""
    if v.shape[1] != 1 or v.shape[0] != v.shape[2]:
        return False
    return torch.equal(v[:, 0], torch.eye(v.shape[2], dtype=v.dtype, device=v.device))
