from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.samples import coverage
from analysis.samples.coverage import (
    closeness,
    density_and_coverage,
    random_directions,
    wasserstein,
)


def gaussian(n, dim=2, seed=0, shift=0.0, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((n, dim)) + shift


def expected_coverage(n: int, m: int, neighbours: int = coverage.NEIGHBOURS) -> float:
    """Mean coverage of n true rows by m points that are as true (Naeem et al. 2020): 1 − 2⁻ᵏ for n = m → ∞."""
    missed = [(n - 1 - j) / (n + m - 1 - j) for j in range(neighbours)]
    return 1 - math.prod(missed)


def distances(first, second):
    return np.linalg.norm(first[:, None] - second[None], axis=-1)


def naive(real, points, k):
    """Density and coverage word by word as Naeem et al. define them."""
    radii = [sorted(np.linalg.norm(real - row, axis=1))[k] for row in real]
    inside = [[np.linalg.norm(x - y) <= r for y in points] for x, r in zip(real, radii, strict=True)]
    density = sum(map(sum, inside)) / (k * len(points))
    return density, sum(map(any, inside)) / len(real)


@pytest.mark.parametrize(("dim", "k"), [(2, 5), (7, 3), (1, 1)])
def test_against_the_definition(dim, k):
    real, points = gaussian(40, dim), gaussian(30, dim, seed=1, shift=0.3)
    found = density_and_coverage(distances(real, real), distances(real, points), k)
    assert found == pytest.approx(naive(real, points, k))


def test_against_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    real, points = gaussian(300), gaussian(300, seed=1, scale=1.4)
    radii = NearestNeighbors(n_neighbors=5).fit(real).kneighbors()[0][:, -1]  # without the rows themselves
    nearest = NearestNeighbors(n_neighbors=1).fit(points).kneighbors(real)[0][:, 0]
    _, coverage = density_and_coverage(distances(real, real), distances(real, points), 5)
    assert coverage == pytest.approx((nearest <= radii).mean())


def test_true_points_have_density_1_and_the_expected_coverage():
    """E[density] = 1, E[coverage] = 1 − Π(n−1−j)/(2n−1−j) (Naeem et al. 2020), whatever the distribution."""
    found = []
    for seed in range(40):
        real, points = gaussian(100, 3, 2 * seed), gaussian(100, 3, 2 * seed + 1)
        found.append(density_and_coverage(distances(real, real), distances(real, points), 5))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / math.sqrt(40)
    # within 3 standard errors of the mean over 40 draws
    assert abs(mean[0] - 1) <= 3 * error[0]
    assert abs(mean[1] - expected_coverage(100, 100)) <= 3 * error[1]
    assert expected_coverage(10**7, 10**7) == pytest.approx(1 - 2**-5, abs=1e-6)


def test_what_density_and_coverage_catch():
    rng = np.random.default_rng(0)
    real = gaussian(600, seed=3) + np.where(rng.random(600) < 0.5, 10, 0)[:, None]
    same = gaussian(600, seed=4) + np.where(rng.random(600) < 0.5, 10, 0)[:, None]
    good = closeness(real, same, np.random.default_rng(0))
    one_mode = closeness(real, gaussian(600, seed=4), np.random.default_rng(0))
    noisy = closeness(real, same + gaussian(600, seed=5, scale=3), np.random.default_rng(0))
    assert good.coverage > 0.9
    assert one_mode.coverage < 0.6  # half of the data have no point
    assert one_mode.density > 0.7
    assert noisy.density < 0.5
    assert one_mode.sliced_wasserstein > 10 * good.sliced_wasserstein


def test_wasserstein_by_hand_and_against_scipy():
    from scipy.stats import wasserstein_distance

    assert wasserstein(np.array([[0.0], [1.0]]), np.array([[3.0], [2.0]])) == 2
    first, second = gaussian(50, 3), gaussian(50, 3, seed=1, shift=1)
    columns = [wasserstein_distance(first[:, c], second[:, c]) for c in range(3)]
    assert wasserstein(first, second) == pytest.approx(np.mean(columns))


def test_sliced_wasserstein_of_a_shift():
    """Points shifted by a: mean of |a·u| over unit u, 2|a|/π in the plane."""
    real = gaussian(500)
    found = closeness(real, real + np.array([3.0, -4.0]), np.random.default_rng(0))
    # 128 directions: |cos| has standard deviation 0.308, so ± 5 · 0.308/√128 is 3 standard errors
    assert found.sliced_wasserstein == pytest.approx(5 * 2 / math.pi, abs=3 * 5 * 0.308 / math.sqrt(128))


def test_directions_are_unit_and_uniform():
    directions = random_directions(4, 2000, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1)
    # uniform on the sphere: second moment I/4; its entries are known to about 0.007
    np.testing.assert_allclose(directions @ directions.T / 2000, np.eye(4) / 4, atol=0.025)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_standard_errors_are_those_of_fresh_draws(shift):
    found = [
        closeness(gaussian(200, 3, 2 * seed), gaussian(200, 3, 2 * seed + 1, shift), np.random.default_rng(seed))
        for seed in range(40)
    ]
    for name in ("density", "coverage", "sliced_wasserstein"):
        spread = np.std([getattr(one, name) for one in found], ddof=1)
        claimed = math.sqrt(np.mean([getattr(one, f"{name}_se") ** 2 for one in found]))
        # the spread over 40 draws is itself known to ± 11 %; the claim is on the safe side by up to 1.4
        assert 0.75 * spread <= claimed <= 2 * spread


def test_small_sets_take_fewer_neighbours():
    found = closeness(gaussian(8), gaussian(8, seed=1), np.random.default_rng(0))
    assert (found.neighbours, found.rows) == (3, 8)
    assert math.isfinite(found.density_se)
    closeness(gaussian(4), gaussian(4, seed=1), np.random.default_rng(0))
    for real, points in ((gaussian(3), gaussian(3)), (gaussian(9), gaussian(8))):
        with pytest.raises(ValueError, match="rows at least"):
            closeness(real, points, np.random.default_rng(0))


def test_rows_are_capped_and_equal_states_give_equal_numbers(monkeypatch):
    monkeypatch.setattr(coverage, "NEIGHBOUR_ROWS", 100)
    monkeypatch.setattr(coverage, "WASSERSTEIN_ROWS", 150)
    real, points = gaussian(200), gaussian(200, seed=1)
    found = closeness(real, points, np.random.default_rng(7))
    assert (found.rows, found.wasserstein_rows) == (100, 150)
    assert closeness(real, points, np.random.default_rng(7)) == found
