"""`sample_weight`: whole weights are repeated rows to the bit, others are so in the mean; what is refused."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import sparseflows as sf
from sparseflows.errors import DataWarning
from sparseflows.integrations import weights as weighing
from sparseflows.integrations.document import settings_of
from sparseflows.integrations.fitting import Weighted, split, untrained
from sparseflows.training.batches import Resampled, systematic

QUICK = {"hidden": (12,), "steps": 30, "retrain_steps": 15, "batch": 64, "random_state": 0, "tolerance": 1e-6}


def rows_of(n=120, dim=2):
    return np.random.default_rng(0).normal([1.0, -3.0][:dim], [2.0, 0.5][:dim], (n, dim))


def fitted(rows, weights=None, **changes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # repeated rows are told of
        return sf.SparseFlowDensity(**(QUICK | changes)).fit(rows, sample_weight=weights)


def assert_same_flow(one, other):
    for a, b in zip(one.flow_.state_dict().values(), other.flow_.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert one.history_[0]["loss"] == other.history_[0]["loss"]
    assert np.array_equal(one.standardiser_.shift, other.standardiser_.shift)
    assert np.array_equal(one.standardiser_.scale, other.standardiser_.scale)


@pytest.mark.parametrize(
    "changes",
    [{}, {"objective": "nll", "steps": 3, "retrain_steps": 2}, {"prune": "structured", "whiten": True}],
    ids=["flow matching", "likelihood", "whitened, neurons"],
)
def test_whole_weights_are_repeated_rows(changes):
    rows, weights = rows_of(), np.random.default_rng(1).integers(0, 4, 120)
    assert_same_flow(fitted(rows, weights, **changes), fitted(np.repeat(rows, weights, axis=0), **changes))


def test_a_weight_of_zero_is_a_row_that_is_not_there_and_ones_change_nothing():
    rows = rows_of()
    some = np.arange(120) % 3 > 0
    assert_same_flow(fitted(rows, some.astype(float)), fitted(rows[some]))
    assert_same_flow(fitted(rows, np.ones(120)), fitted(rows))


def test_fractions_and_whole_weights_that_are_too_many_count_as_much():
    """The density of N(0, 1) rows weighted towards N(1, 1) is that of N(1, 1), within what 2,000 rows can say."""
    rows = np.random.default_rng(0).normal(size=(2000, 1))
    tilt = np.exp(rows[:, 0] - 0.5)
    density = fitted(rows, tilt, steps=300, keep_ratio=None, hidden=(16,))
    shift, scale = density.standardiser_.shift[0], density.standardiser_.scale[0]
    assert shift == pytest.approx(np.average(rows[:, 0], weights=tilt))
    assert scale == pytest.approx(np.sqrt(np.cov(rows[:, 0], aweights=tilt, ddof=0)))
    axis = np.linspace(-6, 8, 1401)
    p = np.exp(density.score_samples(axis[:, None])) * (axis[1] - axis[0])
    # Effective rows: 2000 / E[w²] = 740, so the mean is known to 0.04, the deviation to 0.03; three of each.
    mean = float((p * axis).sum())
    assert p.sum() == pytest.approx(1, abs=0.01)
    assert mean == pytest.approx(1, abs=0.12)
    assert np.sqrt((p * (axis - mean) ** 2).sum()) == pytest.approx(1, abs=0.1)


def test_the_two_ways_agree(monkeypatch):
    rows, weights = rows_of(400), np.random.default_rng(1).integers(1, 4, 400)
    settings = {"steps": 200, "keep_ratio": None}
    literal = fitted(rows, weights, **settings)
    monkeypatch.setattr(weighing, "MOST_CELLS", 1)
    drawn = fitted(rows, weights, **settings)
    np.testing.assert_allclose(drawn.standardiser_.shift, literal.standardiser_.shift, rtol=1e-12)
    np.testing.assert_allclose(drawn.standardiser_.scale, literal.standardiser_.scale, rtol=1e-12)
    # Two trainings of the same density on 400 rows, another draw each: seeds alone move the score by 0.02.
    scores = [one.score(rows, sample_weight=weights) for one in (literal, drawn)]
    assert abs(scores[0] - scores[1]) < 0.1


@pytest.mark.parametrize("weights", [[0.5, 1.5, 0.0, 2.0], [1e-3, 7.0, 2.5, 1.0]])
def test_every_row_is_drawn_as_often_as_its_weight_says(weights):
    weights = np.array(weights)
    wanted = 10 * weights / weights.sum()
    counts = np.array([np.bincount(systematic(weights, 10, (k + 0.5) / 500), minlength=4) for k in range(500)])
    assert (counts.sum(1) == 10).all()
    assert (abs(counts - wanted) < 1).all()
    np.testing.assert_allclose(counts.mean(0), wanted, atol=1 / 500 + 1e-9)  # the offsets are a grid of 500


def test_epochs_differ_and_are_a_function_of_the_seed():
    rows = torch.arange(6.0)[:, None]
    weights = np.array([1.0, 2.0, 0.5, 0.5, 1.0, 1.0])

    def epoch(number, seed=0):
        return Resampled(rows, weights).batch(seed, "t", number, 0, 6)[:, 0].tolist()

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)
    assert set(epoch(0)) <= set(range(6))
    assert epoch(0).count(1.0) == 2


def test_the_split_is_one_of_the_weight():
    rows = rows_of(1000)
    weights = np.random.default_rng(3).exponential(size=1000)
    given = Weighted(rows, weights / weights.mean())
    train, held = split(given, 0.2, 0)
    assert held.weights.sum() == pytest.approx(200, abs=10)
    assert len(train) + len(held) == 1000


def test_whitening_is_by_weight():
    n = 20_000  # the estimate is shrunk by about 30 / n
    rows, weights = rows_of(n) @ np.array([[1.0, 0.6], [0.0, 1.0]]), np.random.default_rng(2).uniform(0.2, 3, n)
    density = sf.SparseFlowDensity(whiten=True, hidden=(4,))
    standard = (rows - np.average(rows, axis=0, weights=weights)) / np.sqrt(
        np.diag(np.cov(rows.T, aweights=weights, ddof=0))
    )
    flow = untrained(settings_of(density, 0), Weighted(standard, weights / weights.mean()), None)
    matrix = flow.whitening.double().numpy()
    covariance = np.cov(standard.T, aweights=weights, ddof=0)
    np.testing.assert_allclose(matrix @ covariance @ matrix.T, np.eye(2), atol=0.01)


def test_scores_weigh_their_rows():
    density, rows = fitted(rows_of()), rows_of(7)
    weights = np.array([0, 1, 2, 0.5, 0, 3, 1])
    assert density.score(rows, sample_weight=weights) == pytest.approx(
        np.average(density.score_samples(rows), weights=weights)
    )
    far = np.vstack([rows[:2], [[1e300, 0.0]]])
    assert np.isfinite(density.score(far, sample_weight=[1, 1, 0]))
    assert density.score(far) == -np.inf


def test_weights_go_through_a_pipeline():
    rows, weights = rows_of(), np.arange(120) % 2
    density = sf.SparseFlowDensity(**QUICK)
    pipeline = make_pipeline(StandardScaler(), density)
    pipeline.fit(rows, sparseflowdensity__sample_weight=weights)
    scaled = StandardScaler().fit_transform(rows)
    assert_same_flow(density, fitted(scaled[weights > 0]))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.ones(5), "shape (5,); X has 120 rows"),
        (np.ones((120, 1)), "shape (120, 1)"),
        ([-1.0] + [1.0] * 119, "sample_weight[0] is -1"),
        ([1.0] * 7 + [np.nan] + [1.0] * 112, "sample_weight[7] is nan"),
        ([np.inf] * 120, "is inf"),
        (np.zeros(120), "zero for every row"),
        ([1.0] + [0.0] * 119, "a single row"),
        (["a"] * 120, "no number"),
    ],
)
def test_weights_that_are_refused(weights, said):
    with pytest.raises(ValueError, match=r".") as caught:
        fitted(rows_of(), weights)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
