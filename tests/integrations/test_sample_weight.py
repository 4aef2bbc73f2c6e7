"""A weight w is w copies of a row: in the fit, in what chooses among its networks, and in the score."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from sparseflows import SparseFlowDensity
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.whitening import whitening_matrix
from sparseflows.errors import DataWarning, InputError
from sparseflows.integrations.document import settings_of
from sparseflows.integrations.fitting import Fit, Part, split, untrained, weighted_nll
from sparseflows.integrations.weights import counted_rows

MEAN, SCALE = np.array([1.0, -5.0]), np.array([0.5, 20.0])
ROWS = 120


def tiny(**changes):
    settings = {"hidden": (6,), "steps": 6, "batch": 32, "random_state": 0, "validation_fraction": 0.2}
    return SparseFlowDensity(**(settings | changes))


def gaussian(rows=ROWS, seed=0):
    return np.random.default_rng(seed).normal(MEAN, SCALE, size=(rows, 2))


def whole(rows=ROWS):
    return np.random.default_rng(1).integers(0, 4, size=rows)


def fractional(rows=ROWS):
    return np.random.default_rng(2).gamma(1.0, size=rows)


def equal(one, other):
    """Whether two fits are the same to the bit: every weight of the network, the standardiser, the history."""
    pairs = zip(one.flow_.state_dict().items(), other.flow_.state_dict().items(), strict=True)
    return (
        all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
        and one.standardiser_.to_dict() == other.standardiser_.to_dict()
        and one.history_ == other.history_
        and one.params_ == other.params_
    )


# --- whole numbers


@pytest.mark.filterwarnings("ignore::sparseflows.errors.DataWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"objective": "nll"},
        {"prune": "snip", "whiten": True},
        {"prune": "structured", "objective": "nll", "validation_fraction": 0.0},
        {"steps": 1, "batch": 10_000, "objective": "nll", "keep_ratio": None},  # one step on all rows
    ],
)
def test_whole_weights_are_copies_to_the_bit(settings):
    rows, weights = gaussian(), whole()
    weighted = tiny(**settings).fit(rows, sample_weight=weights)
    assert equal(weighted, tiny(**settings).fit(np.repeat(rows, weights, axis=0)))
    assert not equal(weighted, tiny(**settings).fit(rows))


def test_weights_of_0_and_1_leave_rows_out():
    rows, there = gaussian(), whole() > 0
    assert equal(tiny().fit(rows, sample_weight=there), tiny().fit(rows[there]))
    assert equal(tiny().fit(rows, sample_weight=np.ones(ROWS)), tiny().fit(rows))
    kept = fractional()
    assert equal(tiny().fit(rows, sample_weight=kept * there), tiny().fit(rows[there], sample_weight=kept[there]))


def test_a_single_number_is_the_weight_of_every_row():
    with pytest.warns(DataWarning, match="copies"):
        twice = tiny().fit(np.repeat(gaussian(), 2, axis=0))
    assert equal(tiny().fit(gaussian(), sample_weight=2), twice)


def test_copies_that_were_asked_for_are_not_told_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        tiny().fit(gaussian(), sample_weight=3 * whole())


def test_very_large_weights_are_not_counted_out():
    tracemalloc.start()
    rows, weights = gaussian(), np.full(ROWS, 1e6)
    weights[::2] = 3e6
    density = tiny(keep_ratio=None).fit(rows, sample_weight=weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26  # copies would be 240,000,000 rows
    assert equal(density, tiny(keep_ratio=None).fit(rows, sample_weight=weights / 4e6))  # only ratios count then
    assert equal(tiny().fit(rows, sample_weight=np.full(ROWS, 10**9)), tiny().fit(rows))


def test_where_counting_out_ends():
    assert len(counted_rows([2**22, 2**23], 2, 1).places) == 3 * 2**22  # numbers in one column, below 2²⁴
    assert counted_rows([2**22, 2**23], 2, 2).weights.tolist() == [2 / 3, 4 / 3]  # twice as many in two
    many = np.full(5, 4)
    assert len(counted_rows(many, 5, 2**22).places) == 20  # four times those of X, however many
    assert counted_rows(many, 5, 2**22).weights is None
    many[0] = 5
    assert counted_rows(many, 5, 2**22).places.tolist() == [0, 1, 2, 3, 4]
    for huge in (1e300, 1e19, 1e308):
        assert counted_rows([huge, huge, 0], 3, 1)[1] is None
        assert counted_rows([huge, huge, huge / 2], 3, 1).weights.tolist() == [1.2, 1.2, 0.6]
    assert counted_rows([1e-320, 1e300, 1e300], 3, 1).places.tolist() == [1, 2]


# --- other numbers


def test_only_the_ratios_of_other_weights_count():
    weights = fractional()
    one = tiny().fit(gaussian(), sample_weight=weights)
    assert equal(one, tiny().fit(gaussian(), sample_weight=weights / 1024))
    assert not equal(one, tiny().fit(gaussian(), sample_weight=weights[::-1]))
    assert equal(tiny().fit(gaussian(), sample_weight=0.3), tiny().fit(gaussian()))


@pytest.mark.parametrize("objective", ["flow_matching", "nll"])
def test_importance_weights_recover_the_density_that_they_lead_to(objective):
    mean, scale, steps = np.array([0.8, -0.5]), np.array([0.7, 0.8]), {"flow_matching": 400, "nll": 150}
    rows = np.random.default_rng(3).normal(size=(4000, 2))

    def log_density(x):
        return -0.5 * (((x - mean) / scale) ** 2).sum(1) - np.log(2 * np.pi * scale.prod())

    weights = np.exp(log_density(rows) + 0.5 * (rows**2).sum(1))
    density = SparseFlowDensity(
        hidden=(16,), objective=objective, steps=steps[objective], keep_ratio=None, tolerance=1e-6, random_state=0
    ).fit(rows, sample_weight=weights)
    drawn = (density.sample(4000, random_state=1) - mean) / scale
    # The weights are worth (Σw)²/Σw² = 1,753 equal rows, so the mean has an error of 0.024 and the deviation one of
    # 0.017 from the rows, and 0.016 and 0.011 from the samples; a training this short adds its own (four seeds: 0.07
    # and 0.03 at most, all together). Without weights the means are off by 1.1 and 0.6, the deviations by 0.4 and 0.25.
    assert np.abs(drawn.mean(0)).max() < 0.12
    assert np.abs(drawn.std(0) - 1).max() < 0.1
    fresh = np.random.default_rng(4).normal(mean, scale, size=(1000, 2))
    assert -0.03 < (log_density(fresh) - density.score_samples(fresh)).mean() < 0.06  # nats


def test_the_standardiser_is_weighted():
    rows, weights = gaussian(), fractional()
    density = tiny(keep_ratio=None).fit(rows, sample_weight=weights)
    mean = np.average(rows, axis=0, weights=weights)
    np.testing.assert_allclose(density.standardiser_.shift, mean, rtol=1e-12)
    deviation = np.sqrt(np.diag(np.cov(rows.T, aweights=weights, ddof=0)))
    np.testing.assert_allclose(density.standardiser_.scale, deviation, rtol=1e-12)
    copies = whole()
    repeated = Standardiser.fit_columns(np.repeat(rows, copies, axis=0))
    found = Standardiser.fit_columns(rows[copies > 0], weights=copies[copies > 0])
    np.testing.assert_allclose(found.shift, repeated.shift, rtol=1e-12)
    np.testing.assert_allclose(found.scale, repeated.scale, rtol=1e-12)


def test_the_whitening_is_weighted():
    rows = np.random.default_rng(0).normal(size=(5000, 2)) @ np.array([[1.0, 0.8], [0.0, 0.4]])
    weights = np.exp(rows[:, 0])
    weights /= weights.mean()
    found = np.linalg.matrix_power(whitening_matrix(rows, weights).numpy(), -2)
    covariance = np.cov(rows.T, aweights=weights, ddof=0)
    shrinkage = 1 - found[0, 1] / covariance[0, 1]  # towards the mean variance
    wanted = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 2 * np.eye(2)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    plain = whitening_matrix(rows).numpy()
    unweighted = 1 - np.linalg.matrix_power(plain, -2)[0, 1] / np.cov(rows.T, ddof=0)[0, 1]
    assert 0 < unweighted < shrinkage < 0.03
    np.testing.assert_allclose(whitening_matrix(rows, np.ones(5000)).numpy(), plain, rtol=1e-10)


# --- what chooses: the split, the validation NLL, the sample of the criteria


def fit_of(part, chosen_by, seed=0):
    return Fit(settings_of(tiny(), seed), part, chosen_by, lambda *_: None)


def test_the_validation_nll_is_weighted():
    rows, weights = gaussian(60) / SCALE, whole(60) + 1.0
    weights[:5] = 20.0
    fit = fit_of(Part(rows), Part(rows, weights))
    flow = untrained(fit.spec, Part(rows), None)
    copies = fit_of(Part(rows), Part(np.repeat(rows, weights.astype(int), axis=0)))
    assert fit._validation_nll(flow) == pytest.approx(copies._validation_nll(flow), abs=1e-3)  # solved to 1e-4
    plain = fit_of(Part(rows), Part(rows))._validation_nll(flow)
    assert abs(fit._validation_nll(flow) - plain) > 0.02


def test_rows_without_a_log_density_are_left_out_of_the_weighted_nll():
    log_prob = np.array([-1.0, np.nan, -np.inf, -3.0])
    assert weighted_nll(log_prob, np.array([3.0, 9.0, 9.0, 1.0])) == pytest.approx(1.5)
    assert np.isnan(weighted_nll(log_prob[1:3], np.ones(2)))


def test_copies_stay_together_whatever_they_weigh():
    rows, weights = np.repeat(gaussian(100), 2, axis=0), fractional(200)
    train, chosen_by = split(Part(rows, weights), 0.2, 0)
    assert not {tuple(row) for row in train.rows} & {tuple(row) for row in chosen_by.rows}
    pairs = {(*row, weight) for row, weight in zip(rows, weights, strict=True)}
    for part in (train, chosen_by):
        assert {(*row, weight) for row, weight in zip(part.rows, part.weights, strict=True)} <= pairs
    shares = [split(Part(rows, weights), 0.2, seed)[1].weights.sum() / weights.sum() for seed in range(200)]
    assert np.mean(shares) == pytest.approx(0.2, abs=5 * np.std(shares) / np.sqrt(200))


def test_criteria_see_rows_as_often_as_they_weigh():
    rows = np.arange(1000.0)[:, None] * np.ones((1, 2))
    weights = np.where(np.arange(1000) < 500, 1.6, 0.4)
    seen = [fit_of(Part(rows, weights), None, seed)._sample("snip").rows[:, 0].numpy() for seed in range(50)]
    shares = [(one < 500).mean() for one in seen]
    assert np.mean(shares) == pytest.approx(0.8, abs=5 * np.std(shares) / np.sqrt(50))
    assert np.std(shares) < 0.06
    assert fit_of(Part(rows, weights), None)._sample("unstructured") is None


# --- the score


def test_the_score_is_a_weighted_mean():
    density, rows, weights = tiny(keep_ratio=None).fit(gaussian()), gaussian(50, seed=1), fractional(50)
    found = density.score_samples(rows)
    assert density.score(rows, sample_weight=weights) == pytest.approx(np.average(found, weights=weights), rel=1e-9)
    largest = weights / weights.max() * 1e308
    assert density.score(rows, sample_weight=largest) == pytest.approx(density.score(rows, None, weights), rel=1e-12)
    copies = whole(50)
    assert density.score(rows, None, copies) == pytest.approx(density.score(rows.repeat(copies, axis=0)), rel=1e-7)
    far = np.vstack([rows, [[1e200, 0.0]]])
    assert density.score(far) == -np.inf
    assert density.score(far, sample_weight=[1] * 50 + [0]) == density.score(rows)


REFUSED = [
    (-np.ones(ROWS), r"sample_weight: -1 in row 1; a weight is a finite number, 0 or more"),
    (np.where(np.arange(ROWS) == 6, np.nan, 1.0), r"sample_weight: nan in row 7"),
    (np.where(np.arange(ROWS) == 2, np.inf, 1.0), r"sample_weight: inf in row 3"),
    (np.ones(ROWS - 1), r"sample_weight: has shape \(119,\), but X has 120 rows; give one weight a row, \(120,\)"),
    (np.ones((ROWS, 1)), r"sample_weight: has shape \(120, 1\)"),
    (np.zeros(ROWS), r"sample_weight: all weights are zero"),
    (["heavy"] * ROWS, "sample_weight: holds what is no real number"),
    ([None] + [1.0] * (ROWS - 1), "sample_weight: "),
    ([1.0, [2.0]] * (ROWS // 2), "sample_weight: holds what is no real number"),
    (np.ones(ROWS) * 1j, "sample_weight: holds what is no real number"),
    (torch.ones(ROWS, requires_grad=True), "sample_weight: holds what is no real number"),
]


@pytest.mark.parametrize(("weights", "message"), REFUSED)
def test_weights_that_are_refused(weights, message):
    fitted = tiny(steps=1, keep_ratio=None).fit(gaussian())
    for call in (tiny().fit, fitted.score):
        with pytest.raises(InputError, match=message) as caught:
            call(gaussian(), sample_weight=weights)
        assert "\n" not in str(caught.value)


def test_a_single_row_that_is_left_is_refused():
    weights = np.zeros(ROWS)
    weights[4] = 7
    with pytest.raises(InputError, match="sample_weight: 1 of 120 rows has a weight above 0; at least 2 are needed"):
        tiny().fit(gaussian(), sample_weight=weights)
    rows = gaussian()
    rows[:60, 1] = 3.0
    with pytest.raises(InputError, match=r"X: constant in every row: column 2 \(always 3\)"):
        tiny().fit(rows, sample_weight=np.arange(ROWS) < 60)  # in every row that is there


def test_weights_come_as_anything_and_stay_as_they_are():
    rows, weights = gaussian(), fractional()
    kept = weights.copy()
    one = tiny(keep_ratio=None).fit(rows, sample_weight=weights)
    np.testing.assert_array_equal(weights, kept)
    for other in (list(weights), pd.Series(weights, index=np.arange(ROWS)[::-1]), torch.from_numpy(weights)):
        assert equal(one, tiny(keep_ratio=None).fit(rows, sample_weight=other))


# --- scikit-learn


def test_scikit_learn_sees_the_parameter():
    assert has_fit_parameter(tiny(), "sample_weight")  # so that its checks of weights are among those that run


def test_in_a_pipeline():
    rows, weights = gaussian(), fractional()
    scaled = StandardScaler().fit_transform(rows)
    pipeline = make_pipeline(StandardScaler(), tiny()).fit(rows, sparseflowdensity__sample_weight=weights)
    assert equal(pipeline[-1], tiny().fit(scaled, sample_weight=weights))


def test_weights_are_routed_through_a_search():
    rows, weights = gaussian(), fractional()
    with sklearn.config_context(enable_metadata_routing=True):
        density = tiny(steps=3).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(density, {"keep_ratio": [0.5, None]}, cv=2, error_score="raise")
        search.fit(rows, sample_weight=weights)
        best = tiny(steps=3, **search.best_params_).fit(rows, sample_weight=weights)
        assert equal(search.best_estimator_, best)
        half = tiny(steps=3, keep_ratio=0.5).fit(rows[60:], sample_weight=weights[60:])
        found = half.score(rows[:60], sample_weight=weights[:60])
        assert search.cv_results_["split0_test_score"][0] == pytest.approx(found, rel=1e-9)
