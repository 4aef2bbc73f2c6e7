from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.sparse.linalg import aslinearoperator
from support.matrices import MATRICES, SPECTRA, Counting, with_spectrum

from analysis.curvature.lanczos import Tridiagonal, extreme_eigenvalues, lanczos
from analysis.curvature.spectrum import (
    density_grid,
    density_width,
    kappa_exact,
    kappa_lanczos,
    negative_share,
    negative_share_exact,
    published_estimator,
    spectral_density,
)
from sparseflows.errors import InputError, RunError

NAMES = list(MATRICES)
# Starts that weigh every eigenvector alike: quadrature over all steps is then the spectrum itself, 1/P each.
EVEN = np.ones((60, 1))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runs_of(matrix: np.ndarray, steps: int, m: int = 3, seed: int = 0, keep_basis: bool = False) -> list[Tridiagonal]:
    starts = rng(seed).standard_normal((len(matrix), m))
    return lanczos(aslinearoperator(matrix), starts, steps, keep_basis=keep_basis)


# --- Lanczos runs


@pytest.mark.parametrize("name", ["dense SPD", "indefinite", "Hessian-like", "power law", "huge"])
def test_all_steps_reproduce_the_spectrum(name):
    exact = np.sort(SPECTRA[name])
    for run in runs_of(MATRICES[name], steps=len(exact)):
        # Backward stable: eigenvalues to P eps |A| = 2e-14 |A|, with a margin of 50.
        assert run.ritz()[0] == pytest.approx(exact, rel=0, abs=1e-12 * np.max(np.abs(exact)))


@pytest.mark.parametrize("name", NAMES)
def test_the_moments_are_exact_up_to_degree_2k_minus_1(name):
    steps, matrix = 5, MATRICES[name]
    scaled = matrix / np.linalg.norm(matrix, 2)
    start = rng().standard_normal((len(matrix), 1))
    (run,) = lanczos(aslinearoperator(scaled), start, steps)
    values, weights = run.ritz()
    power = unit = start[:, 0] / np.linalg.norm(start)
    for degree in range(2 * run.products):
        # Norm 1, so a moment is at most 1 and its rounding of the order of P eps = 2e-14.
        assert weights @ values**degree == pytest.approx(unit @ power, abs=1e-12)
        power = scaled @ power


def test_the_basis_is_orthonormal_and_tridiagonalises():
    matrix = MATRICES["Hessian-like"]  # without reorthogonalisation the outliers would come back as copies
    for run in runs_of(matrix, steps=60, keep_basis=True):
        basis = run.basis
        expected = np.diag(run.alpha) + np.diag(run.beta, 1) + np.diag(run.beta, -1)
        # Twice reorthogonalised: at rounding, k eps = 1e-14, with a margin of 100.
        assert np.max(np.abs(basis.T @ basis - np.eye(60))) < 1e-12
        assert np.max(np.abs(basis.T @ matrix @ basis - expected)) < 1e-12 * 50


def test_ritz_vectors_of_converged_values_are_eigenvectors():
    matrix = MATRICES["Hessian-like"]
    (run,) = runs_of(matrix, steps=60, m=1, keep_basis=True)
    values, vectors = run.ritz_vectors()
    # The outlier has converged to rounding long before 60 steps.
    assert np.linalg.norm(matrix @ vectors[:, -1] - values[-1] * vectors[:, -1]) < 1e-10 * 50
    assert values == pytest.approx(run.ritz()[0])


def test_ritz_vectors_need_the_basis():
    (run,) = runs_of(MATRICES["dense SPD"], steps=3, m=1)
    with pytest.raises(ValueError, match="keep_basis=True"):
        run.ritz_vectors()


def test_lock_step_runs_equal_single_runs():
    matrix, starts = MATRICES["dense SPD"], rng().standard_normal((100, 4))
    together = lanczos(aslinearoperator(matrix), starts, 20)
    for run, start in zip(together, starts.T, strict=True):
        (alone,) = lanczos(aslinearoperator(matrix), start[:, None], 20)
        # A block product rounds differently from a single one; 20 steps do not magnify that far.
        assert run.alpha == pytest.approx(alone.alpha, rel=1e-9)
        assert run.beta == pytest.approx(alone.beta, rel=1e-9)


