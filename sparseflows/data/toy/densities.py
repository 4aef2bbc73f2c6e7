"""Exact log densities (nats) of the two-dimensional toy families, in their own coordinates.

Every function takes points (B, 2) and returns (B,), −inf outside the support. Memory is bounded: rows
are worked off in chunks.
"""

import math
from collections.abc import Callable

import numpy as np

Density = Callable[[np.ndarray], np.ndarray]

CHUNK_ENTRIES = 2**20  # of the largest temporary array: 8 MiB in float64
BISECTIONS = 54  # halve an interval no wider than 4 below the spacing of float64


def in_chunks(density: Density, points: np.ndarray, entries_per_row: int) -> np.ndarray:
    """`density` of points (B, 2), with at most `CHUNK_ENTRIES` temporary entries at a time."""
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"a 2-D density takes points of shape (B, 2), not {points.shape}")
    rows = max(1, CHUNK_ENTRIES // entries_per_row)
    out = np.empty(len(points))
    for start in range(0, len(points), rows):
        out[start : start + rows] = density(points[start : start + rows])
    return out


def safe_log(density: np.ndarray) -> np.ndarray:
    """The logarithm of densities (N,), with log 0 = −inf and no warning."""
    return np.log(density, out=np.full(density.shape, -np.inf), where=density > 0)


def log_mixture(points: np.ndarray, means: np.ndarray, sigmas: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log Σ_j w_j N(x; mean_j, σ_j² I), by a shifted log-sum-exp.

    `means` (M, 2), `sigmas` (M,) and positive `weights` (M,), summing to 1, of the components.
    """
    constants = np.log(weights) - 2 * np.log(sigmas) - math.log(2 * math.pi)
    rates = 0.5 / sigmas**2

    def density(x: np.ndarray) -> np.ndarray:
        squared = (x[:, :1] - means[:, 0]) ** 2 + (x[:, 1:] - means[:, 1]) ** 2
        exponents = constants - rates * squared
        top = exponents.max(axis=1, keepdims=True)
        return top[:, 0] + np.log(np.exp(exponents - top).sum(axis=1))

    return in_chunks(density, points, len(means))


def gauss_legendre(start: float, stop: float, panels: int, order: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (panels · order,) of composite Gauss-Legendre quadrature; the weights sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    edges = np.linspace(start, stop, panels + 1)
    middle, half = (edges[1:] + edges[:-1]) / 2, (stop - start) / (2 * panels)
    return (middle[:, None] + half * nodes).ravel(), np.tile(weights / (2 * panels), panels)


def log_noisy_curves(
    points: np.ndarray, curves: tuple[Density, ...], interval: tuple[float, float], sigma: float, panels: int
) -> np.ndarray:
    """Equal mixture of curves c(t), (J,) → (J, 2), t uniform on `interval`, each with isotropic Gaussian noise.

    p(x) = mean over the curves of ∫ N(x; c(t), σ² I) dt / |interval|. Quadrature turns the integral into
    a mixture of `16 · panels` Gaussians a curve, exact to rounding when a panel is a few σ long.
    """
    nodes, weights = gauss_legendre(*interval, panels)
    centres = np.concatenate([curve(nodes) for curve in curves])
    shares = np.tile(weights / len(curves), len(curves))
    return log_mixture(points, centres, np.full(len(centres), sigma), shares)


def log_rings(points: np.ndarray, radii: np.ndarray, sigma: float) -> np.ndarray:
    """Equal mixture of circles of radius R (uniform angle) about the origin, with N(0, σ² I) added.

    The angle integrates to a Bessel function: p(x) = exp(−(r² + R²)/2σ²) I₀(rR/σ²) / 2πσ², r = |x|; the
    scaled function e^(−z) I₀(z) keeps it finite (a Rice density over 2πr).
    """
    from scipy.special import ive  # late: data are refused before SciPy is loaded

    def density(x: np.ndarray) -> np.ndarray:
        r = np.hypot(x[:, :1], x[:, 1:])
        exponents = -0.5 * ((r - radii) / sigma) ** 2 + np.log(ive(0, r * radii / sigma**2))
        top = exponents.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(exponents - top).mean(axis=1))
        return total - math.log(2 * math.pi * sigma**2)

    return in_chunks(density, points, len(radii))


def log_checkerboard(points: np.ndarray) -> np.ndarray:
    """The log density (N,) at points (N, 2), uniform on the cells (i, j), 2 wide, with i + j even and −2 ≤ i, j < 2."""
    cells = np.floor(np.asarray(points, dtype=np.float64) / 2)
    inside = ((cells >= -2) & (cells < 2)).all(axis=1)
    filled = inside & (cells.sum(axis=1) % 2 == 0)
    return np.where(filled, -math.log(32), -np.inf)


def log_box_spirals(points: np.ndarray, length: float, side: float) -> np.ndarray:
    """The two spirals: x = ±((−n cos n, n sin n) + u), n = length·√U, u uniform on [0, side)².

    n has the density 2n/length² on [0, length], so an arm has the density (1/side²) Σ (b² − a²)/length²
    over the intervals [a, b] of n for which x − u lies on the curve for some u in the box. Each coordinate is
    monotone between its turning points; bisection there gives the ends of the intervals to the last digit.
    (Clipping a polyline of 4,000 segments was rejected: as slow, and the density up to 2 % off near the
    edges of the support.)
    """
    pieces = [_monotone_pieces(phase, length) for phase in (math.pi / 2, 0.0)]

    def arm(x: np.ndarray) -> np.ndarray:
        ends = [
            np.sort(_inverse(np.stack([x[:, k] - side, x[:, k]]), phase, pieces[k]), axis=0)
            for k, phase in enumerate((math.pi / 2, 0.0))
        ]
        (first_x, last_x), (first_y, last_y) = ends  # (B, pieces) each
        a = np.maximum(first_x[:, :, None], first_y[:, None, :])
        b = np.minimum(last_x[:, :, None], last_y[:, None, :])
        return np.where(b > a, b**2 - a**2, 0.0).sum(axis=(1, 2)) / (length * side) ** 2

    most = max(len(p) for p in pieces)
    return in_chunks(lambda x: safe_log((arm(x) + arm(-x)) / 2), points, most * most)


def _coordinate(n: np.ndarray, phase: float) -> np.ndarray:
    """n sin(n − phase): −n cos n for phase π/2, n sin n for phase 0."""
    return n * np.sin(n - phase)


def _bisect(above: Callable[[np.ndarray], np.ndarray], lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Where the boolean `above` turns from false at `lo` to true at `hi`, elementwise."""
    for _ in range(BISECTIONS):
        middle = (lo + hi) / 2
        beyond = above(middle)
        lo, hi = np.where(beyond, lo, middle), np.where(beyond, middle, hi)
    return (lo + hi) / 2


def _monotone_pieces(phase: float, length: float) -> np.ndarray:
    """Intervals (P, 2) of n that tile [0, length], the coordinate monotone on each.

    Its derivative sin(n − phase) + n cos(n − phase) changes sign once in each (phase + (k − ½)π, phase + kπ),
    k whole, and nowhere else for n > 0.
    """
    tops = phase + math.pi * np.arange(0, math.ceil(length / math.pi) + 1)
    tops = tops[tops > 0]
    signs = np.sign(np.cos(tops - phase))
    turns = _bisect(lambda n: signs * (np.sin(n - phase) + n * np.cos(n - phase)) > 0, tops - math.pi / 2, tops)
    edges = np.concatenate([[0.0], turns[(turns > 0) & (turns < length)], [length]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _inverse(targets: np.ndarray, phase: float, pieces: np.ndarray) -> np.ndarray:
    """n at which the coordinate reaches each target, on each piece: (…,) → (…, P), clipped to the piece."""
    lo, hi = np.broadcast_arrays(*(pieces[:, k] + np.zeros((*targets.shape, 1)) for k in (0, 1)))
    signs = np.sign(_coordinate(pieces[:, 1], phase) - _coordinate(pieces[:, 0], phase))
    rising = signs * targets[..., None]
    before, after = rising <= signs * _coordinate(lo, phase), rising >= signs * _coordinate(hi, phase)
    # Clipped ends are the piece's own to the last bit: else slivers would pass for support.
    out = np.where(before, lo, hi)
    inside = ~(before | after)
    sign, goal = np.broadcast_to(signs, out.shape)[inside], rising[inside]
    out[inside] = _bisect(lambda n: sign * _coordinate(n, phase) > goal, lo[inside], hi[inside])
    return out
