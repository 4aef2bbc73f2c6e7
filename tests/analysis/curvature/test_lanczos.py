from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator
from support.matrices import MATRICES, SPECTRA, Counting, with_spectrum

from analysis.curvature.lanczos import Tridiagonal, lanczos, published_estimator
from sparseflows.errors import InputError, RunError

NAMES = list(MATRICES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def runs_of(matrix: np.ndarray, steps: int, m: int = 3, seed: int = 0) -> list[Tridiagonal]:
    starts = rng(seed).standard_normal((len(matrix), m))
    return lanczos(aslinearoperator(matrix), starts, steps)


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


def test_no_copies_of_converged_values():
    # Without reorthogonalisation the outliers would come back as copies.
    for run in runs_of(MATRICES["Hessian-like"], steps=60):
        assert run.ritz()[0][-8:] == pytest.approx(np.sort(SPECTRA["Hessian-like"])[-8:], abs=1e-10 * 50)


def test_lock_step_runs_equal_single_runs():
    matrix, starts = MATRICES["dense SPD"], rng().standard_normal((100, 4))
    together = lanczos(aslinearoperator(matrix), starts, 20)
    for run, start in zip(together, starts.T, strict=True):
        (alone,) = lanczos(aslinearoperator(matrix), start[:, None], 20)
        # A block product rounds differently from a single one; 20 steps do not magnify that far.
        assert run.alpha == pytest.approx(alone.alpha, rel=1e-9)
        assert run.beta == pytest.approx(alone.beta, rel=1e-9)


def test_one_product_with_a_block_a_step_and_every_column_counted():
    counting = Counting(MATRICES["dense SPD"])
    runs = lanczos(counting.operator, rng().standard_normal((100, 3)), 10)
    assert (counting.calls, counting.columns) == (10, 30)
    assert sum(run.products for run in runs) == 30


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
