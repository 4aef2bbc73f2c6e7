"""Maps of columns: there and back, slopes, and densities that stay densities of the columns themselves."""

import json

import numpy as np
import pytest
from scipy import integrate, stats

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.transforms.maps import Circular, Log, Logit, Power, Rank, map_from_dict
from sparseflows.data.transforms.transformed import fit_transformed, standardiser_from_dict
from sparseflows.errors import InputError

RNG = np.random.default_rng(0)
SKEWED = np.exp(1.5 * RNG.normal(size=800))
SIGNED = SKEWED * RNG.choice([-1.0, 1.0], 800)
SHARES = RNG.beta(0.7, 1.3, size=800)
ANGLES = RNG.vonmises(2.0, 0.6, size=800) % (2 * np.pi)

FITTED = {
    "log": (Log(), SKEWED),
    "power": (Power.fit(SKEWED), SKEWED),
    "power of signed": (Power.fit(SIGNED), SIGNED),
    "power 0": (Power(0.0, 0.5, 2.0), SIGNED),
    "power 2": (Power(2.0, 0.5, 2.0), SIGNED),
    "power 1.3": (Power(1.3, -0.5, 0.7), SIGNED),
    "logit": (Logit(-1.0, 3.0), 4 * SHARES - 1),
    "rank": (Rank.fit(SIGNED), SIGNED),
    "circular": (Circular.fit(ANGLES, 0.0, 2 * np.pi), ANGLES),
    "circular in degrees": (Circular.fit(np.degrees(ANGLES) - 180, -180.0, 180.0), np.degrees(ANGLES) - 180),
}


