"""The scikit-learn estimator: its checks, its place among pipelines and searches, and what it estimates."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import sparseflows
from sparseflows import SparseFlowDensity
from sparseflows.errors import DataWarning, InputError, RunError
from sparseflows.evaluation import sampling
from sparseflows.flow.compiled.build import library
from sparseflows.flow.fields import AutogradField, MLPField
from sparseflows.flow.solvers.ode import Solver
from sparseflows.integrations.fitting import Part, split
from sparseflows.pruning.graph.groups import count_params
from sparseflows.rng import numpy_generator

MEAN, SCALE = np.array([1.0, -5.0]), np.array([0.5, 20.0])


class Own(nn.Module):
    """A field of one's own, with a residual."""

    def __init__(self, dim):
        super().__init__()
        self.lift, self.head = nn.Linear(dim + 1, 6), nn.Linear(6, dim)
        self.mix = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6))

    def forward(self, t, z):
        h = torch.tanh(self.lift(torch.cat([z, t.expand(len(z), 1)], 1)))
        return self.head(h + self.mix(h))


def tiny(**changes):
    settings = {"hidden": (6,), "steps": 6, "batch": 32, "random_state": 0, "validation_fraction": 0.0}
    return SparseFlowDensity(**(settings | changes))


def gaussian(rows=300, seed=0):
    return np.random.default_rng(seed).normal(MEAN, SCALE, size=(rows, 2))


# None is expected to fail. The tolerance is what `check_methods_subset_invariance` asks for: rows that are solved
# together share their steps, and it compares densities to 1e-7 with those of the rows one by one.
@parametrize_with_checks([tiny(hidden=(4,), steps=4, batch=16)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_the_density_of_a_gaussian_is_found_in_its_own_coordinates():
    rows, others = gaussian(2000), gaussian(1000, seed=1)
    density = SparseFlowDensity(hidden=(16,), steps=300, random_state=0).fit(rows)
    offsets = (others - MEAN) / SCALE
    true = -0.5 * (offsets**2).sum(1) - np.log(2 * np.pi * SCALE.prod())
    gap = (true - density.score_samples(others)).mean()
    assert -0.02 < gap < 0.1  # nats, of a training this short
    drawn = density.sample(4000, random_state=3)
    assert (np.abs(drawn.mean(0) - MEAN) < 0.15 * SCALE).all()
    assert (np.abs(drawn.std(0) / SCALE - 1) < 0.15).all()


def test_the_density_integrates_to_1():
    density = tiny(hidden=(8,), steps=100).fit(gaussian())
    grids = [np.linspace(m - 9 * s, m + 9 * s, 121) for m, s in zip(MEAN, SCALE, strict=True)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*grids)], 1)
    cell = np.prod([grid[1] - grid[0] for grid in grids])
    assert np.exp(density.score_samples(points)).sum() * cell == pytest.approx(1, abs=2e-3)


def test_score_is_the_mean_and_the_flow_has_the_same_density():
    density, rows = tiny(tolerance=1e-5).fit(gaussian()), gaussian(20, seed=1)
    found = density.score_samples(rows)
    assert density.score(rows) == pytest.approx(found.mean(), rel=1e-12)
    flow = density.flow_.double().distribution(coordinates="data")
    # Both solve to 1e-5 a step, one with float32 weights turned to float64 as well.
    np.testing.assert_allclose(flow.log_prob(torch.from_numpy(rows)).detach().numpy(), found, atol=1e-3)


@pytest.mark.parametrize("method", ["unstructured", "snip", "sipp", "structured", "taylor", "pfp"])
@pytest.mark.parametrize("field", [None, Own])
def test_it_comes_out_pruned(method, field):
    density = tiny(prune=method, keep_ratio=0.7, field=field, hidden=(8, 8), steps=2).fit(gaussian(60))
    assert density.prune_ratio_ == pytest.approx(1 - density.params_ / density.params_dense_)
    if density.masks_ is None:
        assert count_params(density.flow_) == density.params_ < density.params_dense_
        assert abs(density.prune_ratio_ - 0.3) < 0.06  # whole neurons
    else:
        assert density.masks_.kept(density.flow_) == density.params_
        assert abs(density.prune_ratio_ - 0.3) < 0.01
        for name, mask in density.masks_.items():
            assert not density.flow_.get_parameter(name)[~mask].any()
    assert np.isfinite(density.score(gaussian(10)))


def test_several_keep_ratios_are_a_cascade_and_none_is_dense():
    density = tiny(hidden=(8, 8), keep_ratio=[0.8, 0.5], retrain_steps=3).fit(gaussian())
    assert density.prune_ratio_ == pytest.approx(0.5, abs=0.01)
    assert {record["stage"] for record in density.history_} == {0, 1, 2}
    assert max(record["step"] for record in density.history_ if record["stage"] == 2) == 3
    dense = tiny(keep_ratio=None).fit(gaussian())
    assert (dense.params_, dense.prune_ratio_, dense.masks_) == (dense.params_dense_, 0.0, None)


