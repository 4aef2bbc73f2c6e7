"""Trace of a symmetric operator from products alone, with an honest standard error. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse.linalg import LinearOperator
from scipy.special import stdtrit

from analysis.curvature.krylov import Krylov, beyond
from analysis.curvature.lanczos import Array, Products
from sparseflows.errors import InputError


@dataclass(frozen=True)
class TraceEstimate:
    """A trace, its standard error, and the same for blocks of the diagonal (value, s.e.).

    `df` are the degrees of freedom of the t-interval; 0 with s.e. 0 where the trace was computed, not
    estimated. `products` counts the columns that were multiplied. Rounding is not part of the s.e.
    """

    value: float
    se: float
    df: int
    products: int
    blocks: dict[str, tuple[float, float]] = field(default_factory=dict)

    def interval(self, level: float = 0.99, block: str | None = None) -> tuple[float, float]:
        """Two-sided t-interval of the trace, or of one block of it."""
        value, se = (self.value, self.se) if block is None else self.blocks[block]
        half = float(stdtrit(self.df, 0.5 + level / 2)) * se if se > 0 else 0.0
        return value - half, value + half


def hutchinson(operator: LinearOperator, products: int, rng: np.random.Generator) -> TraceEstimate:
    """Mean of eᵀAe over Rademacher probes e, s.e. from their sample standard deviation; for comparison.

    Raises:
        InputError: fewer than 2 products.
        RunError: a product is not finite.
    """
    multiply = Products(operator)
    if products < 2:
        raise InputError(f"Hutchinson's trace needs at least 2 products, not {products}")
    probes = rng.choice([-1.0, 1.0], size=(multiply.size, products))
    values = np.sum(probes * multiply(probes), axis=0)
    se = float(np.std(values, ddof=1)) / math.sqrt(products)
    return TraceEstimate(float(np.mean(values)), se, products - 1, multiply.count)


def trace_beyond(
    multiply: Products,
    space: Krylov,
    probes: int,
    rng: np.random.Generator,
    blocks: Mapping[str, slice] | None = None,
) -> tuple[TraceEstimate, float]:
    """The trace from a Krylov space V, on which it is exact, and probes in its complement; and ‖A‖_F.

    This is Hutch++ (Meyer, Musco, Musco & Woodruff 2021) with the Krylov space in place of a sketch. The probes x are
    uniform on the sphere of radius √d in the complement, d = P − n, as in XTrace (Epperly, Tropp & Webber 2024): a
    multiple of the identity costs no variance, and the directions do not depend on the axes.

    With E = I − VVᵀ and B = EAE, Var(xᵀBx) = 2d/(d + 2)·(‖B‖² − tr(B)²/d). Its estimate takes ‖B‖² from the mean of
    ‖Bx‖², not from the sample variance of xᵀBx: unbiased too, yet steadier, for a few outliers that the space just
    missed make xᵀBx as skewed as a chi-square of 1 degree. ‖A‖²_F = 2‖AV‖²_F − ‖VᵀAV‖²_F + ‖B‖²_F.

    `blocks` names slices of the index range, for example layers: tr(P_l A) of each, from the same products. Blocks that
    cover the range once add up to the total. Each s.e. takes ‖P_l B‖² as an upper bound of the variance, at most √2
    too large.

    Raises:
        InputError: fewer than 2 probes, where the space is not everything.
        RunError: a product is not finite.
    """
    rows = [slice(None), *(blocks or {}).values()]
    captured = _captured(space.basis, space.image, rows)
    known = 2 * float(np.sum(space.image**2)) - float(np.sum(space.projected**2))
    dim = multiply.size - space.products
    if dim == 0:
        return _estimate(captured, np.zeros(len(rows)), 0, multiply.count, blocks), math.sqrt(known)
    if probes < 2:
        raise InputError(f"a trace needs at least 2 probes, not {probes}")
    samples = _probe(multiply, space.basis, rows, probes, rng)
    values, errors = _summarise(samples, dim)
    rest = float(np.mean(samples[1, :, 0] + samples[0, :, 0] ** 2 / dim))
    return _estimate(values + captured, errors, probes - 1, multiply.count, blocks), math.sqrt(known + rest)


def _captured(basis: Array, image: Array, rows: list[slice]) -> Array:
    # Of the diagonal (P,) of A - EAE = QQᵀA + AQQᵀ - QQᵀAQQᵀ, all of it known from AQ, the sums over `rows`; tr QᵀAQ.
    diagonal = np.sum(basis * (2 * image - basis @ (basis.T @ image)), axis=1)
    return np.array([np.sum(diagonal[part]) for part in rows])


def _estimate(
    values: Array, errors: Array, df: int, products: int, blocks: Mapping[str, slice] | None
) -> TraceEstimate:
    pairs = [(float(value), float(error)) for value, error in zip(values, errors, strict=True)]
    return TraceEstimate(*pairs[0], df, products, dict(zip(blocks or {}, pairs[1:], strict=True)))


def _probe(multiply: Products, basis: Array, rows: list[slice], count: int, rng: np.random.Generator) -> Array:
    # (2, count, len(rows)): xᵀ P_l B x and ‖P_l B x - c x‖², c = (xᵀ P_l B x)/d, of each probe x.
    dim = multiply.size - basis.shape[1]
    probes = beyond(basis, rng.standard_normal((multiply.size, count)))
    probes *= math.sqrt(dim) / np.linalg.norm(probes, axis=0)
    residual = beyond(basis, multiply(probes))
    samples = np.empty((2, count, len(rows)))
    for index, part in enumerate(rows):
        value = np.sum(probes[part] * residual[part], axis=0)
        deviation = -value / dim * probes
        deviation[part] += residual[part]
        samples[:, :, index] = value, np.sum(deviation**2, axis=0)
    return samples


def _summarise(samples: Array, dim: int) -> tuple[Array, Array]:
    # Means and standard errors (len(rows),). ‖B‖² - tr(B)²/d without subtracting large numbers: the mean of the
    # deviations, each about its own c, plus the variance of the values over d.
    values, deviations = samples
    spread = np.mean(deviations, axis=0) + np.var(values, axis=0) / dim
    return np.mean(values, axis=0), np.sqrt(2 * dim / (dim + 2) * spread / len(values))
