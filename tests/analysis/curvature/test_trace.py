from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.sparse.linalg import aslinearoperator
from support.matrices import MATRICES, SIZE, Counting, hessian_like, with_spectrum

from analysis.curvature.spectrum import estimated
from analysis.curvature.trace import TraceEstimate, hutchinson
from sparseflows.errors import InputError, RunError

NAMES = list(MATRICES)
SEEDS = 500
LAYERS = {"first": slice(0, 10), "middle": slice(10, 70), "last": slice(70, 100)}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trace_of(operator, seed: int = 0, blocks=None, steps: int = 5, probes: int = 10) -> TraceEstimate:
    """The trace as the Hessian report has it, with a Krylov space of 4 starts."""
    return estimated(operator, rng(seed), blocks=blocks, steps=steps, probes=probes).trace


def norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix))


def covered(interval: tuple[float, float], truth: float, matrix: np.ndarray) -> bool:
    # Rounding is no part of the s.e.: where the sketch is exact, the value is still only P eps |A| right.
    slack = 1e-12 * norm(matrix)
    return interval[0] - slack <= truth <= interval[1] + slack


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_covers_and_so_do_those_of_the_layers(name):
    matrix = MATRICES[name]
    operator = aslinearoperator(matrix)
    estimates = [trace_of(operator, seed, LAYERS) for seed in range(SEEDS)]
    truths = {layer: float(np.trace(matrix[part, part])) for layer, part in LAYERS.items()}
    total = float(np.trace(matrix))
    # 99 % meant, 500 draws: the share has a s.e. of 0.45 %, so 97.5 % lies 3.4 below. Above is too cautious at worst.
    assert np.mean([covered(e.interval(), total, matrix) for e in estimates]) >= 0.975
    for layer, truth in truths.items():
        assert np.mean([covered(e.interval(block=layer), truth, matrix) for e in estimates]) >= 0.975
    # Unbiased: the mean of 500 is within 4 of its own standard errors (6 in 100,000), or at rounding.
    for values, truth in [
        ([e.value for e in estimates], total),
        *(([e.blocks[layer][0] for e in estimates], truth) for layer, truth in truths.items()),
    ]:
        assert abs(np.mean(values) - truth) <= 4 * np.std(values) / np.sqrt(SEEDS) + 1e-12 * norm(matrix)


@pytest.mark.parametrize("name", ["dense SPD", "indefinite", "one outlier", "power law", "Hessian-like"])
def test_the_standard_error_is_as_large_as_the_error(name):
    matrix = MATRICES[name]
    estimates = [trace_of(aslinearoperator(matrix), seed, LAYERS) for seed in range(SEEDS)]

    def root_mean_square(values: list[float]) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    error = root_mean_square([e.value - np.trace(matrix) for e in estimates])
    # A root mean square of 500 draws is known to 3 % for Gaussian ones, to about 6 % for skewed ones: 3 of those.
    assert root_mean_square([e.se for e in estimates]) == pytest.approx(error, rel=0.18)
    for layer, part in LAYERS.items():
        error = root_mean_square([e.blocks[layer][0] - np.trace(matrix[part, part]) for e in estimates])
        # An upper bound here, by sqrt(2) at most.
        assert 0.85 < root_mean_square([e.blocks[layer][1] for e in estimates]) / error < 1.18 * np.sqrt(2)


@pytest.mark.parametrize("name", ["low rank PSD", "low rank indefinite"])
@pytest.mark.parametrize("seed", range(5))
def test_exactly_low_rank_is_exact_and_cheaper(name, seed):
    matrix = MATRICES[name]
    counting = Counting(matrix)
    estimate = trace_of(counting.operator, seed, LAYERS, steps=15)
    assert abs(estimate.value - np.trace(matrix)) <= 1e-8 * norm(matrix)
    assert estimate.se <= 1e-8 * norm(matrix)
    for layer, part in LAYERS.items():
        assert abs(estimate.blocks[layer][0] - np.trace(matrix[part, part])) <= 1e-8 * norm(matrix)
    assert estimate.products == counting.columns < 4 * 15 + 10


def test_a_matrix_that_is_not_captured_has_an_error():
    for name in set(NAMES) - {"low rank PSD", "low rank indefinite", "identity multiple"}:
        matrix = MATRICES[name]
        for seed in range(5):
            # Even a diagonal matrix, for which plain Rademacher probes happen to give 0.
            if name not in ("just missed", "clustered"):  # a handful of distinct values is caught by 5 steps
                assert trace_of(aslinearoperator(matrix), seed).se > 1e-6 * norm(matrix), name


