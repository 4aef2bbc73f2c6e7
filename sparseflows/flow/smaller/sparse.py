"""Vector fields whose sparse matrices are multiplied as such: what unstructured pruning saves in seconds.

Inside, everything is feature-major, (features, rows of the batch), and contiguous: a matrix in compressed
sparse rows (CSR) then adds whole rows to whole rows. Batches are cut into tiles that stay in the processor's
cache, and a tangent goes through all layers before the next one starts, so that what is done by element
meets its operands there. (`F.linear` with a CSR weight, and one product for all tangents, were both slower.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS, Activation
from sparseflows.flow.calls import is_plain
from sparseflows.flow.fields import TENSORS, Layer, MLPField, gaussian_velocity
from sparseflows.flow.smaller.compact import AnyFlow, compact, with_fields

# The share of zeros above which CSR is the faster (one thread, log p with the exact divergence, one matrix alone):
# measured from 0.76 to 0.80 at widths of 860 and 512, from 0.8 to 0.9 at 256, where there is little to gain.
BREAK_EVEN = 0.8
TILE_BYTES = 2**18  # of a tile (widest layer × rows); four of them fit into a second-level cache of 1 MiB


def to_sparse(flow: AnyFlow, threshold: float | None = None) -> AnyFlow:
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
    executed = any(isinstance(field, SparseField) for field in fields)
    return with_fields(smaller, fields).requires_grad_(False) if executed else smaller


def sparsity(weight: Tensor) -> float:
    """The share of the entries of `weight` (n_out, n_in) that are exactly 0."""
    return 1 - int(torch.count_nonzero(weight)) / weight.numel()


def _sparse_field(field: nn.Module, threshold: float) -> nn.Module:
    if not isinstance(field, MLPField) or not field.hidden or not field.is_plain():
        return field
    sparse = [sparsity(layer.weight) > threshold for layer in field.linear_layers()]
    return SparseField(field, sparse) if any(sparse) else field


class SparseLayer(nn.Module):
    """`fields.Layer` for feature-major h (n_in, B), its matrix dense or CSR; without gradients.

    Args:
        layer: whose parameters are copied.
        sparse: keep and multiply only the weights that are not 0.
    """

    rows: Tensor
    columns: Tensor
    bias: Tensor
    gate_weight: Tensor | None
    gate_bias: Tensor | None
    time_bias: Tensor | None

    def __init__(self, layer: Layer, sparse: bool) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.shape, self.sparse = tuple(weight.shape), sparse
        rows = columns = torch.empty(0, dtype=torch.int32, device=weight.device)
        values = weight.clone()
        if sparse:
            entries = weight != 0
            rows, columns, values = _row_offsets(entries.sum(1)), entries.nonzero()[:, 1].int(), weight[entries]
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.values = nn.Parameter(values, requires_grad=False)
        for name, vector in zip(TENSORS[1:], layer.tensors()[1:], strict=True):
            kept = None if vector is None else nn.Parameter(vector.detach()[:, None].clone(), requires_grad=False)
            self.register_parameter(name, kept)

    def matrix(self) -> Tensor:
        """W (n_out, n_in), as it is to be multiplied: strided or CSR."""
        if not self.sparse:
            return self.values.detach()
        return _csr(self.rows, self.columns, self.values.detach(), self.shape)

    def gate(self, t: Tensor) -> Tensor | None:
        """sigmoid(w_g t + b_g) for t () or (1, B): (n_out, 1) or (n_out, B); None without gates."""
        if self.gate_weight is None or self.gate_bias is None:
            return None
        return torch.sigmoid(self.gate_weight * t + self.gate_bias)

    def value(self, t: Tensor, h: Tensor, matrix: Tensor, gate: Tensor | None) -> Tensor:
        """y (n_out, B) for t () or (1, B), h (n_in, B), W (n_out, n_in) as `matrix`, and the gate (n_out, 1 or B)."""
        y = torch.addmm(self.bias.expand(-1, h.shape[1]), matrix, h)
        if gate is not None:
            y.mul_(gate)
        return y if self.time_bias is None else y.add_(self.time_bias * t)


class SparseField(nn.Module):
    """An `MLPField` with some of its matrices executed as CSR. Implements `fields.Field`, without gradients.

    Args:
        field: with a hidden layer at least; its parameters are copied.
        sparse: for each layer, whether its matrix is to be CSR.
    """

    def __init__(self, field: MLPField, sparse: list[bool]) -> None:
        super().__init__()
        self.dim, self.time, self.base, self.activation = field.dim, field.time, field.base, field.activation
        self.layers = nn.ModuleList(SparseLayer(*both) for both in zip(field.linear_layers(), sparse, strict=True))
        # Where the values lie, what they were, and what was made of them.
        self._made: tuple[list[int], list[Tensor], tuple[list[Tensor], list[Tensor]]] | None = None
        self.register_load_state_dict_post_hook(_forget)

    @property
    def hidden(self) -> list[int]:
        """Neurons of each hidden layer."""
        return [layer.shape[0] for layer in self.sparse_layers()[:-1]]

    @property
    def _sigma(self) -> Activation:
        return ACTIVATIONS[self.activation]

    def sparse_layers(self) -> list[SparseLayer]:
        """The layers in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, SparseLayer)]

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z) (B, D) for t () or (B, 1) and z (B, D).

        Raises:
            InputError: a gradient would be needed.
        """
        self._refuse_gradients(t, z)
        values = [self._values(clock, points)[0].T for clock, points, _ in self._tiles(t, z)]
        return self._with_base(t, z, torch.cat(values))

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(t, z) (B, D) and (∂f/∂z)v (K, B, D), for z (B, D) and v (K, B or 1, D). Raises as `forward`."""
        self._refuse_gradients(t, z, v)
        shortcuts = self._multiplied()[1] if _are_units(v) else ()
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
        *matrices, closing = self._multiplied()[0]
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
        matrices = self._multiplied()[0]
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

    def _multiplied(self) -> tuple[list[Tensor], list[Tensor]]:
        """The matrix of every layer, and for each input the first two together; kept until a value changes.

        Raises:
            InputError: a layer has hooks, masks or parametrizations.
        """
        layers = self.sparse_layers()
        places = [layer.values.data_ptr() for layer in layers]
        # Of a dense matrix the memory itself is multiplied; of the others, and of the first, products are kept.
        values = [layer.values.detach() for index, layer in enumerate(layers) if layer.sparse or index == 0]
        if self._made is None or self._made[0] != places or not all(map(torch.equal, self._made[1], values)):
            for layer in layers:
                if not is_plain(layer, SparseLayer) or "values" not in dict(layer.named_parameters()):
                    raise InputError(
                        "a layer of this sparse flow has hooks, masks or parametrizations, which it cannot carry out; "
                        "put them on the flow that it was made from, then to_sparse()"
                    )
            matrices, products = [layer.matrix() for layer in layers], paths(layers[0], layers[1])
            self._made = places, [value.clone() for value in values], (matrices, products)
        return self._made[2]

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
        _forget(self)  # another device or precision
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": None}


