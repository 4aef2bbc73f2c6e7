"""One affine layer whose matrix may be in compressed sparse rows (CSR), and products of such matrices."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from sparseflows.flow.fields import Layer


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
        for name in ("bias", "gate_weight", "gate_bias", "time_bias"):
            vector = getattr(layer, name)
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
        """y (n_out, B) for h (n_in, B)."""
        y = torch.addmm(self.bias.expand(-1, h.shape[1]), matrix, h)
        if gate is not None:
            y.mul_(gate)
        return y if self.time_bias is None else y.add_(self.time_bias * t)


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that CSR tensors are in beta
        return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)
