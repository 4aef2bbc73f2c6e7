"""Two-dimensional toy densities: sampler, component labels, exact log density where one exists.

All in the generator's own coordinates (`sparseflows.data.splits` standardises). Components, arms and
rings come in equal counts, the first ones taking what is left over, in random order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sparseflows.data.toy import densities
from sparseflows.data.toy.densities import Density
from sparseflows.errors import InputError

Sampler = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]

SPIRAL_LENGTH = 780 * 2 * math.pi / 360  # 780 degrees, 2 1/6 turns


@dataclass(frozen=True)
class Modes:
    """The components of a mixture of Gaussians: means (M, 2), covariances (M, 2, 2)."""

    means: np.ndarray
    covariances: np.ndarray


@dataclass(frozen=True)
class Toy:
    """A density on the plane.

    Attributes:
        name: as param files call it.
        description: one line.
        default_n: training points where the param file does not say.
        sample: (n, generator) → points (n, 2) float64 and component labels (n,) int64.
        log_prob: points (B, 2) → log density (B,) in nats, −inf outside the support; None where no exact
            form is known.
        modes: the components, where the density is a mixture of Gaussians.
        components: labels are 0 … components − 1.
    """

    name: str
    description: str
    default_n: int
    sample: Sampler
    log_prob: Density | None
    modes: Modes | None = None
    components: int = 1


def equal_labels(n: int, components: int, generator: np.random.Generator) -> np.ndarray:
    """Labels (n,) of 0 … components − 1 in counts that differ by one at most, in random order.

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"cannot draw {n} points: at least 1 is needed")
    return generator.permutation(np.arange(n, dtype=np.int64) % components)