@pytest.mark.parametrize("objective", ["flow_matching", "nll"])
def test_objectives(objective):
    density = SparseFlowDensity(
        hidden=(8,), objective=objective, steps=60, batch=64, keep_ratio=None, random_state=0, whiten=True
    ).fit(gaussian())
    assert isinstance(next(density.flow_.fields()), MLPField)
    gaussians = -gaussian(500, seed=2)  # far off
    assert density.score(gaussian(500, seed=1)) > density.score(gaussians) + 1
    losses = [record["loss"] for record in density.history_ if "loss" in record]
    first, last = losses[0], losses[-1]
    assert last < first


def test_a_field_of_ones_own_is_trained_by_the_likelihood():
    density = tiny(field=Own, steps=10, keep_ratio=0.6, lr=0.03).fit(gaussian())
    assert isinstance(next(density.flow_.fields()), AutogradField)
    losses = [record["loss"] for record in density.history_ if record["stage"] == 0 and "loss" in record]
    assert losses[-1] < losses[0]
    assert density.sample(7, random_state=0).shape == (7, 2)


def test_a_field_of_ones_own_by_flow_matching():
    density = tiny(field=Own, objective="flow_matching", steps=60, keep_ratio=0.6, lr=0.03).fit(gaussian())
    losses = [record["loss"] for record in density.history_ if record["stage"] == 0 and "loss" in record]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert density.masks_.kept(density.flow_) == density.params_


