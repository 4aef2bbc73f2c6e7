from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.samples.modes import as_values, mahalanobis, mode_quality, perfect_share, published_distance
from sparseflows.data.splits import make_splits
from sparseflows.data.toy.toy import TOYS, Modes


def far_modes(count=10, dim=2, seed=0):
    """Elongated Gaussians too far apart to overlap within 5 standard deviations."""
    rng = np.random.default_rng(seed)
    means = np.zeros((count, dim))
    means[:, 0] = 40 * np.arange(count)
    factors = rng.standard_normal((count, dim, dim))
    return Modes(means, factors @ factors.transpose(0, 2, 1) / dim + 0.2 * np.eye(dim))


def draw(modes, counts, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        rng.multivariate_normal(mean, covariance, count)
        for mean, covariance, count in zip(modes.means, modes.covariances, counts, strict=True)
    ]
    return np.concatenate(parts)


def assert_perfect(quality, dim):
    for k in (2, 3, 5):
        truth = perfect_share(k, dim)
        # 3 standard errors; at least one sample, for at 5 deviations not even that is expected outside
        error = max(math.sqrt(truth * (1 - truth) / quality.samples), 1 / quality.samples)
        assert abs(quality.within[k] - truth) <= 3 * error
    assert quality.captured == quality.total


def test_perfect_shares():
    for k, share in ((2, 0.8647), (3, 0.9889), (5, 1.0000)):  # the 86.5, 98.9, 100.0 %
        assert perfect_share(k, 2) == pytest.approx(1 - math.exp(-(k**2) / 2), abs=1e-15)
        assert perfect_share(k, 2) == pytest.approx(share, abs=5e-5)
    # another closed form: D = 1, and scipy's own chi-square
    assert perfect_share(2, 1) == pytest.approx(math.erf(2 / math.sqrt(2)), abs=1e-14)
    from scipy.stats import chi2

    assert perfect_share(3, 5) == pytest.approx(chi2.cdf(9, 5), abs=1e-14)


@pytest.mark.parametrize("dim", [2, 5])
def test_true_samples_of_elongated_modes(dim):
    modes = far_modes(dim=dim)
    assert_perfect(mode_quality(draw(modes, [2000] * 10), modes), dim)


@pytest.mark.parametrize("name", ["gaussians", "gaussian_spiral"])
def test_true_samples_of_the_toy_sets(name):
    """In the generator's coordinates and in standardised ones: the distance is the same."""
    toy, splits = TOYS[name], make_splits(name, n_train=500)
    points, labels = toy.sample(20_000, np.random.default_rng(1))
    quality = mode_quality(points, toy.modes)
    assert_perfect(quality, 2)
    standardised = mode_quality(splits.standardiser.apply(points), splits.modes)
    assert standardised.within == quality.within
    # Each is the nearest mode of its own points: 98.9 % of 2,000 or so, ± 3 binomial standard errors
    own = np.bincount(labels) * perfect_share(3, 2)
    np.testing.assert_allclose(quality.counts, own, atol=3 * math.sqrt(own.max() * (1 - perfect_share(3, 2))) + 3)
    assert sum(quality.shares) == pytest.approx(quality.within[3])


def test_distances_by_hand():
    modes = Modes(np.array([[1.0, 0.0]]), np.array([[[4.0, 0.0], [0.0, 0.25]]]))
    points = np.array([[3.0, 0.0], [1.0, 1.0], [3.0, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(mahalanobis(points, modes)[:, 0], [1, 2, math.sqrt(2), 0])
    # |x|²/sqrt(xᵀΣx): 4/sqrt(16), 1/sqrt(0.25), 4.25/sqrt(16 + 0.0625), and 0 at the mean
    np.testing.assert_allclose(published_distance(points, modes)[:, 0], [1, 2, 4.25 / math.sqrt(16.0625), 0])


def test_the_published_distance_differs_between_the_axes_only():
    modes, round_modes = far_modes(), make_splits("gaussian_spiral", n_train=100).modes
    points = draw(modes, [200] * 10)
    assert (published_distance(points, modes) <= mahalanobis(points, modes) * (1 + 1e-12)).all()
    assert mode_quality(points, modes, paper=True).within[2] > mode_quality(points, modes).within[2] + 0.01
    np.testing.assert_allclose(published_distance(points, round_modes), mahalanobis(points, round_modes))


def test_a_missing_mode_is_caught():
    modes = far_modes()
    quality = mode_quality(draw(modes, [2000] * 4 + [0] + [2000] * 5), modes)
    assert (quality.captured, quality.total) == (9, 10)
    assert quality.shares[4] == 0
    assert_nine = quality.within[3]  # the others' quality alone does not tell
    assert assert_nine == pytest.approx(perfect_share(3, 2), abs=0.003)


def test_a_weak_mode_is_missing_below_a_quarter_of_its_share():
    modes = far_modes()
    # 1/50 of the samples is below 1/40; 1/30 is above it
    assert mode_quality(draw(modes, [2178] * 9 + [400]), modes).captured == 9
    assert mode_quality(draw(modes, [2148] * 9 + [667]), modes).captured == 10


def test_the_boundary_counts():
    modes = far_modes()
    for at_mode, captured in ((25, 2), (24, 1)):  # 1/(4 · 10) of 1,000
        points = np.concatenate([np.tile(modes.means[0], (1000 - at_mode, 1)), np.tile(modes.means[1], (at_mode, 1))])
        assert mode_quality(points, modes).captured == captured


def test_samples_between_the_modes_capture_none():
    modes = Modes(np.array([[0.0, 0.0], [20.0, 0.0]]), np.stack([np.eye(2)] * 2))
    quality = mode_quality(np.tile([[10.0, 0.0]], (100, 1)), modes)
    assert quality.captured == 0
    assert quality.within == {2: 0, 3: 0, 5: 0}


def test_nearest_is_by_deviations_not_by_distance():
    """A point nearer to the narrow mode's mean, but fewer deviations from the wide one."""
    modes = Modes(np.array([[0.0, 0.0], [10.0, 0.0]]), np.stack([16 * np.eye(2), 0.01 * np.eye(2)]))
    assert mode_quality(np.array([[6.0, 0.0]] * 4), modes).counts.tolist() == [4, 0]


def test_values():
    modes = far_modes()
    quality = mode_quality(draw(modes, [100] * 10), modes)
    values = as_values(quality, "good")
    share = values["good_within_2"]
    assert values["good_within_2_se"] == pytest.approx(math.sqrt(share * (1 - share) / 1000))
    assert set(values) == {f"good_within_{k}{end}" for k in (2, 3, 5) for end in ("", "_se")}
