"""Toy densities: samplers against densities, densities against naive twins."""

import functools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from sparseflows.data.toy import densities, toy
from sparseflows.data.toy.toy import SPIRAL_LENGTH, TOYS
from sparseflows.errors import InputError

COMPONENTS = {
    "gaussians": 6,
    "gaussian_spiral": 10,
    "spirals": 2,
    "spirals_class": 2,
    "moons": 2,
    "concentric": 2,
    "pinwheel": 5,
    "checkerboard": 8,
    "swiss_roll": 1,
}
EXACT = sorted(name for name, known in TOYS.items() if known.log_prob is not None)
SMOOTH = ["concentric", "gaussian_spiral", "gaussians", "moons", "swiss_roll"]
JAGGED = {"spirals": 0.5, "spirals_class": 0.9}  # side of the box of noise


def draw(name, n, seed=0):
    return TOYS[name].sample(n, np.random.default_rng(seed))


def midpoints(low, high, cells):
    """Centres (cells², 2) of a grid over a rectangle, and the area of a cell."""
    axes = [low[k] + (high[k] - low[k]) * (np.arange(cells) + 0.5) / cells for k in (0, 1)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid, float(np.prod(np.subtract(high, low))) / cells**2


@functools.cache
def smooth_grid(name, cells=200):
    """Log density on a grid that holds all but a negligible share of the mass, and a cell's area."""
    points, _ = draw(name, 2000)
    grid, area = midpoints(points.min(axis=0) - 1.5, points.max(axis=0) + 1.5, cells)
    return TOYS[name].log_prob(grid), area


def test_every_set_is_covered():
    assert set(TOYS) == set(COMPONENTS)
    assert set(TOYS) - set(EXACT) == {"pinwheel"}
    assert all(name == known.name for name, known in TOYS.items())


def test_published_numbers_of_training_points():
    known = {
        "gaussians": 16380,
        "gaussian_spiral": 16380,
        "spirals": 32768,
        "moons": 1024,
        "concentric": 1024,
    }
    assert {name: TOYS[name].default_n for name in known} == known


@pytest.mark.parametrize("name", COMPONENTS)
@given(n=st.integers(1, 70), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=15, deadline=None)
def test_components_come_in_equal_counts(name, n, seed):
    points, labels = draw(name, n, seed)
    assert points.shape == (n, 2)
    assert points.dtype == np.float64
    assert labels.dtype == np.int64
    k = COMPONENTS[name]
    expected = [n // k + (i < n % k) for i in range(k)]  # the first ones take the remainder
    assert np.bincount(labels, minlength=k).tolist() == expected


def test_a_seed_decides_the_draw():
    for name, components in COMPONENTS.items():
        one, again, other = draw(name, 50, 3), draw(name, 50, 3), draw(name, 50, 4)
        assert np.array_equal(one[0], again[0]), name
        assert np.array_equal(one[1], again[1]), name
        assert not np.array_equal(one[0], other[0]), name
        if components > 1:
            assert (np.diff(one[1]) < 0).any(), f"the labels of {name} are not shuffled"


def test_no_points_are_refused():
    for place, name in enumerate(COMPONENTS):
        with pytest.raises(InputError, match="at least 1"):
            draw(name, -3 * (place % 2))


def test_sets_survive_pickling():
    for name in EXACT:
        again = pickle.loads(pickle.dumps(TOYS[name]))
        points, _ = draw(name, 5)
        assert np.array_equal(again.log_prob(points), TOYS[name].log_prob(points))


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_densities_integrate_to_one(name):
    # The midpoint rule is spectrally accurate for Gaussians; the frame ends 1.5 past the outermost of 2,000
    # draws, which is 3 σ further out for the widest noise (gaussians) and more for the others.
    log_p, area = smooth_grid(name)
    assert np.exp(log_p).sum() * area == pytest.approx(1, abs=1e-6)


def test_checkerboard_integrates_to_one():
    grid, area = midpoints((-5, -5), (5, 5), 100)  # cell edges fall on grid edges: exact but for rounding
    assert np.exp(TOYS["checkerboard"].log_prob(grid)).sum() * area == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", JAGGED)
def test_spirals_integrate_to_one(name):
    # A half plane will do, by symmetry. One random point in each cell makes it unbiased; kinks and jumps
    # leave it up to 0.009 off (measured over 6 seeds). The exact check is the brute force below.
    grid, area = midpoints((0, -14.5), (14.5, 14.5), 170)
    jitter = np.random.default_rng(0).uniform(-0.5, 0.5, grid.shape) * [14.5 / 170, 29 / 170]
    assert 2 * np.exp(TOYS[name].log_prob(grid + jitter)).sum() * area == pytest.approx(1, abs=0.015)


def test_spiral_noise_is_drawn_apart_for_each_coordinate():
    side = 1e6  # dwarfs the curve
    points, labels = toy._sample_spirals(4000, np.random.default_rng(0), side)
    noise = np.where(labels[:, None] == 0, points, -points) / side
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(4000)
    assert all(stats.kstest(noise[:, k], "uniform").pvalue > 1e-3 for k in (0, 1))


@pytest.mark.parametrize("name", SMOOTH)
def test_sampler_has_the_entropy_of_the_density(name):
    log_p, area = smooth_grid(name)
    log_q = TOYS[name].log_prob(draw(name, 20_000, 1)[0])
    error = log_q.std() / math.sqrt(len(log_q))  # stratified by component, so an upper bound
    assert log_q.mean() == pytest.approx((np.exp(log_p) * log_p).sum() * area, abs=4.5 * error)


@pytest.mark.parametrize("name", EXACT)
def test_samples_fill_cells_as_the_density_says(name):
    """Chi-square over a 10 × 10 grid, each cell's share of the density by 12 × 12 jittered points."""
    points, _ = draw(name, 10_000, 2)
    low, high = (-4, -4) if name == "checkerboard" else points.min(axis=0), points.max(axis=0)
    high = (4, 4) if name == "checkerboard" else high
    grid, area = midpoints(low, high, 120)
    step = np.subtract(high, low) / 120
    jitter = np.random.default_rng(0).uniform(-0.5, 0.5, grid.shape) * step
    shares = np.exp(TOYS[name].log_prob(grid + jitter)).reshape(10, 12, 10, 12).sum(axis=(1, 3)) * area
    found, _, _ = np.histogram2d(*points.T, bins=10, range=list(zip(low, high, strict=True)))
    expected = len(points) * shares
    cells = expected > 15
    chi_square = ((found - expected)[cells] ** 2 / expected[cells]).sum()
    # 1.5: the jittered shares are themselves off by up to a few per cent in cells with edges.
    assert chi_square < 1.5 * stats.chi2.ppf(1 - 1e-4, cells.sum())
    assert found[~cells].sum() <= 2 * expected[~cells].sum() + 20


def test_no_drawn_point_has_density_zero():
    for name in EXACT:
        assert np.isfinite(TOYS[name].log_prob(draw(name, 8_000, 5)[0])).all(), name


def test_log_density_far_away_is_finite_or_minus_infinity_outside_the_support():
    far = np.array([[40.0, 0.0], [-40.0, 3.0], [0.0, 1e6]])
    for name in ("spirals", "spirals_class", "checkerboard"):
        assert (TOYS[name].log_prob(far) == -np.inf).all(), name
    for name in SMOOTH:
        assert np.isfinite(TOYS[name].log_prob(np.array([[300.0, -200.0], [0.0, 0.0]]))).all(), name


@pytest.mark.parametrize("name", ["gaussians", "gaussian_spiral"])
def test_mixture_against_scipy(name):
    points, _ = draw(name, 40)
    modes = TOYS[name].modes
    parts = zip(modes.means, modes.covariances, strict=True)
    twin = np.mean([stats.multivariate_normal(m, c).pdf(points) for m, c in parts], axis=0)
    np.testing.assert_allclose(TOYS[name].log_prob(points), np.log(twin), rtol=0, atol=1e-11)


def test_modes_as_published():
    modes = TOYS["gaussian_spiral"].modes
    np.testing.assert_allclose(modes.means[0], 4 * np.array([0.5, math.sqrt(0.75)]))
    np.testing.assert_allclose(modes.covariances[0], 0.09 * np.eye(2))
    np.testing.assert_allclose(np.hypot(*modes.means.T), np.linspace(4, 1, 10))
    np.testing.assert_allclose(np.hypot(*TOYS["gaussians"].modes.means.T), 4.0)
    assert [name for name, known in TOYS.items() if known.modes] == ["gaussians", "gaussian_spiral"]


def test_entropy_of_the_standardised_gaussian_spiral():
    """0.522 nats: entropy by quadrature, less twice the log of the exact scalar standard deviation."""
    modes = TOYS["gaussian_spiral"].modes
    log_p, area = smooth_grid("gaussian_spiral", 500)
    entropy = -(np.exp(log_p) * log_p).sum() * area
    second = (modes.means**2).mean() + modes.covariances[:, 0, 0].mean()
    scale = math.sqrt(second - modes.means.mean() ** 2)
    assert entropy - 2 * math.log(scale) == pytest.approx(0.522, abs=5e-4)


def brute_force_spirals(points, side):
    """Midpoint sum over n of the density of n times the indicator of its box, both arms."""
    n = (np.arange(400_000) + 0.5) / 400_000 * SPIRAL_LENGTH
    mass = 2 * n / SPIRAL_LENGTH / len(n) / side**2
    u, v = -n * np.cos(n), n * np.sin(n)

    def arm(x):
        inside = (x[0] - u >= 0) & (x[0] - u < side) & (x[1] - v >= 0) & (x[1] - v < side)
        return mass[inside].sum()

    return np.array([(arm(x) + arm(-x)) / 2 for x in points])


@pytest.mark.parametrize(("name", "side"), JAGGED.items())
def test_spirals_against_brute_force(name, side):
    points, _ = draw(name, 60)
    rng = np.random.default_rng(9)
    points = np.concatenate([points, rng.uniform(-14, 14, (30, 2)), rng.uniform(-1, 1, (10, 2))])
    # 4 or 6 ends of intervals, each off by half a step: 2n/N · 1/400,000 · 1/side² · ½ = 1e-5 at most.
    found = np.exp(TOYS[name].log_prob(points))
    np.testing.assert_allclose(found, brute_force_spirals(points, side), rtol=0, atol=3e-5)
    assert (found == 0).any()


@pytest.mark.parametrize("name", JAGGED)
def test_spirals_are_symmetric_about_the_origin(name):
    points, labels = draw(name, 200)
    assert np.array_equal(TOYS[name].log_prob(points), TOYS[name].log_prob(-points))
    arm = points[labels == 1]
    assert np.isfinite(TOYS[name].log_prob(-arm)).all()


@pytest.mark.parametrize("phase", [0.0, math.pi / 2])
def test_spiral_coordinates_are_monotone_on_their_pieces(phase):
    pieces = densities._monotone_pieces(phase, SPIRAL_LENGTH)
    assert pieces[0, 0] == 0
    assert pieces[-1, 1] == SPIRAL_LENGTH
    assert np.array_equal(pieces[1:, 0], pieces[:-1, 1])
    for first, last in pieces:
        slopes = np.sign(np.diff(densities._coordinate(np.linspace(first, last, 2001), phase)))
        assert len(set(slopes)) == 1
    turns = pieces[1:, 0]
    slope = np.sin(turns - phase) + turns * np.cos(turns - phase)
    np.testing.assert_allclose(slope, 0, atol=1e-13)


def brute_force_curve(x, curve, interval, sigma):
    def integrand(t):
        offset = x - curve(np.float64(t))
        return math.exp(-0.5 * (offset @ offset) / sigma**2) / (2 * math.pi * sigma**2)

    total, _ = integrate.quad(integrand, *interval, limit=400, epsabs=1e-13, epsrel=1e-12)
    return total / (interval[1] - interval[0])


def circle(radius):
    return lambda t: radius * np.array([np.cos(t), np.sin(t)])


@pytest.mark.parametrize(
    ("name", "curves", "interval", "sigma"),
    [
        ("concentric", [circle(0.75), circle(1.5)], (0, 2 * math.pi), 0.1),
        (
            "moons",
            [circle(1), lambda t: np.array([1 - np.cos(t), 0.5 - np.sin(t)])],
            (0, math.pi),
            0.1,
        ),
        (
            "swiss_roll",
            [lambda t: np.array([t * np.cos(t), t * np.sin(t)]) / 5],
            (1.5 * math.pi, 4.5 * math.pi),
            0.2,
        ),
    ],
)
def test_noisy_curves_against_adaptive_quadrature(name, curves, interval, sigma):
    points, _ = draw(name, 12)
    twin = [np.mean([brute_force_curve(x, c, interval, sigma) for c in curves]) for x in points]
    np.testing.assert_allclose(np.exp(TOYS[name].log_prob(points)), twin, rtol=1e-9)


def test_quadrature_weights_sum_to_one_and_are_exact_for_polynomials():
    nodes, weights = densities.gauss_legendre(-1.0, 3.0, panels=2)
    assert weights.sum() == pytest.approx(1)
    assert (weights * nodes**5).sum() == pytest.approx((3**6 - 1) / 6 / 4, rel=1e-13)


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    points = {name: draw(name, 100)[0] for name in EXACT}
    whole = {name: TOYS[name].log_prob(points[name]) for name in EXACT}
    monkeypatch.setattr(densities, "CHUNK_ENTRIES", 7)
    for name in EXACT:
        np.testing.assert_allclose(TOYS[name].log_prob(points[name]), whole[name], rtol=1e-13, err_msg=name)


def test_points_of_another_shape_are_refused():
    shapes = [(2,), (5, 3), (2, 2, 2)]
    for place, name in enumerate(sorted(set(EXACT) - {"checkerboard"})):
        with pytest.raises(ValueError, match=r"\(B, 2\)"):
            TOYS[name].log_prob(np.zeros(shapes[place % 3]))


def test_pinwheel_blades_are_a_fifth_of_a_turn_apart():
    points, labels = draw("pinwheel", 50_000)
    centres = np.array([points[labels == k].mean(axis=0) for k in range(5)])
    turned = np.arctan2(centres[:, 1], centres[:, 0])
    np.testing.assert_allclose(np.diff(np.unwrap(turned)), -2 * math.pi / 5, atol=0.02)
    np.testing.assert_allclose((points**2).sum(axis=1).mean(), 4 * (1 + 0.3**2 + 0.1**2), rtol=0.01)