def test_a_multiple_of_the_identity_needs_no_luck():
    estimate = trace_of(aslinearoperator(MATRICES["identity multiple"]))
    assert estimate.value == pytest.approx(250.0, rel=1e-12)
    assert estimate.se < 1e-10


def test_layers_add_up_to_the_total():
    estimate = trace_of(aslinearoperator(MATRICES["Hessian-like"]), 0, LAYERS)
    assert list(estimate.blocks) == list(LAYERS)
    assert sum(value for value, _ in estimate.blocks.values()) == pytest.approx(estimate.value, rel=1e-12)
    whole = trace_of(aslinearoperator(MATRICES["Hessian-like"]), 0, {"all": slice(None)})
    assert whole.blocks["all"] == (whole.value, whole.se)
    assert (whole.value, whole.se) == (estimate.value, estimate.se)


@pytest.mark.parametrize("size", [1, 2, 3, 60])
def test_as_many_products_as_parameters_are_exact(size):
    matrix = with_spectrum(np.linspace(-1, 2, size), rng())
    counting = Counting(matrix)
    estimate = trace_of(counting.operator, 0, {"half": slice(0, size // 2)}, steps=20)
    assert estimate.value == pytest.approx(np.trace(matrix), rel=1e-12)
    assert (estimate.se, estimate.df, estimate.products, counting.columns) == (0.0, 0, size, size)
    half = float(np.trace(matrix[: size // 2, : size // 2]))
    assert estimate.blocks["half"] == (pytest.approx(half, abs=1e-12), 0.0)
    assert estimate.interval() == (estimate.value, estimate.value)


def test_products_are_counted():
    counting = Counting(MATRICES["dense SPD"])
    estimate = trace_of(counting.operator, steps=6, probes=12)
    assert (estimate.products, counting.columns, counting.calls) == (36, 36, 7)
    assert estimate.df == 11
    counting = Counting(MATRICES["dense SPD"])
    assert hutchinson(counting.operator, 31, rng()).products == counting.columns == 31
    assert counting.calls == 1


def test_it_beats_hutchinson_on_a_hessian():
    matrix = with_spectrum(hessian_like(150, rng()), rng())
    operator, truth = aslinearoperator(matrix), np.trace(matrix)
    estimates = [(trace_of(operator, s, steps=11, probes=16), hutchinson(operator, 60, rng(s))) for s in range(100)]
    sharp, plain = (np.sqrt(np.mean([(pair[i].value - truth) ** 2 for pair in estimates])) for i in (0, 1))
    # The 8 outliers, which make up Hutchinson's variance, are all in the space of 44.
    assert sharp * 100 < plain
    assert np.mean([pair[0].se for pair in estimates]) * 100 < np.mean([pair[1].se for pair in estimates])


def test_hutchinson_has_the_known_variance():
    # Rademacher: Var = 2 Σ_{i≠j} a_ij², so none at all for a diagonal matrix.
    diagonal = hutchinson(aslinearoperator(MATRICES["repeated extremes"]), 10, rng())
    assert diagonal.value == pytest.approx(np.trace(MATRICES["repeated extremes"]), abs=1e-12 * SIZE)
    matrix = MATRICES["indefinite"]
    estimate = hutchinson(aslinearoperator(matrix), 5000, rng())
    variance = 2 * (norm(matrix) ** 2 - np.sum(np.diag(matrix) ** 2))
    # The sample variance of 5,000 nearly Gaussian values has a relative s.e. of 2 %, its root 1 %; 5 of those.
    assert estimate.se == pytest.approx(np.sqrt(variance / 5000), rel=0.05)
    assert abs(estimate.value - np.trace(matrix)) < 4 * estimate.se


def test_the_interval_is_that_of_student():
    estimate = TraceEstimate(10.0, 2.0, 9, 30, {"a": (1.0, 0.5)})
    assert estimate.interval() == pytest.approx(stats.t.interval(0.99, 9, loc=10, scale=2))
    assert estimate.interval(0.9, "a") == pytest.approx(stats.t.interval(0.9, 9, loc=1, scale=0.5))


def test_what_is_refused():
    operator = aslinearoperator(MATRICES["dense SPD"])
    with pytest.raises(InputError, match="at least 2 probes, not 1"):
        trace_of(operator, probes=1)
    with pytest.raises(InputError, match="at least 2 products"):
        hutchinson(operator, 1, rng())
    for broken_after in (0, 12, 25):
        counting = Counting(MATRICES["dense SPD"], broken_after)
        with pytest.raises(RunError, match="the Hessian product is not finite"):
            trace_of(counting.operator)
    with pytest.raises(RunError, match="the Hessian product is not finite"):
        hutchinson(Counting(MATRICES["dense SPD"], 0).operator, 5, rng())