def test_one_product_with_a_block_a_step_and_every_column_counted():
    counting, steps = Counting(MATRICES["dense SPD"]), []
    runs = lanczos(counting.operator, rng().standard_normal((100, 3)), 10, on_step=steps.append)
    assert (counting.calls, counting.columns) == (10, 30)
    assert sum(run.products for run in runs) == 30
    assert steps == list(range(1, 11))


def test_an_exhausted_run_ends_alone():
    matrix = np.diag(np.arange(1.0, 31.0))
    starts = np.zeros((30, 2))
    starts[[3, 8, 20], 0] = 1.0  # an invariant subspace of dimension 3
    starts[:, 1] = 1.0
    counting = Counting(matrix)
    short, long = lanczos(counting.operator, starts, 12)
    values, weights = short.ritz()
    assert values == pytest.approx([4, 9, 21])
    assert weights == pytest.approx([1 / 3] * 3)
    assert (len(short.beta), long.products, counting.columns) == (2, 12, 15)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_more_steps_than_parameters(size):
    values = np.arange(1.0, size + 1) - 2.0
    for run in runs_of(with_spectrum(values, rng(1)), steps=100):
        assert run.products == size
        assert run.ritz()[0] == pytest.approx(values)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-9, 1e9])
def test_a_multiple_of_the_identity_takes_one_step(scale):
    for run in runs_of(scale * np.eye(40), steps=10):
        assert (run.products, len(run.beta)) == (1, 0)
        assert run.ritz()[0] == pytest.approx([scale])


def test_projected_starts_give_no_negative_value_for_a_positive_matrix():
    # Trap 4: the operator lives on a subspace; normalised first and projected then, a start is too short.
    kept = rng(1).uniform(size=100) < 0.4
    matrix = MATRICES["dense SPD"] * np.outer(kept, kept)
    full = rng().standard_normal(100)
    (run,) = lanczos(aslinearoperator(matrix), (full * kept)[:, None], 30)
    assert run.ritz()[0].min() > -1e-12 * 10  # PSD with λ_max = 10, so at worst rounding
    assert _smallest_ritz_value_without_normalising(matrix, full / np.linalg.norm(full) * kept, 30) < -0.1


def _smallest_ritz_value_without_normalising(matrix: np.ndarray, v: np.ndarray, steps: int) -> float:
    alpha, beta, previous = [], [0.0], np.zeros_like(v)
    for _ in range(steps):
        product = matrix @ v
        alpha.append(v @ product)
        rest = product - alpha[-1] * v - beta[-1] * previous
        beta.append(float(np.linalg.norm(rest)))
        previous, v = v, rest / beta[-1]
    return float(np.linalg.eigvalsh(np.diag(alpha) + np.diag(beta[1:-1], 1) + np.diag(beta[1:-1], -1))[0])


def test_what_lanczos_refuses():
    operator = aslinearoperator(np.eye(4))
    with pytest.raises(InputError, match="starting vector is zero"):
        lanczos(operator, np.zeros((4, 1)), 3)
    with pytest.raises(InputError, match=r"\(4, m\) is wanted"):
        lanczos(operator, np.ones((3, 1)), 3)
    with pytest.raises(InputError, match="at least 1 step"):
        lanczos(operator, np.ones((4, 1)), 0)
    with pytest.raises(InputError, match="3 x 4"):
        lanczos(aslinearoperator(np.ones((3, 4))), np.ones((4, 1)), 3)


def test_a_product_that_is_not_finite_ends_it():
    counting = Counting(MATRICES["dense SPD"], broken_after=10)
    with pytest.raises(RunError, match="the Hessian product is not finite"):
        lanczos(counting.operator, np.ones((100, 2)), 20)
    assert counting.columns == 12
    for broken_after in (0, 60):  # in the first Lanczos run, and within ARPACK
        counting = Counting(MATRICES["power law"], broken_after)
        with pytest.raises(RunError, match="the Hessian product is not finite"):
            extreme_eigenvalues(counting.operator, rng=rng())


