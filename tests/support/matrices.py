"""Symmetric matrices of known spectrum, operators that count what they are asked for, and the loss they are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator

SIZE = 100


def rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def with_spectrum(eigenvalues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    basis = rotation(len(eigenvalues), rng)
    matrix = (basis * eigenvalues) @ basis.T
    return (matrix + matrix.T) / 2


def hessian_like(size: int, rng: np.random.Generator) -> np.ndarray:
    """Eigenvalues: 8 outliers of 2 to 50, a bulk of about 0.01, a tail of 12 negative ones down to -0.1."""
    bulk = np.abs(0.01 * rng.standard_normal(size - 20))
    return np.concatenate([np.geomspace(50, 2, 8), bulk, -0.1 * rng.uniform(0, 1, 12)])


def _spectra() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    clusters = [centre + 1e-6 * rng.standard_normal(SIZE // 5) for centre in (-1, 0, 0.5, 3, 3.2)]
    return {
        "dense SPD": rng.uniform(0.5, 10, SIZE),
        "indefinite": rng.standard_normal(SIZE),
        "low rank PSD": np.concatenate([rng.uniform(1, 5, 8), np.zeros(SIZE - 8)]),
        "low rank indefinite": np.concatenate([rng.uniform(1, 5, 5), -rng.uniform(1, 5, 4), np.zeros(SIZE - 9)]),
        "clustered": np.concatenate(clusters),
        "one outlier": np.concatenate([[100.0], rng.uniform(0, 1, SIZE - 1)]),
        "power law": np.arange(1.0, SIZE + 1) ** -2,
        "Hessian-like": hessian_like(SIZE, rng),
        "identity multiple": np.full(SIZE, 2.5),
        "repeated extremes": np.concatenate([np.full(10, 4.0), rng.uniform(-1, 1, SIZE - 20), np.full(10, -4.0)]),
        "all negative, tiny": -1e-9 * rng.gamma(1, 1, SIZE),
        "huge": 1e9 * rng.standard_normal(SIZE),
        # Two more outliers than the sketch of 30 products has columns: what it misses is as skewed as it can be.
        "just missed": np.concatenate([np.full(12, 1.0), np.zeros(SIZE - 12)]),
    }


SPECTRA = _spectra()
# "repeated extremes" stays diagonal: axes that are eigenvectors are a case of their own.
MATRICES = {
    name: np.diag(values) if name == "repeated extremes" else with_spectrum(values, np.random.default_rng(index))
    for index, (name, values) in enumerate(SPECTRA.items())
}


class Counting:
    """`operator` multiplies by `matrix`; `columns` is how many were multiplied, `calls` in how many blocks."""

    def __init__(self, matrix: np.ndarray, broken_after: int | None = None) -> None:
        self.matrix, self.broken_after = matrix, broken_after
        self.columns = self.calls = 0
        shape = matrix.shape
        self.operator = LinearOperator(shape, matvec=self.multiply, matmat=self.multiply, dtype=np.float64)

    def multiply(self, block: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.columns += block.shape[1] if block.ndim == 2 else 1
        product = self.matrix @ block
        if self.broken_after is not None and self.columns > self.broken_after:
            product[0] = np.nan
        return product


@dataclass(frozen=True)
class Quadratic:
    """½ θᵀAθ, in one term."""

    matrix: torch.Tensor
    terms: int = 1

    def total(self, flow, chosen):
        theta = torch.cat([p.flatten() for p in flow.parameters()])
        return theta @ self.matrix @ theta / 2
