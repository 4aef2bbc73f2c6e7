"""Mode quality: how many samples lie near a mode of the true density, and which modes there are samples of.

Pure: NumPy arrays in, numbers out. Samples and modes are in the same coordinates, whichever they are:
Mahalanobis distances do not depend on that.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.toy.toy import Modes

Array = NDArray[np.float64]

DEVIATIONS = (2, 3, 5)
CAPTURED_WITHIN = 3  # standard deviations
CAPTURED_SHARE = 4  # a mode needs one such part of an even share, 1/(4M) of the samples


@dataclass(frozen=True)
class ModeQuality:
    """What so many samples say.

    `within` is the share of them within k standard deviations of the nearest mode, by k = 2, 3, 5; `counts` (M,) those
    within 3 standard deviations of each mode and no nearer to another.
    """

    within: dict[int, float]
    counts: NDArray[np.int64]
    samples: int

    def se(self, deviations: int) -> float:
        """Binomial standard error of `within[deviations]`: sqrt(p(1 − p)/n), 0 where all or none are within."""
        share = self.within[deviations]
        return math.sqrt(share * (1 - share) / self.samples)

    @property
    def total(self) -> int:
        """M, the modes there are."""
        return len(self.counts)

    @property
    def captured(self) -> int:
        """Modes with at least 1/(4M) of the samples; in whole numbers, so that the boundary itself counts."""
        return int((self.counts * CAPTURED_SHARE * self.total >= self.samples).sum())

    @property
    def shares(self) -> list[float]:
        """The count of each mode as a share of all samples: M numbers."""
        return [float(count / self.samples) for count in self.counts]


def mahalanobis(samples: Array, modes: Modes) -> Array:
    """sqrt((x − μ)ᵀ Σ⁻¹ (x − μ)) from samples (n, D) to modes (M): (n, M), in standard deviations."""
    columns = []
    for mean, covariance in zip(modes.means, modes.covariances, strict=True):
        offsets = samples - mean
        columns.append(np.sqrt((offsets * np.linalg.solve(covariance, offsets.T).T).sum(1)))
    return np.stack(columns, axis=1)


def published_distance(samples: Array, modes: Modes) -> Array:
    """|x − μ|² / sqrt((x − μ)ᵀ Σ (x − μ)), the distance of `--protocol paper`: (n, M), 0 at a mean.

    It multiplies by the covariance where Mahalanobis' divides by it. For Σ = σ²I the two are the same, |x − μ|/σ;
    along an axis of an elongated mode too; between the axes it is the smaller one (Cauchy-Schwarz).
    """
    columns = []
    for mean, covariance in zip(modes.means, modes.covariances, strict=True):
        offsets = samples - mean
        spread = np.sqrt((offsets @ covariance * offsets).sum(1))
        squares = (offsets**2).sum(1)
        columns.append(np.divide(squares, spread, out=np.zeros_like(squares), where=spread > 0))
    return np.stack(columns, axis=1)


def mode_quality(samples: Array, modes: Modes, paper: bool = False) -> ModeQuality:
    """Shares of good samples (n, D), finite, and samples by mode; `paper` goes by `published_distance`."""
    distances = published_distance(samples, modes) if paper else mahalanobis(samples, modes)
    nearest, least = distances.argmin(1), distances.min(1)
    counts = np.bincount(nearest[least <= CAPTURED_WITHIN], minlength=len(modes.means))
    within = {k: float((least <= k).mean()) for k in DEVIATIONS}
    return ModeQuality(within, counts, len(samples))


def perfect_share(deviations: float, dim: int) -> float:
    """Share of a D-dimensional Gaussian within `deviations` of its mean: P(χ²_D ≤ k²); 1 − exp(−k²/2) for D = 2.

    A mixture's own share within k deviations of its nearest mode is no less, and more only where modes
    overlap: for the toy sets by less than 1e-4.

    Example:
        >>> [round(perfect_share(k, 2), 4) for k in (2, 3, 5)]
        [0.8647, 0.9889, 1.0]
    """
    from scipy.special import gammainc

    return float(gammainc(dim / 2, deviations**2 / 2))


def as_values(quality: ModeQuality, prefix: str) -> dict[str, Any]:
    """The shares as JSON: `<prefix>_within_k` and `<prefix>_within_k_se`."""
    numbers = {k: {"": quality.within[k], "_se": quality.se(k)} for k in DEVIATIONS}
    return {f"{prefix}_within_{k}{end}": value for k, both in numbers.items() for end, value in both.items()}