def _polar(radius: np.ndarray | float, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _sample_mixture(
    n: int, generator: np.random.Generator, means: np.ndarray, sigmas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels = equal_labels(n, len(means), generator)
    return means[labels] + sigmas[labels, None] * generator.standard_normal((n, 2)), labels


def _mixture(name: str, description: str, default_n: int, means: np.ndarray, sigmas: np.ndarray) -> Toy:
    """Isotropic Gaussians of equal weight."""
    weights = np.full(len(means), 1 / len(means))
    return Toy(
        name,
        description,
        default_n,
        partial(_sample_mixture, means=means, sigmas=sigmas),
        partial(densities.log_mixture, means=means, sigmas=sigmas, weights=weights),
        Modes(means, sigmas[:, None, None] ** 2 * np.eye(2)),
        len(means),
    )


def _gaussians() -> Toy:
    means = _polar(4.0, 2 * math.pi * np.arange(6) / 6)
    return _mixture("gaussians", "6 Gaussians on a circle", 6 * (2**14 // 6), means, np.full(6, 0.5))


def _gaussian_spiral() -> Toy:
    means = _polar(np.linspace(4, 1, 10), 2 * math.pi * np.arange(1, 11) / 6)
    description = "10 Gaussians on a spiral, narrower towards the centre"
    return _mixture("gaussian_spiral", description, 10 * (2**14 // 10), means, np.linspace(0.3, 0.1, 10))


def _sample_spirals(n: int, generator: np.random.Generator, side: float) -> tuple[np.ndarray, np.ndarray]:
    labels = equal_labels(n, 2, generator)
    angle = SPIRAL_LENGTH * np.sqrt(generator.random(n))
    arm = np.stack([-angle * np.cos(angle), angle * np.sin(angle)], axis=1) + side * generator.random((n, 2))
    return np.where(labels[:, None] == 0, arm, -arm), labels


def _spirals(name: str, description: str, default_n: int, side: float) -> Toy:
    """n = √U · 780°; (−n cos n, n sin n) plus uniform noise, and the same mirrored in the origin."""
    log_prob = partial(densities.log_box_spirals, length=SPIRAL_LENGTH, side=side)
    return Toy(name, description, default_n, partial(_sample_spirals, side=side), log_prob, components=2)


def _sample_curves(
    n: int, generator: np.random.Generator, curves: tuple[Density, ...], interval: tuple[float, float], sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    labels = equal_labels(n, len(curves), generator)
    places = generator.uniform(*interval, size=n)
    centres = np.choose(labels[:, None], [curve(places) for curve in curves])
    return centres + sigma * generator.standard_normal((n, 2)), labels


def _lower_moon(t: np.ndarray) -> np.ndarray:
    return np.array([1.0, 0.5]) - _polar(1.0, t)


def _roll(t: np.ndarray) -> np.ndarray:
    return _polar(t / 5, t)


def _curves(
    name: str,
    description: str,
    default_n: int,
    curves: tuple[Density, ...],
    interval: tuple[float, float],
    sigma: float,
    panels: int,
) -> Toy:
    """Places uniform (independent) on the parameter interval of a curve, plus isotropic Gaussian noise."""
    sample = partial(_sample_curves, curves=curves, interval=interval, sigma=sigma)
    log_prob = partial(densities.log_noisy_curves, curves=curves, interval=interval, sigma=sigma, panels=panels)
    return Toy(name, description, default_n, sample, log_prob, components=len(curves))


def _sample_concentric(
    n: int, generator: np.random.Generator, radii: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    labels = equal_labels(n, len(radii), generator)
    ring = _polar(radii[labels], generator.uniform(0, 2 * math.pi, n))
    return ring + sigma * generator.standard_normal((n, 2)), labels


def _concentric() -> Toy:
    radii, sigma = np.array([0.75, 1.5]), 0.1
    sample = partial(_sample_concentric, radii=radii, sigma=sigma)
    log_prob = partial(densities.log_rings, radii=radii, sigma=sigma)
    return Toy("concentric", "2 rings about the origin", 1024, sample, log_prob, components=len(radii))


def _sample_pinwheel(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """5 blades: (1 + 0.3 ε, 0.1 ε′), turned clockwise by the blade's angle + exp(first)/4, then doubled.

    After Johnson et al. 2016. No log density: the twist depends on the untwisted abscissa, so that a point
    can have several preimages.
    """
    labels = equal_labels(n, 5, generator)
    along, across = (generator.standard_normal((n, 2)) * [0.3, 0.1] + [1.0, 0.0]).T
    turn = -(2 * math.pi * labels / 5 + 0.25 * np.exp(along))
    blades = along[:, None] * _polar(1.0, turn) + across[:, None] * _polar(1.0, turn + math.pi / 2)
    return 2 * blades, labels


def _sample_checkerboard(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Uniform on 8 of the 16 cells, 2 wide, of [−4, 4)²: those whose indices add up to an even number."""
    labels = equal_labels(n, 8, generator)
    column = labels // 2 - 2
    row = 2 * (labels % 2) - 2 + column % 2
    return 2 * (np.stack([column, row], axis=1) + generator.random((n, 2))), labels


TOYS: dict[str, Toy] = {
    toy.name: toy
    for toy in (
        _gaussians(),
        _gaussian_spiral(),
        _spirals("spirals", "2 spiral arms with uniform noise", 2 * 2**14, side=0.5),
        _spirals("spirals_class", "2 spiral arms, noisier, to classify", 2 * 2**10, side=0.9),
        _curves(
            "moons", "2 interleaved half circles", 1024, (partial(_polar, 1.0), _lower_moon), (0.0, math.pi), 0.1, 16
        ),
        _concentric(),
        Toy("pinwheel", "5 bent blades (no exact density)", 2**14, _sample_pinwheel, None, components=5),
        Toy(
            "checkerboard",
            "uniform on 8 squares",
            2**14,
            _sample_checkerboard,
            densities.log_checkerboard,
            components=8,
        ),
        _curves("swiss_roll", "1 noisy spiral", 2**14, (_roll,), (1.5 * math.pi, 4.5 * math.pi), 0.2, 32),
    )
}
