"""Lanczos runs from single vectors on any symmetric operator, as published estimators use them.

Pure: an operator (P x P, float64) and starting vectors in, numbers out. An operator is only ever asked for
`matmat`, with as many columns at once as the algorithm allows, and every column is counted.

One run of k steps gives k Ritz values with weights that sum to 1. Seen as point masses they integrate every
polynomial of degree up to 2k - 1 as the spectrum itself does, seen from the starting vector (Golub & Meurant
2010, ch. 6); over random starting vectors the mean is the spectral density, which is stochastic Lanczos
quadrature.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator

from sparseflows.errors import InputError, RunError

Array = NDArray[np.float64]

# Of the largest entry so far: a beta below it ends a run. What is left of a vector then is the rounding of the
# earlier steps, magnified; to go on from it would add second copies of Ritz values, of weight 1e-22.
EXHAUSTED = 1e-11
PUBLISHED_STEPS, PUBLISHED_STARTS = 100, 3


class Products:
    """Products with an operator, counted column by column, and refused where they are not finite.

    Raises:
        InputError: the operator is not square.
    """

    def __init__(self, operator: LinearOperator) -> None:
        rows, columns = operator.shape
        if rows != columns or rows < 1:
            raise InputError(f"the operator has shape {rows} x {columns}; a square one is wanted")
        self.operator = operator
        self.size = int(rows)
        self.count = 0

    def __call__(self, block: Array) -> Array:
        """A @ block, (P, K) to (P, K); no call of the operator where K is 0.

        Raises:
            RunError: the product has entries that are not finite.
        """
        if block.shape[1] == 0:
            return np.zeros_like(block)
        product = np.asarray(self.operator.matmat(block), dtype=np.float64)
        self.count += block.shape[1]
        if not np.isfinite(product).all():
            raise RunError(
                f"the Hessian product is not finite (product {self.count} of this estimate);"
                " the weights, the data or the solver's tolerance are at fault"
            )
        return product


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """One Lanczos run of k steps: QᵀAQ, tridiagonal.

    `alpha` (k,) is its diagonal, `beta` (k - 1,) lies beside it. The run took k products. k is smaller than asked for
    where the Krylov space was exhausted.
    """

    alpha: Array
    beta: Array

    @property
    def products(self) -> int:
        """Products of the operator with a vector that the run took."""
        return len(self.alpha)

    def ritz(self) -> tuple[Array, Array]:
        """Ritz values, rising, and their weights (k,) each; the weights sum to 1."""
        values, vectors = eigh_tridiagonal(self.alpha, self.beta)
        return values, vectors[0] ** 2


class _Run:
    """A Lanczos run under way; it asks for the product with `vector` until it is `finished`."""

    def __init__(self, start: Array, steps: int) -> None:
        norm = float(np.linalg.norm(start))
        if norm == 0.0:
            raise InputError("a Lanczos starting vector is zero")
        # Whatever projection the caller applied came before: trap 4 of the design is to do it after this line.
        self.basis = np.empty((steps, len(start)))
        self.basis[0] = start / norm
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.scale = 0.0
        self.finished = False

    @property
    def vector(self) -> Array:
        return self.basis[len(self.alpha)]

    def advance(self, product: Array) -> None:
        step = len(self.alpha)
        known = self.basis[: step + 1]
        self.alpha.append(float(known[step] @ product))
        rest = product
        for _ in range(2):  # twice is enough (Parlett 1998, § 6.9); once leaves copies of converged values
            rest = rest - known.T @ (known @ rest)
        beta = float(np.linalg.norm(rest))
        self.scale = max(self.scale, abs(self.alpha[-1]), beta)
        exhausted = beta <= max(EXHAUSTED, len(rest) * np.finfo(np.float64).eps) * self.scale
        self.finished = bool(exhausted) or step + 1 == len(self.basis)
        if not self.finished:
            self.beta.append(beta)
            self.basis[step + 1] = rest / beta

    def result(self) -> Tridiagonal:
        return Tridiagonal(np.array(self.alpha), np.array(self.beta))


def lanczos(operator: LinearOperator, starts: Array, steps: int) -> list[Tridiagonal]:
    """Independent Lanczos runs from the columns of `starts` (P, m), with full reorthogonalisation.

    The runs go in lock step: one product with m columns a step. A run whose Krylov space is exhausted ends
    early, the others go on. Memory: m x steps x P numbers. `starts` need no normalisation; they may lie in a
    subspace that the operator does not leave.

    Raises:
        InputError: a starting vector is zero, the shapes do not fit, or steps is below 1.
        RunError: a product is not finite.

    Example:
        Two distinct eigenvalues end the run after two steps.

        >>> from scipy.sparse.linalg import aslinearoperator
        >>> (run,) = lanczos(aslinearoperator(np.diag([1.0, 1.0, 4.0])), np.ones((3, 1)), steps=10)
        >>> run.products, [round(float(value), 9) for value in run.ritz()[0]]
        (2, [1.0, 4.0])
    """
    products = Products(operator)
    if starts.ndim != 2 or starts.shape[0] != products.size:
        raise InputError(f"starts have shape {starts.shape}; ({products.size}, m) is wanted")
    if steps < 1:
        raise InputError(f"Lanczos needs at least 1 step, not {steps}")
    runs = [_Run(start, min(steps, products.size)) for start in starts.T]
    while active := [run for run in runs if not run.finished]:
        block = products(np.column_stack([run.vector for run in active]))
        for run, product in zip(active, block.T, strict=True):
            run.advance(product)
    return [run.result() for run in runs]


class Published(NamedTuple):
    """What the published estimator gives; `trace` and `kappa` under its names, not in our sense."""

    lambda_max: float
    trace: float
    kappa: float


def published_estimator(runs: Sequence[Tridiagonal]) -> Published:
    """The published estimator of Sparse Flows (100 steps x 3 starts), for comparison with published tables only.

    Means over the runs of: the largest Ritz value; the sum of the positive Ritz values, without weights, which
    is no trace; the ratio of the largest to the smallest positive Ritz value, which a rounding error at 0
    makes as large as it likes. NaN ratio where a run has no positive Ritz value.
    """
    spectra = [run.ritz()[0] for run in runs]
    each = [(values[-1], np.sum(values[values > 0]), _ratio(values)) for values in spectra]
    return Published(*map(float, np.mean(each, axis=0)))


def _ratio(values: Array) -> float:
    # The largest over the smallest of the rising values (k,) that are positive.
    above = values[values > 0]
    return float(above[-1] / above[0]) if len(above) else math.nan
