"""The figures of a spectrum that hold still: effective rank, κ₈₀, outliers, negative curvature. Pure.

λ_max over the smallest eigenvalue is none of them: three whole spectra of Hessians gave 10⁶, which is where the cut
was, for the bulk reaches 0; by Lanczos it was 208,454 ± 159,326.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.curvature.lanczos import Array

SHARE = 0.8  # of the trace, that the largest eigenvalues reach
RESOLVED = 0.01  # of its value: a Ritz value with a larger residual is no eigenvalue yet
OUTLYING = 0.1  # of λ_max: what is above it is an outlier
KAPPA_EPS = 1e-6  # of λ_max: what is smaller counts as zero in a condition number by a cut
NEGATIVE = 0.01  # of λ_max: what is below minus that is clearly negative


@dataclass(frozen=True)
class Figures:
    """What the eigenvalues that are known, and the trace, say of a spectrum of P.

    Attributes:
        effective_rank: tr A / λ_max: how many eigenvalues as large as the largest would make up the trace.
        kappa_80: λ_max over the eigenvalue at which the largest ones reach 80 % of the trace: how differently the
            directions are curved that carry the curvature. NaN where that eigenvalue is not resolved to 1 %.
        kappa_80_low, kappa_80_high: the same for the ends of the trace's 95 % interval; NaN where not resolved.
        outliers: eigenvalues above λ_max/10.
        negative_ratio: λ_min/λ_max.
        negative_share: share of the P eigenvalues below −λ_max/100.
    """

    effective_rank: float
    kappa_80: float
    kappa_80_low: float
    kappa_80_high: float
    outliers: int
    negative_ratio: float
    negative_share: float


def figures(values: Array, residuals: Array, size: int, trace: float, interval: tuple[float, float]) -> Figures:
    """The figures of a spectrum of `size` eigenvalues, of which `values` (n,), rising, are known to `residuals` (n,).

    `interval` is the trace's, at 95 %. Where λ_max is not positive all ratios are NaN.

    Example:
        >>> found = figures(np.array([-1.0, 1.0, 2.0, 8.0, 10.0]), np.zeros(5), 5, 20.0, (20.0, 20.0))
        >>> found.effective_rank, found.kappa_80, found.outliers, found.negative_ratio, found.negative_share
        (2.0, 1.25, 3, -0.1, 0.2)
    """
    largest = float(values[-1])
    if largest <= 0:
        return Figures(math.nan, math.nan, math.nan, math.nan, 0, math.nan, math.nan)
    low, high = (_condition(values, residuals, one) for one in interval)
    return Figures(
        trace / largest,
        _condition(values, residuals, trace),
        low,
        high,
        int(np.sum(values > OUTLYING * largest)),
        float(values[0]) / largest,
        float(np.sum(values < -NEGATIVE * largest)) / size,
    )


def kappa_exact(eigenvalues: Array, eps: float = KAPPA_EPS) -> tuple[float, int]:
    """λ_max / smallest |λ| above eps·λ_max, and how many |λ| are not above that cut, for eigenvalues (P,).

    The bulk of a Hessian reaches 0, so this is about 1/eps: three whole spectra gave 968,600, 995,700 and 988,200.
    NaN where λ_max is not positive.
    """
    largest, sizes = float(np.max(eigenvalues)), np.abs(eigenvalues)
    above = sizes > eps * max(largest, 0.0)
    below = int(np.sum(~above))
    return (largest / float(np.min(sizes[above])) if largest > 0 else math.nan), below


def _condition(values: Array, residuals: Array, trace: float) -> float:
    """λ_max/λ_n, n the least number of largest eigenvalues with 80 % of the trace; NaN where λ_n is not resolved."""
    falling, sums = values[::-1], np.cumsum(values[::-1])
    reached = np.flatnonzero(sums >= SHARE * trace * (1 - 1e-12))
    if not len(reached) or falling[reached[0]] <= 0:
        return math.nan
    place = int(reached[0])
    resolved = residuals[::-1][place] <= RESOLVED * falling[place]
    return float(falling[0] / falling[place]) if resolved else math.nan
