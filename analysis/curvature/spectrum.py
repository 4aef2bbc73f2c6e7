"""The spectrum of a symmetric operator: all of it, or what one block Lanczos and a few probes tell. Pure.

Everything follows from the same products: extreme eigenvalues with residuals, the trace with its standard error, ‖A‖_F,
the figures of `figures`, and the density.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse.linalg import LinearOperator

from analysis.curvature.figures import Figures, figures
from analysis.curvature.krylov import block_lanczos
from analysis.curvature.lanczos import Array, Products
from analysis.curvature.trace import TraceEstimate, trace_beyond

STARTS, STEPS, PROBES = 4, 30, 16  # against whole spectra: λ_max to 1e-9, the trace's s.e. 0.2 %, 136 products
COLUMNS = 32  # of the identity, multiplied together where the whole matrix is wanted
WIDTH = 0.01  # of the spectrum's extent: standard deviation of the Gaussians of a spectral density
CONVERGED = 1e-3  # of max |λ|, a residual; the eigenvalue itself is then nearer by its square over the gap

Blocks = Mapping[str, slice] | None


@dataclass(frozen=True, eq=False)
class Spectrum:
    """What is known of the P eigenvalues of a symmetric matrix A.

    Attributes:
        values: (n,), rising: Ritz values, or all eigenvalues.
        residuals: (n,), ‖A v − λ v‖ of their unit vectors: an eigenvalue is no farther from λ than that.
        weights: (n,), which share of the P eigenvalues each stands for; they sum to 1.
        size: P.
        trace: tr A with its standard error, and by blocks of the diagonal.
        norm: ‖A‖_F.
        whole: all eigenvalues were computed.
        vectors: (P, k) unit vectors of the k largest values, the largest first.
    """

    values: Array
    residuals: Array
    weights: Array
    size: int
    trace: TraceEstimate
    norm: float
    whole: bool
    vectors: Array

    @property
    def extremes(self) -> tuple[float, float]:
        """λ_min and λ_max, algebraic."""
        return float(self.values[0]), float(self.values[-1])

    @property
    def converged(self) -> bool:
        """Both extreme eigenvalues have residuals below a thousandth of max |λ|."""
        return bool(max(self.residuals[0], self.residuals[-1]) <= CONVERGED * np.max(np.abs(self.values)))

    @cached_property
    def figures(self) -> Figures:
        """Effective rank, κ₈₀, outliers and negative curvature."""
        return figures(self.values, self.residuals, self.size, self.trace.value, self.trace.interval(0.95))


def estimated(
    operator: LinearOperator,
    rng: np.random.Generator,
    *,
    blocks: Blocks = None,
    starts: int = STARTS,
    steps: int = STEPS,
    probes: int = PROBES,
    top: int = 0,
) -> Spectrum:
    """The spectrum as starts · steps + probes products tell it, fewer where that is more than P.

    Args:
        operator: symmetric, (P, P).
        rng: of the Gaussian start block and the probes.
        blocks: slices of the diagonal by name, layers for example, whose traces are wanted too.
        starts, steps: of block Lanczos.
        probes: of the trace, in what the Krylov space leaves over; at least 2.
        top: how many leading eigenvectors to keep.

    Raises:
        InputError: no starts or steps, fewer than 2 probes.
        RunError: a product is not finite.

    Example:
        A matrix of rank 2 is known whole by then.

        >>> from scipy.sparse.linalg import aslinearoperator
        >>> matrix = np.zeros((50, 50))
        >>> matrix[3, 3], matrix[7, 7] = 5.0, -2.0
        >>> found = estimated(aslinearoperator(matrix), np.random.default_rng(0))
        >>> [round(value, 9) for value in (*found.extremes, found.trace.value)], round(found.norm**2, 9)
        ([-2.0, 5.0, 3.0], 29.0)
    """
    multiply = Products(operator)
    space = block_lanczos(multiply, rng.standard_normal((multiply.size, min(starts, multiply.size))), steps)
    trace, norm = trace_beyond(multiply, space, probes, rng, blocks)
    leading = space.vectors(slice(len(space.values) - min(top, len(space.values)), None))[:, ::-1]
    return Spectrum(space.values, space.residuals, space.weights, multiply.size, trace, norm, False, leading)


def computed(operator: LinearOperator, *, blocks: Blocks = None, top: int = 0) -> tuple[Spectrum, Array]:
    """The whole spectrum by P products, and the matrix (P, P).

    Raises:
        RunError: a product is not finite.
    """
    matrix = whole_matrix(operator)
    values, vectors = np.linalg.eigh(matrix)
    diagonal, size = np.diagonal(matrix), len(matrix)
    parts = {name: (float(diagonal[part].sum()), 0.0) for name, part in (blocks or {}).items()}
    trace = TraceEstimate(float(diagonal.sum()), 0.0, 0, size, parts)
    norm, even = float(np.linalg.norm(matrix)), np.full(size, 1 / size)
    return Spectrum(values, np.zeros(size), even, size, trace, norm, True, vectors[:, ::-1][:, :top]), matrix


def whole_matrix(operator: LinearOperator) -> Array:
    """The matrix (P, P) of an operator, symmetrised, from P products."""
    size = operator.shape[0]
    multiply, matrix = Products(operator), np.empty((size, size))  # Products refuses what is not finite
    for start in range(0, size, COLUMNS):
        columns = np.eye(size, min(COLUMNS, size - start), -start)
        matrix[:, start : start + columns.shape[1]] = multiply(columns)
    return np.asarray((matrix + matrix.T) / 2)


def density(spectra: Sequence[Spectrum], points: int = 1024) -> tuple[Array, Array]:
    """An even grid (points,) and on it the density (points,) of the eigenvalues, mean of several, of integral 1.

    Each value is a Gaussian of a standard deviation of 1 % of the extent, with its weight (Lin, Saad & Yang 2016;
    Ghorbani, Krishnan & Xiao 2019). Plot it on a logarithmic axis: Hessians have a spike at 0 and few outliers, of mass
    1/P each.
    """
    values = np.concatenate([one.values for one in spectra])
    weights = np.concatenate([one.weights for one in spectra]) / len(spectra)
    extent, size = float(np.ptp(values)), float(np.max(np.abs(values)))
    width = WIDTH * (extent if extent > 1e-6 * size else size or 1.0)
    grid = np.linspace(values.min() - 5 * width, values.max() + 5 * width, points)
    bells = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) @ weights
    return grid, np.asarray(bells / (width * math.sqrt(2 * math.pi)))