@pytest.mark.parametrize("compiled", [True, False])
def test_the_rows_beside_a_row_matter_no_more_than_the_tolerance(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr("sparseflows.flow.compiled.engine.library", lambda dtype: None)
    density, rows = tiny(hidden=(16,), steps=50, tolerance=1e-5).fit(gaussian()), gaussian(20, seed=1)
    whole = density.score_samples(rows)
    alone = np.concatenate([density.score_samples(row[None]) for row in rows])
    assert np.abs(whole - alone).max() < 1e-3  # some tens of steps at 1e-5 each
    matter = not compiled or library(torch.float64) is None  # in the engine every row takes steps of its own
    assert (np.abs(whole - alone).max() > 1e-10) == matter


def test_lost_samples_are_drawn_again_and_at_last_given_up(monkeypatch):
    density, calls = tiny().fit(gaussian()), []

    def drawn(flow, dim, n, seed):
        calls.append(n)
        found = np.full((n, dim), float(len(calls)))
        found[: n // 2] = np.nan
        return found

    monkeypatch.setattr(sampling, "draw_standardised", drawn)
    with pytest.warns(UserWarning, match="3 draws ran off"):
        assert np.isfinite(density.sample(4, random_state=0)).all()
    assert calls == [4, 2, 1]
    monkeypatch.setattr(sampling, "draw_standardised", lambda flow, dim, n, seed: np.full((n, dim), np.nan))
    with pytest.raises(RunError, match="3 of 3 samples run off to infinity"):
        density.sample(3, random_state=0)


def test_weights_are_chosen_on_rows_that_are_held_out(capsys):
    density = tiny(validation_fraction=0.2, verbose=1).fit(gaussian())
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert "stage 0 (dense): " in told[0]
    assert "validation NLL" in told[1]
    assert density.params_ < density.params_dense_


def test_it_is_silent(capfd):
    tiny(validation_fraction=0.2).fit(gaussian()).score(gaussian(10))
    found = capfd.readouterr()
    assert (found.out, found.err) == ("", "")


def test_equal_seeds_equal_fits_and_copies():
    rows, others = gaussian(), gaussian(9, seed=1)
    one = tiny(prune="snip").fit(rows)
    again = clone(one).fit(rows)
    other = clone(one).set_params(random_state=1).fit(rows)
    back = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(one.score_samples(others), again.score_samples(others))
    np.testing.assert_array_equal(one.score_samples(others), back.score_samples(others))
    assert not np.allclose(one.score_samples(others), other.score_samples(others))
    np.testing.assert_array_equal(one.sample(4, random_state=2), back.sample(4, random_state=2))
    own = tiny(field=Own, steps=2)
    np.testing.assert_array_equal(*(own.fit(rows).score_samples(others) for _ in range(2)))


def test_the_callers_random_numbers_are_left_alone():
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    tiny(field=Own, steps=2).fit(gaussian())
    assert torch.equal(torch.rand(2), wanted)


def test_a_search_over_keep_ratio_and_width_in_a_pipeline():
    grid = {
        "sparseflowdensity__keep_ratio": [np.float64(0.9), None],
        "sparseflowdensity__hidden": [(4,), 8],
    }
    search = GridSearchCV(make_pipeline(StandardScaler(), tiny(steps=3)), grid, cv=2, error_score="raise")
    search.fit(gaussian(80))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_[-1].params_ > 0
    assert search.score(gaussian(10)) == pytest.approx(
        search.best_estimator_[-1].score(search.best_estimator_[0].transform(gaussian(10)))
    )


def test_columns_have_names():
    frame = pd.DataFrame(gaussian(), columns=["width", "height"])
    density = tiny().fit(frame)
    assert list(density.feature_names_in_) == ["width", "height"]
    assert density.n_features_in_ == 2
    with pytest.raises(ValueError, match=r"feature names should match"):
        density.score_samples(frame[["height", "width"]])


REFUSED = [
    ({"hidden": 0}, r"SparseFlowDensity: flow\.hidden\.0: input should be greater than or equal to 1, not 0"),
    ({"activation": "tan"}, r"flow\.activation: 'tan' is not one of"),
    ({"objective": "mle"}, "objective: 'mle' is not one of auto, flow_matching, nll"),
    ({"lr": -1.0}, r"train\.lr"),
    ({"steps": "many"}, r"train\.steps"),
    ({"prune": "structred"}, r"prune\.methods\.0: 'structred' is not one of"),
    ({"keep_ratio": 1.5}, "keep_ratios"),
    ({"keep_ratio": [0.3, 0.5]}, "keep_ratios"),
    ({"tolerance": 0.1}, r"evaluate\.rtol"),
    ({"validation_fraction": 1.0}, r"validation_fraction: 1\.0 is not in"),
    ({"field": lambda dim: 3}, "field gave a int for dim=2; it must give an nn"),
    ({"field": lambda dim: nn.Identity()}, "without parameters"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_settings_that_are_refused(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        tiny(**changes).fit(gaussian())
    assert "\n" not in str(caught.value)


def test_rows_that_are_refused():
    rows = gaussian()
    rows[:, 1] = 3.0
    with pytest.raises(ValueError, match=r"X: constant in every row: column 2 \(always 3\)"):
        tiny().fit(rows)
    density = tiny().fit(gaussian())
    with pytest.raises(InputError, match="n_samples=0"):
        density.sample(0)
    density.flow_.solver = Solver(max_nfe=8)
    with pytest.warns(UserWarning, match="3 of 3 rows cannot be computed"):
        assert np.isnan(density.score_samples(gaussian(3))).all()


def test_a_training_that_diverges_says_so():
    class Explodes(Own):
        def forward(self, t, z):
            return super().forward(t, z) * torch.inf

    with pytest.raises(RunError, match=r"training stopped at step 0: .*; try a lower lr"):
        tiny(field=Explodes).fit(gaussian())


def test_it_is_public():
    assert sparseflows.SparseFlowDensity is SparseFlowDensity
    assert "SparseFlowDensity" in dir(sparseflows)


# --- rows that are told of


def test_rows_without_a_density_are_told_of_by_name_before_the_training():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=300), "pay": np.exp(3 * rng.normal(size=300))})
    frame["copy"] = frame["a"]
    with pytest.warns(DataWarning) as caught:
        tiny().fit(pd.concat([frame, frame]))
    told = " ".join(str(one.message) for one in caught if one.category is DataWarning)
    for words in ("X: column 'copy' is a copy of column 'a'; leave it out of X", "column 'pay': heavy tails"):
        assert words.split(";")[0] in told
    assert "PowerTransformer() before the estimator in a pipeline" in told
    assert "300 of 600 rows are copies" in told
    assert "data." not in told  # there is no param file here


def test_ordinary_rows_raise_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        tiny().fit(gaussian())


def test_copies_do_not_choose_the_weights_that_were_trained_on_them():
    rows = np.repeat(gaussian(100), 3, axis=0)
    train, chosen_by = (part.rows for part in split(Part(rows), 0.2, 0))
    assert not {tuple(row) for row in train} & {tuple(row) for row in chosen_by}
    assert len(chosen_by) == 60
    once = gaussian(100)
    order = numpy_generator(0, "estimator/validation").permutation(100)  # as ever, without copies
    train, chosen_by = (part.rows for part in split(Part(once), 0.2, 0))
    np.testing.assert_array_equal(chosen_by, once[order[:20]])
    np.testing.assert_array_equal(train, once[order[20:]])


def test_columns_are_those_of_the_fit_by_name():
    frame = pd.DataFrame(gaussian(), columns=["a", "b"])
    density = tiny().fit(frame)
    assert list(density.feature_names_in_) == ["a", "b"]
    assert np.isfinite(density.score(frame))
    for other in (frame[["b", "a"]], frame.rename(columns={"b": "c"}), frame.assign(c=1.0)):
        with pytest.raises(ValueError, match="feature"):
            density.score(other)
