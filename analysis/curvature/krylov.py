"""Block Lanczos: one orthonormal basis and its image, from which every figure of a spectrum follows. Pure.

m random starts and k steps span a block Krylov space of n = m·k dimensions. With V (P, n) orthonormal and A V kept,
the eigenvalues of VᵀAV are the Ritz values, whose residuals are known; their weights in the start block integrate the
spectral density (block quadrature, Golub & Meurant 2010, ch. 6); tr VᵀAV is the exact trace on the space, and the rest
is probed.

One basis, not m runs side by side: Ritz values joined over runs of their own magnify the rounding of float32 products
until single ones are wrong (λ_min −0.918 for −0.876 in a trial).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.curvature.lanczos import EXHAUSTED, Array, Products
from sparseflows.errors import InputError


@dataclass(frozen=True, eq=False)
class Krylov:
    """A space that block Lanczos has spanned.

    Attributes:
        basis: V (P, n), orthonormal; its first `starts` columns span the start block.
        image: A V (P, n).
        starts: m.
    """

    basis: Array
    image: Array
    starts: int

    @property
    def products(self) -> int:
        """Products of the operator with a vector that it took: n."""
        return int(self.basis.shape[1])

    @cached_property
    def projected(self) -> Array:
        """VᵀAV (n, n), symmetric."""
        found = self.basis.T @ self.image
        return np.asarray((found + found.T) / 2)

    @cached_property
    def _eigen(self) -> tuple[Array, Array]:
        return np.linalg.eigh(self.projected)

    @property
    def values(self) -> Array:
        """Ritz values (n,), rising."""
        return self._eigen[0]

    @property
    def weights(self) -> Array:
        """The weights (n,) of the Ritz values, as the start block sees them; they sum to 1."""
        return np.asarray(np.mean(self._eigen[1][: self.starts] ** 2, axis=0))

    @cached_property
    def residuals(self) -> Array:
        """‖A y − θ y‖ (n,) of every Ritz pair: an eigenvalue of A is no farther from θ than that."""
        values, inside = self._eigen
        return np.asarray(np.linalg.norm(self.image @ inside - (self.basis @ inside) * values, axis=0))

    def vectors(self, chosen: slice | Array) -> Array:
        """The Ritz vectors (P, c) of the chosen Ritz values."""
        return np.asarray(self.basis @ self._eigen[1][:, chosen])


def block_lanczos(multiply: Products, start: Array, steps: int) -> Krylov:
    """Span the block Krylov space of `start` (P, m) with `steps` products of a block each.

    Where the space is exhausted, or is the whole of P, it ends earlier.

    Args:
        multiply: products with the operator.
        start: random, columns independent.
        steps: k, at least 1.

    Raises:
        InputError: no steps, no start, or a start block that is zero or dependent.
        RunError: a product is not finite.

    Example:
        Three steps from one vector know a matrix of rank 2 whole.

        >>> from scipy.sparse.linalg import aslinearoperator
        >>> matrix = np.diag([5.0, -2.0, 0.0, 0.0, 0.0, 0.0])
        >>> start = np.random.default_rng(0).standard_normal((6, 1))
        >>> found = block_lanczos(Products(aslinearoperator(matrix)), start, 5)
        >>> found.products, [round(float(x), 9) + 0.0 for x in found.values]
        (3, [-2.0, 0.0, 5.0])
    """
    size, starts = start.shape
    if steps < 1 or starts < 1:
        raise InputError(f"block Lanczos needs at least 1 step from 1 start, not {steps} from {starts}")
    block = _independent(start, 0.0)
    if block.shape[1] < starts:
        raise InputError("the start block of a Lanczos run is zero, or its columns depend on one another")
    most = min(size, starts * steps)
    basis, image, scale = np.empty((size, most), order="F"), np.empty((size, most), order="F"), 0.0
    known = 0
    while block.shape[1]:
        here = slice(known, known + block.shape[1])
        basis[:, here] = block
        product = image[:, here] = multiply(block)
        known = here.stop
        if known == most:
            break
        scale = max(scale, float(np.linalg.norm(product, axis=0).max()))
        fresh = _independent(beyond(basis[:, :known], product), EXHAUSTED * scale)[:, : most - known]
        block = _independent(beyond(basis[:, :known], fresh), 0.0)
    return Krylov(basis[:, :known], image[:, :known], starts)


def beyond(basis: Array, block: Array) -> Array:
    """What of a block (P, m) is orthogonal to a basis (P, n); the second time removes what rounding left."""
    for _ in range(2):
        block = block - basis @ (basis.T @ block)
    return block


def _independent(block: Array, least: float) -> Array:
    """An orthonormal basis (P, c) of the columns (P, m), without directions of at most that size."""
    if not block.shape[1]:
        return block
    directions, sizes, _ = np.linalg.svd(block, full_matrices=False)
    return np.asarray(directions[:, sizes > max(least, len(block) * np.finfo(np.float64).eps * float(sizes[0]))])
