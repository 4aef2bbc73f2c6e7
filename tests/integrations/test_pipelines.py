"""Densities of pipelines in the coordinates of their input."""

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from sparseflows import SparseFlowDensity, pipeline_nll, pipeline_score_samples
from sparseflows.errors import InputError


def table(rows=200, seed=0):
    """Positive, skewed and correlated."""
    z = np.random.default_rng(seed).normal(size=(rows, 2)) @ np.array([[1.0, 0.6], [0.0, 0.5]])
    return np.stack([np.exp(0.4 * z[:, 0]), 30 + 5 * z[:, 1]], 1)


STEPS = {
    "standard": StandardScaler(),
    "standard, mean only": StandardScaler(with_std=False),
    "min max": MinMaxScaler((-2, 5)),
    "max abs": MaxAbsScaler(),
    "robust": RobustScaler(unit_variance=True),
    "robust, centre only": RobustScaler(with_scaling=False),
    "pca": PCA(),
    "pca, whitening": PCA(whiten=True),
    "power": PowerTransformer(),
    "power, not standardised": PowerTransformer(standardize=False),
    "box-cox": PowerTransformer("box-cox"),
    "identity": FunctionTransformer(),
    "nothing": "passthrough",
    "nested": make_pipeline(PowerTransformer(), PCA(whiten=True)),
    "two": make_pipeline(RobustScaler(), "passthrough", MinMaxScaler()),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_counts_by_the_change_of_variables(name):
    rows, step = table(), STEPS[name]
    pipeline = make_pipeline(step, GaussianMixture(2, random_state=0)).fit(rows)
    points, h = rows[:20], 1e-5
    moved = (lambda x: x) if step == "passthrough" else pipeline[0].transform
    columns = [(moved(points + d) - moved(points - d)) / (2 * h) for d in h * np.eye(2)]
    _, log_det = np.linalg.slogdet(np.stack(columns, 2))
    wanted = pipeline.score_samples(points) + log_det
    np.testing.assert_allclose(pipeline_score_samples(pipeline, points), wanted, atol=1e-6)  # h² and rounding / h


def test_power_transforms_on_both_sides_of_0():
    rows = table() - [1.0, 30.0]
    pipeline = make_pipeline(PowerTransformer(), GaussianMixture(random_state=0)).fit(rows)
    assert (rows[:20] < 0).any()
    h = 1e-6
    columns = [
        (pipeline[0].transform(rows[:20] + d) - pipeline[0].transform(rows[:20] - d)) / (2 * h) for d in h * np.eye(2)
    ]
    wanted = pipeline.score_samples(rows[:20]) + np.linalg.slogdet(np.stack(columns, 2))[1]
    np.testing.assert_allclose(pipeline_score_samples(pipeline, rows[:20]), wanted, atol=1e-6)


@pytest.mark.parametrize("frame", [False, True])
def test_a_row_that_a_step_does_not_take_has_density_0(frame):
    """Box–Cox's power is one of numbers above 0; the step before lets all pass."""
    rows = table()
    pipeline = make_pipeline("passthrough", PowerTransformer("box-cox"), StandardScaler(), GaussianMixture())
    points = rows[:5].copy()
    points[1, 0], points[3, 1] = -0.5, 0.0
    if frame:
        rows, points = pd.DataFrame(rows, columns=["a", "b"]), pd.DataFrame(points, columns=["a", "b"], index=[9] * 5)
    pipeline.fit(rows)
    found = pipeline_score_samples(pipeline, points)
    assert np.isneginf(found).tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(found[[0, 2, 4]], pipeline_score_samples(pipeline, rows[:5])[[0, 2, 4]], rtol=1e-12)
    none = points[3:4]
    assert pipeline_score_samples(pipeline, none).tolist() == [-np.inf]
    assert pipeline_nll(pipeline, points).nll == np.inf
    assert np.isnan(pipeline_nll(pipeline, points).se)


@pytest.mark.parametrize("name", ["standard", "pca, whitening", "power"])
def test_it_integrates_to_1(name):
    rows = table(400)
    pipeline = make_pipeline(STEPS[name], GaussianMixture(random_state=0)).fit(rows)
    axes = [np.linspace(-3.0, 9.0, 500), np.linspace(-10.0, 70.0, 400)]
    points = np.stack([axis.ravel() for axis in np.meshgrid(*axes)], 1)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(pipeline_score_samples(pipeline, points)).sum() * cell == pytest.approx(1, abs=2e-3)


def test_scaling_in_front_of_a_flow_changes_nothing():
    """The flow standardises by itself, so what it sees is the same to rounding, and so is the density of the data."""
    rows = table()
    alone = SparseFlowDensity(hidden=(8,), steps=20, random_state=0, tolerance=1e-8).fit(rows)
    whole = make_pipeline(StandardScaler(), clone_of(alone)).fit(rows)
    np.testing.assert_allclose(pipeline_score_samples(whole, rows), alone.score_samples(rows), atol=1e-3)
    found = pipeline_nll(whole, rows)
    assert found.nll == pytest.approx(-alone.score(rows), abs=1e-3)
    assert found.se == pytest.approx(alone.score_samples(rows).std(ddof=1) / np.sqrt(len(rows)), rel=1e-3)
    assert abs(whole.score(rows) - alone.score(rows)) > 0.3  # the pipeline's own is that of the scaled rows


def clone_of(density):
    return SparseFlowDensity(**density.get_params())


def test_a_density_by_itself_will_do():
    density = KernelDensity().fit(table())
    np.testing.assert_array_equal(pipeline_score_samples(density, table()), density.score_samples(table()))


REFUSED = [
    (QuantileTransformer(n_quantiles=20), "step 'first': the determinant of a QuantileTransformer is not known"),
    (FunctionTransformer(np.log1p), "step 'first': the determinant of a FunctionTransformer of 'log1p' is not known"),
    (PCA(1), "step 'first': PCA keeps 1 of 2 components"),
    (MinMaxScaler(clip=True), "step 'first': MinMaxScaler clips"),
]


@pytest.mark.parametrize(("step", "message"), REFUSED)
def test_what_has_no_known_determinant_is_refused_by_name(step, message):
    pipeline = Pipeline([("first", step), ("last", GaussianMixture())]).fit(table())
    with pytest.raises(InputError, match=message) as caught:
        pipeline_score_samples(pipeline, table())
    assert "\n" not in str(caught.value)


def test_a_pipeline_that_ends_in_no_density_is_refused():
    pipeline = make_pipeline(StandardScaler(), LinearRegression()).fit(table(), table()[:, 0])
    with pytest.raises(InputError, match="the last step, LinearRegression, has no score_samples"):
        pipeline_nll(pipeline, table())
