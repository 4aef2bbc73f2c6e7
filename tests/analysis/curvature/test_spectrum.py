"""The spectrum by one block Lanczos against whole spectra: extremes, norm, density, the trace's coverage."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.sparse.linalg import aslinearoperator
from support.matrices import MATRICES, SPECTRA, Counting, hessian_like, with_spectrum

from analysis.curvature.spectrum import Spectrum, computed, density, estimated, whole_matrix
from analysis.curvature.trace import TraceEstimate
from sparseflows.errors import InputError, RunError

NAMES = list(MATRICES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def known(values: np.ndarray) -> Spectrum:
    """Point masses of equal weight."""
    n = len(values)
    trace = TraceEstimate(float(values.sum()), 0.0, 0, n)
    return Spectrum(values, np.zeros(n), np.full(n, 1 / n), n, trace, 0.0, True, np.empty((n, 0)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_extreme_eigenvalues(name, seed):
    counting, exact = Counting(MATRICES[name]), np.sort(SPECTRA[name])
    norm = np.max(np.abs(exact))
    found = estimated(counting.operator, rng(seed), steps=20)
    low, high = found.extremes
    # The residual bounds the error; what is called converged is much nearer, by its square over the gap.
    assert abs(high - exact[-1]) <= found.residuals[-1] + 1e-12 * norm
    assert abs(low - exact[0]) <= found.residuals[0] + 1e-12 * norm
    if found.converged:
        assert (low, high) == pytest.approx((exact[0], exact[-1]), rel=0, abs=1e-4 * norm)
    assert found.trace.products == counting.columns


def test_what_has_not_converged_says_so():
    found = estimated(aslinearoperator(MATRICES["dense SPD"]), rng(), steps=3)
    assert not found.converged
    assert found.residuals[-1] > 0.01
    assert estimated(aslinearoperator(MATRICES["Hessian-like"]), rng(), steps=20).converged


@pytest.mark.parametrize("name", ["Hessian-like", "power law", "indefinite"])
def test_all_of_it_and_what_a_few_products_tell(name):
    matrix = MATRICES[name]
    whole, again = computed(aslinearoperator(matrix), blocks={"half": slice(0, 50)}, top=3)
    np.testing.assert_array_equal(again, whole_matrix(aslinearoperator(matrix)))
    assert (whole.whole, whole.converged, whole.size, whole.trace.se) == (True, True, 100, 0.0)
    np.testing.assert_allclose(whole.values, np.sort(SPECTRA[name]), atol=1e-13 * np.abs(SPECTRA[name]).max())
    assert whole.trace.blocks["half"] == (pytest.approx(np.trace(matrix[:50, :50]), abs=1e-12), 0.0)
    assert whole.norm == pytest.approx(np.linalg.norm(matrix), rel=1e-14)
    guess = estimated(aslinearoperator(matrix), rng(), steps=20, top=3)
    assert (guess.whole, guess.vectors.shape, whole.vectors.shape) == (False, (100, 3), (100, 3))
    assert guess.norm == pytest.approx(whole.norm, rel=0.05)
    if name != "indefinite":  # its ends are crowded
        overlap = np.abs(np.sum(guess.vectors * whole.vectors, axis=0))
        np.testing.assert_allclose(overlap, 1, atol=1e-5)  # the largest first, as eigenvectors up to sign
        assert guess.figures.kappa_80 == pytest.approx(whole.figures.kappa_80, rel=1e-6)
        assert guess.figures.outliers == whole.figures.outliers


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_small_matrices_are_known_whole(size):
    exact = np.linspace(-3, 1, size)
    found = estimated(aslinearoperator(with_spectrum(exact, rng())), rng())
    assert found.extremes == pytest.approx((exact[0], exact[-1]))
    assert found.trace.value == pytest.approx(exact.sum())
    assert found.trace.se == 0.0


def test_zero():
    found = estimated(aslinearoperator(np.zeros((80, 80))), rng())
    assert (*found.extremes, found.trace.value, found.trace.se, found.norm) == (0, 0, 0, 0, 0)
    assert found.converged
    assert math.isnan(found.figures.effective_rank)


@pytest.mark.parametrize("spectrum", ["Hessian-like", "heavier bulk", "spread out"])
def test_the_95_percent_interval_of_the_trace(spectrum):
    """At the report's own settings: 200 draws on matrices whose trace is known."""
    size, seeded = 260, rng(4)
    values = {
        "Hessian-like": hessian_like(size, seeded),
        "heavier bulk": np.concatenate([np.geomspace(40, 1, 20), 0.3 * seeded.standard_normal(size - 20)]),
        "spread out": np.geomspace(30, 1e-3, size),
    }[spectrum]
    operator, truth = aslinearoperator(with_spectrum(values, seeded)), values.sum()
    intervals = [estimated(operator, rng(seed)).trace.interval(0.95) for seed in range(200)]
    share = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.91 <= share <= 0.99  # 95 %, of 200 draws with an s.e. of 1.5 %: within 2.6 of them


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_1(name):
    grid, height = density([estimated(aslinearoperator(MATRICES[name]), rng(), steps=10)], points=801)
    # 5 widths beyond the outermost value leave 6e-7 outside; the trapezoid rule on Gaussians is exact beside that.
    assert trapezoid(height, grid) == pytest.approx(1.0, abs=2e-6)


def test_the_density_is_that_of_a_known_spectrum():
    values = np.sort(np.concatenate([rng().normal(0, 0.1, 59), [5.0]]))
    grid, height = density([known(values)])
    width = 0.01 * np.ptp(values)
    smooth = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1) / (60 * width * math.sqrt(2 * math.pi))
    assert height == pytest.approx(smooth, rel=1e-12)
    halves, both = density([known(values[:30]), known(values[30:])])
    assert trapezoid(both, halves) == pytest.approx(1.0, abs=2e-6)
    assert halves[[0, -1]] == pytest.approx(grid[[0, -1]])


def test_the_density_matches_the_histogram():
    values = np.sort(rng(3).normal(0, 1, 150))
    matrix = aslinearoperator(with_spectrum(values, rng()))
    grid, height = density([estimated(matrix, rng(seed), steps=15) for seed in range(8)])
    edges = np.array([-5, -1, -0.3, 0.3, 1, 5.0])
    mass = [trapezoid(np.where((grid >= a) & (grid < b), height, 0), grid) for a, b in pairwise(edges)]
    # A bin of share p over 32 starts of 150 parameters: s.e. sqrt(2 p (1 - p) / (150 · 32)) < 0.011; 4 of them,
    # with what the broadening (0.05) carries over an edge: at most 0.4 · 0.05.
    assert mass == pytest.approx(np.histogram(values, edges)[0] / 150, abs=0.06)


@pytest.mark.parametrize("scale", [3.0, 0.0])
def test_the_density_of_one_point_has_a_width(scale):
    grid, height = density([estimated(aslinearoperator(scale * np.eye(20)), rng())])
    assert trapezoid(height, grid) == pytest.approx(1.0, abs=2e-6)
    assert np.ptp(grid) == pytest.approx(10 * 0.01 * (scale or 1.0))


def test_what_is_refused():
    operator = aslinearoperator(MATRICES["dense SPD"])
    for options in ({"steps": 0}, {"probes": 1, "steps": 5}, {"starts": 0}):
        with pytest.raises(InputError):
            estimated(operator, rng(), **options)
    with pytest.raises(RunError, match="not finite"):
        computed(Counting(MATRICES["dense SPD"], 40).operator)
