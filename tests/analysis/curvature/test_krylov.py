"""Block Lanczos against whole spectra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from analysis.curvature.krylov import block_lanczos
from analysis.curvature.lanczos import Products
from analysis.curvature.trace import trace_beyond
from sparseflows.errors import InputError, RunError

SIZE = 300


def spectrum(size=SIZE):
    """As of a Hessian: a bulk about 0, a few large ones, some negative."""
    bulk = np.random.default_rng(3).standard_normal(size) * 0.01
    bulk[:8], bulk[-5:] = [30.0, 12.0, 9.0, 5.0, 3.0, 2.0, 1.5, 1.0], [-0.9, -0.6, -0.3, -0.2, -0.1]
    return bulk


def matrix_of(values, seed=0):
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return (basis * values) @ basis.T


def starts(size, count, seed=1):
    return np.random.default_rng(seed).standard_normal((size, count))


def test_extremes_and_residuals() -> None:
    matrix = matrix_of(spectrum())
    multiply = Products(aslinearoperator(matrix))
    found = block_lanczos(multiply, starts(SIZE, 4), 12)
    exact, vectors = np.linalg.eigh(matrix)
    assert multiply.count == found.products == 48
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(48), atol=1e-13)
    np.testing.assert_allclose(found.values[-6:], exact[-6:], rtol=1e-9)
    assert found.values[0] == pytest.approx(exact[0], rel=1e-9)
    nearest = np.abs(found.values[:, None] - exact).min(axis=1)
    assert (nearest <= found.residuals + 1e-12).all()
    top = found.vectors(slice(-1, None))[:, 0]
    assert abs(top @ vectors[:, -1]) == pytest.approx(1, abs=1e-9)


def test_the_weights_integrate_polynomials_as_the_start_block_sees_them() -> None:
    """n steps of a block are exact to degree 2n - 1."""
    matrix = matrix_of(spectrum(40) / 10)
    found = block_lanczos(Products(aslinearoperator(matrix)), starts(40, 3), 4)
    first = found.basis[:, :3]
    for degree in range(8):
        seen = np.trace(first.T @ np.linalg.matrix_power(matrix, degree) @ first) / 3
        assert float(found.weights @ found.values**degree) == pytest.approx(seen, rel=1e-9, abs=1e-12)
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("count", "steps", "products"), [(4, 30, 20), (3, 5, 15), (1, 40, 20), (20, 1, 20)])
def test_a_small_matrix_is_known_whole(count, steps, products) -> None:
    matrix = matrix_of(np.linspace(-1, 4, 20))
    found = block_lanczos(Products(aslinearoperator(matrix)), starts(20, count), steps)
    assert found.products == products
    if products == 20:
        np.testing.assert_allclose(found.values, np.linspace(-1, 4, 20), atol=1e-12)
        trace, norm = trace_beyond(Products(aslinearoperator(matrix)), found, 0, np.random.default_rng(0))
        assert (trace.value, trace.se) == (pytest.approx(30), 0.0)
        assert norm == pytest.approx(np.linalg.norm(matrix))


def test_a_space_that_is_exhausted_ends() -> None:
    values = np.zeros(60)
    values[:3] = [5.0, 5.0, -2.0]
    multiply = Products(aslinearoperator(matrix_of(values)))
    found = block_lanczos(multiply, starts(60, 4), 30)
    assert found.products < 12
    np.testing.assert_allclose(found.values[[0, -2, -1]], [-2, 5, 5], atol=1e-12)
    trace, norm = trace_beyond(multiply, found, 4, np.random.default_rng(0))
    assert trace.value == pytest.approx(8, abs=1e-9)
    assert norm == pytest.approx(np.sqrt(54), abs=1e-9)


def test_products_of_single_precision() -> None:
    """Extremes to the error of a product, and no Ritz value that is none: one orthonormal basis keeps them out."""
    matrix = matrix_of(spectrum())
    coarse = LinearOperator(
        matrix.shape, dtype=np.float64, matvec=lambda x: matrix @ x,
        matmat=lambda x: (matrix.astype(np.float32) @ x.astype(np.float32)).astype(np.float64),
    )  # fmt: skip
    found = block_lanczos(Products(coarse), starts(SIZE, 4), 30)
    exact = np.linalg.eigvalsh(matrix)
    assert abs(found.values[-1] - exact[-1]) < 1e-5 * exact[-1]
    assert abs(found.values[0] - exact[0]) < 1e-5 * exact[-1]


@pytest.mark.parametrize("products", [2, 16])
def test_the_trace_and_the_norm_are_unbiased_and_their_errors_are_right(products) -> None:
    values = spectrum()
    matrix, draws = matrix_of(values), 200
    layers = {"a": slice(0, 100), "b": slice(100, SIZE)}
    found = []
    for seed in range(draws):
        multiply = Products(aslinearoperator(matrix))
        space = block_lanczos(multiply, starts(SIZE, 2, seed), 5)
        found.append(trace_beyond(multiply, space, products, np.random.default_rng(1000 + seed), layers))
        assert multiply.count == 10 + products
    traces = np.array([one.value for one, _ in found])
    errors = np.array([one.se for one, _ in found])
    standard = traces.std(ddof=1) / np.sqrt(draws)
    assert abs(traces.mean() - values.sum()) < 4 * standard
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(traces.std(ddof=1), rel=0.25)  # of 200 draws
    norms = np.array([norm for _, norm in found])
    assert norms.mean() == pytest.approx(np.linalg.norm(matrix), rel=1e-3)
    for name, part in layers.items():
        parts = np.array([one.blocks[name][0] for one, _ in found])
        assert abs(parts.mean() - np.trace(matrix[part, part])) < 4 * parts.std(ddof=1) / np.sqrt(draws) + 1e-12
    assert sum(one for one, _ in found[0][0].blocks.values()) == pytest.approx(traces[0])


@pytest.mark.parametrize(
    ("start", "steps", "message"),
    [(np.ones((5, 2)), 3, "depend"), (np.zeros((5, 1)), 3, "zero"), (np.eye(5, 2), 0, "at least 1 step")],
)
def test_what_is_refused(start, steps, message) -> None:
    with pytest.raises(InputError, match=message):
        block_lanczos(Products(aslinearoperator(np.eye(5))), start, steps)


def test_a_product_that_is_not_finite_ends_it() -> None:
    matrix = np.eye(5)
    matrix[2, 2] = np.nan
    with pytest.raises(RunError, match="not finite"):
        block_lanczos(Products(aslinearoperator(matrix)), starts(5, 2), 2)
