"""Reported numbers: equal to the flow's own in high precision, paired with the truth, and failures as values."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from support.truths import SPIRAL, gaussian_entropy, linear_log_prob, normal
from torch import nn

from sparseflows.data.splits import Splits, make_splits
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import RunError
from sparseflows.evaluation.likelihood import (
    TRAIN_ROWS,
    Evaluation,
    Likelihood,
    as_dtype,
    evaluate,
    likelihood,
    reporting_solver,
    rows_per_chunk,
    standard_error,
    subset,
)
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.specs import EvaluateSpec

PRECISE = Solver().at(1e-8)


def mlp_flow(blocks=1, gain=3.0, dim=2):
    flow = Flow([MLPField(dim, [10, 10], "tanh", "concat") for _ in range(blocks)])
    seeded_initialise(flow, 0, gain)
    return flow


def splits_of(train, validation, test, log_prob_true=None):
    standardiser = Standardiser.fit_scalar(train, "these rows")
    return Splits("mine", train, validation, test, standardiser, log_prob_true)


def gaussian_splits(n_train=40, n_validation=30, n_test=500):
    def truth(z):
        return stats.norm.logpdf(z).sum(axis=1)

    rows = [normal(n, 2, seed=k).numpy() for k, n in enumerate((n_train, n_validation, n_test))]
    return splits_of(*rows, truth)


def identity_flow(dim=2):
    return Flow(LinearField(torch.zeros(dim, dim)))


# likelihood ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 5, 6, 1000, None])
def test_likelihood_is_the_flows_own_in_float64(chunk):
    flow, rows = mlp_flow(), normal(6, 2).numpy()  # a float32 flow, as trained
    found = likelihood(flow, rows, PRECISE, chunk=chunk)
    direct = mlp_flow().double().log_prob(torch.from_numpy(rows), solver=PRECISE).detach().numpy()
    # Chunks choose steps of their own: both are off by 1e-8 a step, over some tens of steps.
    np.testing.assert_allclose(found.log_prob, direct, rtol=0, atol=5e-7)
    assert found.status is Status.DONE
    assert found.log_prob.dtype == np.float64
    assert next(flow.parameters()).dtype is torch.float32, "the flow itself keeps its precision"


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (50, [7]), (None, [7])])
def test_rows_are_solved_in_chunks(chunk, sizes, monkeypatch):
    flow, seen = mlp_flow().double(), []
    whole = flow.transform
    monkeypatch.setattr(flow, "transform", lambda part, **options: seen.append(len(part)) or whole(part, **options))
    likelihood(flow, normal(7, 2).numpy(), Solver("rk4", steps=1), chunk=chunk)
    assert seen == sizes


def test_likelihood_against_a_closed_form():
    a = torch.tensor(SPIRAL, dtype=torch.float64)
    x = normal(20, 2)
    found = likelihood(Flow(LinearField(a)), x.numpy(), PRECISE)
    np.testing.assert_allclose(found.log_prob, linear_log_prob(x, torch.linalg.matrix_exp(a)).numpy(), atol=5e-7)
    assert found.nll == -found.log_prob.mean()


def test_evaluations_are_those_of_the_hardest_chunk():
    flow = mlp_flow(gain=6.0)
    rows = np.concatenate([np.full((3, 2), 50.0), normal(3, 2).numpy()])  # far out the field is constant
    easy, hard = (likelihood(flow, part, PRECISE).nfe for part in (rows[:3], rows[3:]))
    assert easy < hard
    assert likelihood(flow, rows, PRECISE, chunk=3).nfe == hard
    assert likelihood(flow, rows[::-1].copy(), PRECISE, chunk=3).nfe == hard


def test_single_precision_is_there_for_speed():
    flow, rows = mlp_flow(), normal(50, 2).numpy()
    single = likelihood(flow, rows, Solver(), "float32")
    double = likelihood(flow, rows, Solver(), "float64")
    assert single.log_prob.dtype == np.float64
    # Seven digits and a tolerance of 1e-5, some tens of steps.
    np.testing.assert_allclose(single.log_prob, double.log_prob, atol=2e-4)
    assert not np.array_equal(single.log_prob, double.log_prob)


def test_no_graph_is_kept_and_the_mode_is_restored():
    flow = mlp_flow()
    likelihood(flow, normal(5, 2).numpy(), Solver(gradient="adjoint"))
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in flow.parameters())


@pytest.mark.parametrize("first", [True, False])
def test_a_failed_solve_is_a_value(first):
    class Trap(nn.Module):
        """Undefined where the first coordinate is above 5, and 0 elsewhere."""

        def forward(self, t, z):
            return torch.where(z[:, :1] > 5, z * float("nan"), torch.zeros_like(z))

    rows = np.zeros((6, 2))
    rows[0 if first else 5] = 6.0
    found = likelihood(Flow(Trap()), rows, Solver(), chunk=2)
    assert found.status is Status.NON_FINITE
    np.testing.assert_array_equal(np.isnan(found.log_prob), rows[:, 0] > 5)  # the row beside it is solved
    np.testing.assert_allclose(found.finite, -math.log(2 * math.pi), atol=1e-12)
    assert (found.rows_unsolved, found.rows_infinite) == (1, 0)
    assert found.nll == pytest.approx(math.log(2 * math.pi))
    assert found.nfe > 0
    with pytest.raises(RunError, match=r"the NLL of 1 of 6 rows \(the first: [16]\)"):
        found.require("the NLL")
    assert likelihood(Flow(Trap()), np.zeros((6, 2)), Solver()).status is Status.DONE
    engine = likelihood(mlp_flow(), rows, Solver(max_nfe=9))
    assert engine.status is Status.OUT_OF_STEPS
    assert 0 < engine.nfe <= 9  # it begins no step that it could not end
    capped = likelihood(mlp_flow(), rows, Solver(max_nfe=9, compiled=False))
    assert (capped.status, capped.nfe) == (Status.OUT_OF_STEPS, 9)


def test_a_fixed_grid_can_be_cheated_and_the_exact_likelihood_shows_it():
    # One Euler step of dz/dt = −z takes every point to 0 at a log-determinant of −2: far-off data look as likely as
    # near ones. For deviations of 10 that NLL is below the entropy, which no density reaches.
    flow, x = Flow(LinearField(-torch.eye(2))), 10 * normal(4000, 2).numpy()
    entropy = gaussian_entropy([10.0, 10.0])
    cheated = likelihood(flow, x, Solver("euler", steps=1))
    exact = likelihood(flow, x, PRECISE)
    np.testing.assert_allclose(cheated.log_prob, -math.log(2 * math.pi) - 2, rtol=0, atol=1e-12)
    expected = -math.log(2 * math.pi) - 2 - 0.5 * math.exp(-2) * (x**2).sum(axis=1)  # e^{tA} in closed form
    np.testing.assert_allclose(exact.log_prob, expected, rtol=0, atol=1e-5)  # 1e-8 a step, values of size 100
    assert cheated.nll < entropy - 3
    assert exact.nll > entropy + 3
    fine = likelihood(flow, x, Solver("rk4", steps=50))  # the fault is the grid's, not the method's
    assert fine.nll == pytest.approx(exact.nll, abs=1e-5)  # (1/50)⁴ = 1.6e-7, values of size 100


# Standard errors, chunks, subsets ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 50])
def test_standard_error(n):
    values = normal(n, seed=4).numpy()
    mean = sum(values) / n
    expected = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1)) / math.sqrt(n)
    assert standard_error(values) == pytest.approx(expected, rel=1e-12)
    assert standard_error(values) == pytest.approx(stats.sem(values), rel=1e-12)
    assert Likelihood(values, 1, Status.DONE).se == standard_error(values)


def test_a_single_row_has_no_standard_error():
    assert math.isnan(standard_error(np.array([1.0])))
    assert math.isnan(Likelihood(np.array([1.0]), 1, Status.DONE).se)


def test_chunks_shrink_with_width_and_dimension():
    narrow, wide = Flow(MLPField(2, [64])), Flow([MLPField(2, [64]), MLPField(2, [8, 512])])
    assert rows_per_chunk(wide, 2) == 2**18 // (3 * 512)
    assert rows_per_chunk(narrow, 2) == 2**18 // (3 * 64)
    assert rows_per_chunk(narrow, 60) == 2**18 // (61 * 64)
    assert rows_per_chunk(Flow(MLPField(63, [8192])), 63) == 64
    assert rows_per_chunk(identity_flow(), 2) == 2**18 // (3 * 64)
    assert rows_per_chunk(Flow(MLPField(2, [])), 2) > 64


def test_as_dtype_copies_only_where_it_must():
    flow = mlp_flow()
    assert as_dtype(flow, torch.float32) is flow
    double = as_dtype(flow, torch.float64)
    assert all(p.dtype is torch.float64 for p in double.parameters())
    assert all(p.dtype is torch.float32 for p in flow.parameters())


def test_subsets_are_seeded_and_keep_their_order():
    rows = np.arange(100.0)[:, None]
    some = subset(rows, 20, 3, "test")
    assert some.shape == (20, 1)
    assert len(np.unique(some)) == 20
    assert (np.diff(some[:, 0]) > 0).all()
    assert np.array_equal(some, subset(rows, 20, 3, "test"))
    assert not np.array_equal(some, subset(rows, 20, 4, "test"))
    assert not np.array_equal(some, subset(rows, 20, 3, "train"))
    for at_most in (None, 100, 500):
        assert subset(rows, at_most, 3, "test") is rows


def test_the_reporting_solver():
    solver = reporting_solver(EvaluateSpec(rtol=1e-6, atol=1e-7, max_nfe=123))
    assert (solver.method, solver.rtol, solver.atol, solver.max_nfe) == ("dopri5", 1e-6, 1e-7, 123)
    assert solver.norm == "rows", "every reported row is held to the tolerance"
    default = reporting_solver(EvaluateSpec())
    assert max(default.rtol, default.atol) <= 1e-5


# evaluate ------------------------------------------------------------------------------------------------


def test_a_perfect_flow_has_no_kl_gap():
    splits = gaussian_splits()
    found = evaluate(identity_flow(), splits, EvaluateSpec(), 0)
    assert isinstance(found, Evaluation)
    # The flow and SciPy's density agree to rounding, row by row: a paired difference has no sampling error.
    assert found.kl_gap == pytest.approx(0, abs=1e-13)
    assert found.kl_gap_se == pytest.approx(0, abs=1e-13)
    for name, rows in (("train", splits.train), ("val", splits.validation), ("test", splits.test)):
        expected = -stats.norm.logpdf(rows).sum(axis=1).mean()
        assert getattr(found, f"nll_{name}") == pytest.approx(expected, abs=1e-12)
    assert found.nll_test_se == pytest.approx(stats.sem(stats.norm.logpdf(splits.test).sum(axis=1)), rel=1e-9)
    assert found.n_test == 500


def test_the_kl_gap_of_a_scaled_gaussian():
    # z = e^a x on standard normal data: log p_true − log p_flow = ½(e^{2a} − 1)|x|² − 2a, of mean e^{2a} − 1 − 2a.
    a, splits = 0.3, gaussian_splits(n_test=4000)
    found = evaluate(Flow(LinearField(a * torch.eye(2))), splits, EvaluateSpec(rtol=1e-8, atol=1e-8), 0)
    gaps = 0.5 * (math.exp(2 * a) - 1) * (splits.test**2).sum(axis=1) - 2 * a
    assert found.kl_gap == pytest.approx(gaps.mean(), abs=1e-6)  # 1e-8 a step; `a` itself is a float32
    assert found.kl_gap_se == pytest.approx(stats.sem(gaps), rel=1e-5)
    assert found.kl_gap == pytest.approx(math.exp(2 * a) - 1 - 2 * a, abs=4 * found.kl_gap_se)
    assert found.kl_gap_se < found.nll_test_se


def test_without_a_true_density_there_is_no_kl_gap():
    found = evaluate(identity_flow(), replace(gaussian_splits(), log_prob_true=None), EvaluateSpec(), 0)
    assert found.kl_gap is found.kl_gap_se is None
    assert math.isfinite(found.nll_test)


def test_at_most_2048_training_rows_are_used():
    splits = gaussian_splits(n_train=2 * TRAIN_ROWS)
    assert TRAIN_ROWS == 2048
    found = evaluate(identity_flow(), splits, EvaluateSpec(), 7)
    chosen = subset(splits.train, 2048, 7, "train")
    assert len(chosen) == 2048
    assert found.nll_train == pytest.approx(-stats.norm.logpdf(chosen).sum(axis=1).mean(), abs=1e-12)
    assert found.n_test == 500, "the test rows are all there"


def test_max_rows_caps_every_part():
    splits = gaussian_splits()
    capped = EvaluateSpec(max_rows=20)
    found = evaluate(identity_flow(), splits, capped, 5)
    assert found.n_test == 20
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        chosen = subset(rows, 20, 5, name)
        expected = -stats.norm.logpdf(chosen).sum(axis=1).mean()
        assert getattr(found, "nll_val" if name == "validation" else "nll_test") == pytest.approx(expected, abs=1e-12)
    assert found.kl_gap == pytest.approx(0, abs=1e-13), "flow and truth are asked about the same rows"
    assert evaluate(identity_flow(), splits, capped, 5) == found
    assert evaluate(identity_flow(), splits, capped, 6) != found
    chosen = subset(splits.train, 20, 5, "train")
    assert found.nll_train == pytest.approx(-stats.norm.logpdf(chosen).sum(axis=1).mean(), abs=1e-12)
    more = evaluate(identity_flow(), splits, EvaluateSpec(max_rows=5000), 5)
    assert more == evaluate(identity_flow(), splits, EvaluateSpec(), 5)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_rows_without_a_number_are_counted_and_too_many_are_a_failure(part):
    splits = gaussian_splits()
    rows = getattr(splits, part).copy()
    rows[3, 1] = np.nan
    found = evaluate(identity_flow(), replace(splits, **{part: rows}), EvaluateSpec(), 0)
    assert (found.rows_unsolved, found.rows_infinite) == (int(part == "test"), 0)
    rest = np.delete(rows, 3, axis=0)
    assert evaluate(identity_flow(), replace(splits, **{part: rest}), EvaluateSpec(), 0).nll_test == found.nll_test
    rows[::2] = np.nan
    rows[1] = np.nan
    assert evaluate(identity_flow(), replace(splits, **{part: rows}), EvaluateSpec(), 0) is Status.NON_FINITE
    assert evaluate(mlp_flow(), splits, EvaluateSpec(max_nfe=10), 0) is Status.OUT_OF_STEPS


def test_toy_splits_are_evaluated_in_standardised_coordinates():
    # The flow that a single Gaussian fitted to the training rows would be: its NLL is known from moments.
    splits = make_splits("gaussians", n_train=600)
    found = evaluate(identity_flow(), splits, EvaluateSpec(), 0)
    expected = math.log(2 * math.pi) + 0.5 * (splits.test**2).sum(axis=1).mean()
    assert found.nll_test == pytest.approx(expected, abs=1e-12)
    entropy = -splits.log_prob_true(splits.test).mean()
    assert found.kl_gap == pytest.approx(expected - entropy, abs=1e-12)
    assert found.kl_gap > 0.3