# --- Extreme eigenvalues


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_extreme_eigenvalues(name, seed):
    counting, exact = Counting(MATRICES[name]), np.sort(SPECTRA[name])
    norm = np.max(np.abs(exact))
    found = extreme_eigenvalues(counting.operator, rng=rng(seed))
    assert found.converged
    # The promise; the residual bounds it, and the error is of the order of its square.
    assert found.lambda_max == pytest.approx(exact[-1], rel=0, abs=1e-6 * norm)
    assert found.lambda_min == pytest.approx(exact[0], rel=0, abs=1e-6 * norm)
    assert max(found.residual_max, found.residual_min) <= 1e-6 * norm
    assert found.products == counting.columns


@pytest.mark.parametrize("size", [1, 2, 3, 40, 41, 42])
def test_extreme_eigenvalues_of_small_matrices(size):
    exact = np.linspace(-3, 1, size)
    found = extreme_eigenvalues(aslinearoperator(with_spectrum(exact, rng())), rng=rng())
    assert (found.lambda_min, found.lambda_max) == pytest.approx((exact[0], exact[-1]), abs=1e-6 * 3)
    assert found.converged


def test_extreme_eigenvalues_of_zero_and_of_a_near_multiple_of_the_identity():
    zero = extreme_eigenvalues(aslinearoperator(np.zeros((80, 80))), rng=rng())
    assert (zero.lambda_max, zero.lambda_min, zero.residual_max, zero.converged) == (0, 0, 0, True)
    near = extreme_eigenvalues(aslinearoperator(5 * np.eye(100) + 1e-4 * MATRICES["indefinite"]), rng=rng())
    assert near.converged
    assert near.lambda_max == pytest.approx(5 + 1e-4 * SPECTRA["indefinite"].max(), abs=1e-6 * 5)


def test_an_earlier_run_makes_it_converge_at_once():
    matrix = MATRICES["power law"]
    (run,) = runs_of(matrix, steps=100, m=1, keep_basis=True)
    start = run.ritz_vectors()[1][:, [0, -1]].sum(axis=1)
    warm = extreme_eigenvalues(aslinearoperator(matrix), start=start)
    cold = extreme_eigenvalues(aslinearoperator(matrix), rng=rng())
    assert warm.products <= 6 < 200 < cold.products
    assert warm.lambda_max == pytest.approx(1.0, abs=1e-12)  # the run of 100 steps is the whole spectrum
    assert warm.lambda_min == pytest.approx(1e-4, abs=1e-12)


def test_no_convergence_is_a_value():
    counting = Counting(MATRICES["power law"])
    found = extreme_eigenvalues(counting.operator, rng=rng(), max_products=50)
    assert not found.converged
    assert found.residual_min > 1e-6
    assert found.products == counting.columns < 200
    assert found.lambda_max == pytest.approx(1.0, abs=1e-6)  # this end is easy and has converged
    assert 1e-4 <= found.lambda_min < 1e-3  # a Ritz value lies inside the spectrum, near its end


def test_extreme_eigenvalues_need_a_start():
    with pytest.raises(InputError, match="random generator or a starting vector"):
        extreme_eigenvalues(aslinearoperator(np.eye(3)))


# --- What is read off the runs


def test_kappa_of_known_eigenvalues():
    assert kappa_exact(np.array([4.0, 2.0, -0.5, 1e-6, 0.0])) == (8.0, 2)
    assert kappa_exact(np.array([4.0, 1e-3]), eps=1e-2) == (1.0, 1)
    kappa, below = kappa_exact(np.array([-1.0, 0.0]))
    assert math.isnan(kappa)
    assert below == 1