@pytest.mark.parametrize("kind", FITTED)
def test_there_and_back(kind):
    one, column = FITTED[kind]
    mapped = one.apply(column)
    assert np.isfinite(mapped).all()
    np.testing.assert_allclose(one.invert(mapped), column, rtol=1e-9, atol=1e-12)
    wide = np.linspace(-9, 9, 200)  # the whole line, far beyond the data, is reached
    np.testing.assert_allclose(one.apply(one.invert(wide)), wide, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", FITTED)
def test_slopes_are_derivatives(kind):
    one, column = FITTED[kind]
    step = 1e-6 * np.maximum(1e-3, np.abs(column))
    ends = one.apply(column + step), one.apply(column - step)
    smooth = np.ones(len(column), dtype=bool)
    if isinstance(one, Rank):  # not across a knot
        knots = np.array(one.values)
        smooth = np.searchsorted(knots, column + step) == np.searchsorted(knots, column - step)
    found = one.log_slope(one.apply(column))
    np.testing.assert_allclose(found[smooth], np.log((ends[0] - ends[1]) / (2 * step))[smooth], atol=1e-3)


@pytest.mark.parametrize("kind", ["log", "power", "logit", "rank", "circular"])
def test_slopes_agree_with_autograd(kind):
    """The inverse written once more in PyTorch, differentiated by it."""
    import torch

    one, column = FITTED[kind]
    y = torch.tensor(one.apply(column), requires_grad=True)
    if kind == "log":
        x = y.exp()
    elif kind == "power":
        above = torch.clamp(one.power * y + 1, min=1e-9) ** (1 / one.power) - 1
        low = 2 - one.power
        below = 1 - torch.clamp(1 - low * y, min=1e-9) ** (1 / low)
        x = torch.where(y >= 0, above, below) * one.unit + one.centre
    elif kind == "logit":
        x = one.low + (one.high - one.low) * torch.sigmoid(y)
    elif kind == "circular":
        x = one.cut + (one.high - one.low) * torch.sigmoid(y)
    else:
        values, scores = (torch.tensor(knots, dtype=torch.float64) for knots in (one.values, one.scores))
        line = torch.clamp(torch.searchsorted(scores, y.detach(), right=True) - 1, 0, len(values) - 2)
        rise = (values[line + 1] - values[line]) / (scores[line + 1] - scores[line])
        x = values[line] + (y - scores[line]) * rise
    (slope,) = torch.autograd.grad(x.sum(), y)
    np.testing.assert_allclose(one.log_slope(y.detach().numpy()), -slope.log().numpy(), atol=1e-8)


@pytest.mark.parametrize("kind", FITTED)
def test_plain_numbers_bring_every_bit_back(kind):
    one, column = FITTED[kind]
    again = map_from_dict(json.loads(json.dumps(one.to_dict())))
    np.testing.assert_array_equal(again.apply(column), one.apply(column))


def test_the_power_is_scikit_learns():
    """Of a column whose median is 0 and whose middle half spans 1, where the two maps are the same."""
    from sklearn.preprocessing import PowerTransformer

    low, middle, high = np.quantile(SKEWED, (0.25, 0.5, 0.75))
    column = (SKEWED - middle) / (high - low)
    theirs = PowerTransformer(standardize=False).fit(column[:, None])
    one = Power.fit(column)
    if 0 <= theirs.lambdas_[0] <= 2:
        assert one.power == pytest.approx(theirs.lambdas_[0], abs=1e-3)
    else:
        assert one.power == pytest.approx(np.clip(theirs.lambdas_[0], 0, 2), abs=1e-3)


def test_ranks_of_training_values_are_gaussian():
    assert stats.kstest(Rank.fit(SIGNED).apply(SIGNED), "norm").statistic < 0.02


def test_a_circle_is_cut_where_it_is_empty():
    gap = np.concatenate([RNG.uniform(0, 2, 300), RNG.uniform(4, 2 * np.pi, 300)])
    one = Circular.fit(gap, 0.0, 2 * np.pi)
    assert 2 < one.cut < 4
    across = np.array([-0.01, 0.0, 0.01])  # of one place: near on the line, too
    assert np.ptp(one.apply(across)) < 0.1
    assert ((one.invert(np.linspace(-30, 30, 99)) >= 0) & (one.invert(np.linspace(-30, 30, 99)) < 2 * np.pi)).all()


# --- columns seen through maps, then standardised


def seen(column, kind):
    return fit_transformed(column[:, None], {"1": kind}, None, "training rows")


def test_a_lognormal_has_its_own_density_under_a_gaussian_flow():
    """σ = 3: a flow that stands still after log and standardising is the lognormal of the fitted mean and deviation."""
    column = np.exp(3 * RNG.normal(size=5000) + 1)
    standardiser = seen(column, "log")
    own = np.exp(3 * RNG.normal(size=(200, 1)) + 1)
    rows = standardiser.apply(own)
    log_p = stats.norm.logpdf(rows[:, 0]) + standardiser.log_slope(rows) - standardiser.log_scale
    logs = np.log(column)
    np.testing.assert_allclose(log_p, stats.lognorm.logpdf(own[:, 0], logs.std(), scale=np.exp(logs.mean())), rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "column", "ends"),
    [
        ("log", SKEWED, (0.0, np.inf)),
        ("power", SIGNED, (-np.inf, np.inf)),
        ({"logit": [0.0, 1.0]}, SHARES, (0.0, 1.0)),
        ("rank", SIGNED, (-np.inf, np.inf)),
        ({"circular": [0.0, 2 * np.pi]}, ANGLES, (0.0, 2 * np.pi)),
    ],
)
def test_the_density_of_the_column_integrates_to_1(kind, column, ends):
    standardiser = seen(column, kind)

    def log_p(x):
        rows = standardiser.apply(np.asarray(x)[:, None])
        return stats.norm.logpdf(rows[:, 0]) + standardiser.log_slope(rows) - standardiser.log_scale

    # Over the line of the map, on which all of them are spread evenly.
    line = np.linspace(-12, 12, 20_001)
    x = standardiser.invert(line[:, None])[:, 0]
    inside = np.argsort(x) if isinstance(kind, dict) and "circular" in kind else np.arange(len(x))
    x = x[inside]
    kept = np.concatenate([[True], np.diff(x) > 0])
    assert integrate.trapezoid(np.exp(log_p(x[kept])), x[kept]) == pytest.approx(1, abs=5e-3)
    assert (x >= ends[0]).all()
    assert (x <= ends[1]).all()