def _forget(field: nn.Module, keys: object = None) -> None:
    """After a state was loaded: the matrices are those of the state before."""
    assert isinstance(field, SparseField)
    field._made = None


def _are_units(v: Tensor) -> bool:
    """Is v (K, 1 or B, D) the D unit tangents?"""
    wide = v.shape[1] != 1 or v.shape[0] != v.shape[2]
    return not wide and torch.equal(v[:, 0], torch.eye(v.shape[2], dtype=v.dtype, device=v.device))


def multiply(matrix: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """matrix (n, m), strided or CSR, times x (m, B), written to `out` (n, B), which is returned."""
    return torch.addmm(out, matrix, x, beta=0, out=out)


def paths(first: SparseLayer, second: SparseLayer) -> list[Tensor]:
    """W₂ diag(column k of W₁) for every input k, CSR (n₂, n₁), without its zeros.

    They push the k-th unit tangent through two layers at once, W₂(W₁e_k ⊙ slope) = (W₂ diag(W₁e_k)) slope,
    at the cost of the paths that exist. Empty where W₂ is dense. (Even with a dense W₁ it was not slower,
    for the tangents need not be formed; it costs the memory of D times W₂.)
    """
    if not second.sparse:
        return []
    row_of = torch.repeat_interleave(second.rows.diff())
    products = []
    for scale in first.matrix().to_dense().T:
        values = second.values.detach() * scale[second.columns]
        kept = values != 0
        rows = _row_offsets(torch.bincount(row_of[kept], minlength=second.shape[0]))
        products.append(_csr(rows, second.columns[kept], values[kept], second.shape))
    return products


def _row_offsets(counts: Tensor) -> Tensor:
    """CSR's row offsets (n + 1,) from the entries of every row, (n,); int32, for MKL takes no other."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that CSR tensors are in beta
        return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)