def test_kappa_of_ritz_values():
    runs = [
        Tridiagonal(np.array([-3.0, 1e-9, 0.5, 2.0]), np.zeros(3)),
        Tridiagonal(np.array([1.0, 2.0]), np.zeros(1)),
    ]
    assert kappa_lanczos(runs) == pytest.approx((3.0, 1.0))  # ratios 4 and 2: s.d. sqrt 2, s.e. 1
    mean, se = kappa_lanczos(runs[:1])
    assert mean == 4.0
    assert math.isnan(se)
    assert math.isnan(kappa_lanczos([Tridiagonal(np.array([-1.0]), np.zeros(0))])[0])
    exact, _ = kappa_exact(SPECTRA["dense SPD"])
    # All steps: the Ritz values are the spectrum. The smallest is known to P eps |A|, relative to 0.5: 1e-13.
    assert kappa_lanczos(runs_of(MATRICES["dense SPD"], 100))[0] == pytest.approx(exact, rel=1e-11)


def test_negative_share():
    assert negative_share_exact(np.array([-1.0, -1e-7, 0.0, 1.0])) == 0.25
    exact = negative_share_exact(SPECTRA["Hessian-like"])
    assert exact == 0.12
    mean, se = negative_share(runs_of(MATRICES["Hessian-like"], steps=60, m=20), 1e-6)
    # Within 3.5 s.e. of the 20 starts (t with 19 degrees of freedom: 2 in 1,000 for one fixed seed), se ~ 0.01.
    assert abs(mean - exact) < 3.5 * se < 0.05
    even = lanczos(aslinearoperator(np.diag(np.linspace(-1, 2, 60))), EVEN, 60)
    assert negative_share(even)[0] == pytest.approx(20 / 60, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_integrates_to_1(name):
    runs = runs_of(MATRICES[name], steps=40)
    grid = density_grid(runs, points=801)
    # 5 widths beyond the outermost value leave 6e-7 outside; the trapezoid rule on Gaussians is exact beside that.
    assert trapezoid(spectral_density(runs, grid), grid) == pytest.approx(1.0, abs=2e-6)


def test_the_density_is_that_of_a_known_spectrum():
    values = np.sort(np.concatenate([rng().normal(0, 0.1, 59), [5.0]]))
    runs = lanczos(aslinearoperator(np.diag(values)), EVEN, 60)
    grid, width = density_grid(runs), density_width(runs)
    assert width == pytest.approx(0.01 * np.ptp(values))
    smooth = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2).sum(axis=1) / (60 * width * math.sqrt(2 * math.pi))
    # All steps from an even start: the same numbers by another route, the clustered ones to 1e-6 or so.
    assert spectral_density(runs, grid) == pytest.approx(smooth, abs=1e-4 * smooth.max())


def test_the_density_matches_the_histogram():
    values = np.sort(rng(3).normal(0, 1, 150))
    runs = runs_of(with_spectrum(values, rng()), steps=40, m=30)
    grid = density_grid(runs)
    density = spectral_density(runs, grid)
    edges = np.array([-5, -1, -0.3, 0.3, 1, 5.0])
    mass = [trapezoid(np.where((grid >= a) & (grid < b), density, 0), grid) for a, b in pairwise(edges)]
    # A bin of share p over 30 starts of 150 parameters: s.e. sqrt(2 p (1 - p) / (150 · 30)) < 0.011; 4 of them,
    # with what the broadening (0.05) carries over an edge: at most 0.4 · 0.05.
    assert mass == pytest.approx(np.histogram(values, edges)[0] / 150, abs=0.06)


def test_the_density_of_one_point_has_a_width():
    runs = runs_of(3.0 * np.eye(20), steps=5)
    assert density_width(runs) == pytest.approx(0.03)
    assert density_width(runs_of(np.zeros((20, 20)), steps=5)) == 0.01


def test_the_published_estimator_is_no_trace():
    matrix = np.diag(np.concatenate([np.full(90, 1.0), np.arange(2.0, 12.0)]))  # 11 distinct values
    published = published_estimator(runs_of(matrix, steps=100))
    assert published.lambda_max == pytest.approx(11.0)
    assert published.kappa == pytest.approx(11.0)
    # Every distinct value once, however often it is there: 1 + 2 + … + 11 = 66, where the trace is 155.
    assert published.trace == pytest.approx(66.0)
    assert np.trace(matrix) == 155.0
    negative = published_estimator(runs_of(-np.eye(5), steps=5))
    assert (negative.lambda_max, negative.trace) == pytest.approx((-1.0, 0.0))
    assert math.isnan(negative.kappa)