def test_the_other_columns_are_as_without():
    rows = np.c_[SKEWED, SIGNED]
    plain, one = Standardiser.fit_columns(rows), fit_transformed(rows, {"a": "log"}, ("a", "b"), "rows")
    assert np.array_equal(one.shift, plain.shift)
    assert one.log_scale == plain.log_scale
    np.testing.assert_array_equal(one.apply(rows)[:, 1], plain.apply(rows)[:, 1])
    np.testing.assert_allclose(one.invert(one.apply(rows)), rows, rtol=1e-9)
    again = standardiser_from_dict(json.loads(json.dumps(one.to_dict())))
    np.testing.assert_array_equal(again.apply(rows), one.apply(rows))
    np.testing.assert_array_equal(again.log_slope(rows), one.log_slope(rows))
    assert (plain.log_slope(rows) == 0).all()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("log", ["row 2, column 'b': -1 has no logarithm", "power or rank"]),
        ({"logit": [-2.0, 2.0]}, ["row 3, column 'b': 2 is not between -2 and 2"]),
    ],
)
def test_values_beyond_a_map_are_refused_by_place(kind, words):
    rows = np.c_[[1.0, 2.0, 3.0], [1.0, -1.0, 2.0]]
    with pytest.raises(InputError) as caught:
        fit_transformed(rows, {"b": kind}, ("a", "b"), "r.csv")
    assert all(word in str(caught.value) for word in ["r.csv", *words]), str(caught.value)


def test_a_map_may_be_tried_on_rows_that_it_does_not_take():
    train = np.c_[SKEWED, SHARES, ANGLES, SIGNED]
    kinds = {"1": "log", "2": {"logit": [0.0, 1.0]}, "3": {"circular": [0.0, 2 * np.pi]}, "4": "power"}
    one = fit_transformed(train, kinds, None, "rows")
    rows = np.array([[2.0, 0.5, 1.0, 0.0]] * 5)
    rows[1, 0], rows[2, 1], rows[3, 2] = -3.0, 1.0, 1.0 + 20 * np.pi
    rows[4, :2] = 0.0, -1.0
    found = one.try_apply(rows)
    assert np.isnan(found).any(1).tolist() == [False, True, True, False, True]
    np.testing.assert_array_equal(found[[0, 3]], one.apply(rows[[0, 3]]))
    np.testing.assert_allclose(found[3], found[0], atol=1e-12)  # once more around the circle, ten times
    labels = ("a", "b", "c", "d")
    assert [one.fault(row, labels) for row in rows] == [
        "",
        "column 'a': -3 has no logarithm",
        "column 'b': 1 is not between 0 and 1, the ends of its logit",
        "",
        "column 'a': 0 has no logarithm",
    ]
    plain = Standardiser.fit_columns(train)
    np.testing.assert_array_equal(plain.try_apply(rows), plain.apply(rows))
    assert plain.fault(rows[1], labels) == ""


def test_maps_of_columns_that_are_not_there():
    with pytest.raises(InputError, match=r"data.transform says 'c'.*there are: a, b"):
        fit_transformed(np.c_[SKEWED, SIGNED], {"c": "log"}, ("a", "b"), "r.csv")
    with pytest.raises(InputError, match="twice"):
        fit_transformed(np.c_[SKEWED, SIGNED], {"01": "log", "1": "rank"}, None, "r.csv")
    with pytest.raises(InputError, match=r"column 'a': values from .* go round a circle of length 0.5 more than once"):
        fit_transformed(np.c_[SHARES, SHARES], {"a": {"circular": [0, 0.5]}}, ["a", "b"], "training rows")
    with pytest.raises(InputError, match="almost all values are the same"):
        fit_transformed(np.r_[np.ones(99), 2.0][:, None], {"1": "rank"}, None, "r.csv")
