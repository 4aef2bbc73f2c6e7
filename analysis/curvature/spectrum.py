"""What eigenvalues, or Ritz values and their weights, say of a spectrum: condition, negative share, density. Pure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.curvature.lanczos import Array, Tridiagonal

KAPPA_EPS = 1e-6  # of lambda_max: what is smaller counts as zero in a condition number
NEGATIVE_EPS = 1e-6  # of max |lambda|: what is closer to zero does not count as negative in a whole spectrum
NEGATIVE_CUT = 1e-3  # the same in quadrature, which resolves no more
WIDTH = 0.01  # of the spectrum's extent: standard deviation of the Gaussians of a spectral density


def kappa_exact(eigenvalues: Array, eps: float = KAPPA_EPS) -> tuple[float, int]:
    """λ_max / smallest |λ| above eps·λ_max, and how many |λ| are not above that cut, for eigenvalues (P,).

    NaN where λ_max is not positive.
    """
    largest, sizes = float(np.max(eigenvalues)), np.abs(eigenvalues)
    above = sizes > eps * max(largest, 0.0)
    below = int(np.sum(~above))
    return (largest / float(np.min(sizes[above])) if largest > 0 else math.nan), below


def kappa_lanczos(runs: Sequence[Tridiagonal], eps: float = KAPPA_EPS) -> tuple[float, float]:
    """Ratio of the largest Ritz value to the smallest one above eps·λ_max of the run: mean and s.e. over runs.

    It grows with the number of steps, so it is to be compared at equal steps only. NaN where a run has no
    positive Ritz value; the s.e. is NaN for one run.
    """
    spectra = [run.ritz()[0] for run in runs]
    return _mean_and_se([_condition(values, eps * max(values[-1], 0.0)) for values in spectra])


def negative_share_exact(eigenvalues: Array, cut: float = NEGATIVE_EPS) -> float:
    """Share of the eigenvalues (P,) that lie below -cut·max |λ|."""
    return float(np.mean(eigenvalues < -cut * np.max(np.abs(eigenvalues))))


def negative_share(runs: Sequence[Tridiagonal], cut: float = NEGATIVE_CUT) -> tuple[float, float]:
    """Share of the eigenvalues below -cut·max |Ritz value|: mean and s.e. over runs from random starts.

    Stochastic Lanczos quadrature: the weights of those Ritz values. A step function is no polynomial: the spike of
    eigenvalues about 0 is one Ritz value, which falls on either side of a cut that is too close to it. At 1e-3,
    100 steps agreed within the s.e. with whole spectra of Hessians; at 1e-6 they gave anything from 7 to 92 %.
    """
    spectra = [run.ritz() for run in runs]
    return _mean_and_se([float(np.sum(weights[x < -cut * np.max(np.abs(x))])) for x, weights in spectra])


def density_width(runs: Sequence[Tridiagonal]) -> float:
    """Standard deviation of the broadening: 1 % of the extent of all Ritz values (of their size, or 1, if none)."""
    values = np.concatenate([run.ritz()[0] for run in runs])
    extent, size = float(np.ptp(values)), float(np.max(np.abs(values)))
    return WIDTH * (extent if extent > 1e-6 * size else size or 1.0)


def density_grid(runs: Sequence[Tridiagonal], points: int = 1024) -> Array:
    """Even grid (points,) over all Ritz values and 5 widths beyond, so that the density integrates to 1 on it."""
    values = np.concatenate([run.ritz()[0] for run in runs])
    margin = 5 * density_width(runs)
    return np.linspace(values.min() - margin, values.max() + margin, points)


def spectral_density(runs: Sequence[Tridiagonal], grid: Array, width: float | None = None) -> Array:
    """Density (G,) of the eigenvalues at `grid` (G,), mean over runs from random starts; it integrates to 1.

    Each Ritz value is a Gaussian of standard deviation `width` (default: 1 % of the extent) with its
    quadrature weight (Lin, Saad & Yang 2016; Ghorbani, Krishnan & Xiao 2019). Plot it on a logarithmic axis:
    Hessians have a spike at 0 and few outliers, of mass 1/P each.
    """
    width = density_width(runs) if width is None else width
    density = np.zeros(len(grid))
    for run in runs:
        values, weights = run.ritz()
        density += np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) @ weights
    return density / (len(runs) * width * math.sqrt(2 * math.pi))


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
    each = [(values[-1], np.sum(values[values > 0]), _condition(values, 0.0)) for values in spectra]
    return Published(*map(float, np.mean(each, axis=0)))


def _condition(values: Array, cut: float) -> float:
    # The largest over the smallest of the rising values (k,) that are above the cut.
    above = values[values > cut]
    return float(above[-1] / above[0]) if len(above) else math.nan


def _mean_and_se(values: Sequence[float]) -> tuple[float, float]:
    se = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(np.mean(values)), se
