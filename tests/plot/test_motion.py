"""The field at one time and the paths of samples: for linear flows in closed form, in each kind of coordinates."""

import numpy as np
import pytest
import torch
from support.truths import SHEAR, SPIRAL

import sparseflows as sf
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.evaluation.sampling import noise_rows
from sparseflows.flow.fields import LinearField
from sparseflows.rng import derived_seed

SHIFT, SCALE = np.array([170.0, -2.0]), np.array([9.0, 0.5])
WHITENING = np.array([[1.4, -0.3], [0.2, 0.9]])
A = np.array(SPIRAL)


def linear(*matrices, whitens=False, known=True):
    tensor = torch.tensor(WHITENING) if whitens else None
    fields = [LinearField(torch.tensor(matrix, dtype=torch.float64)) for matrix in matrices]
    for field in fields:
        field.dim = 2
    flow = sf.Flow(fields, whitening=tensor)
    flow.standardiser = Standardiser(SHIFT, SCALE) if known else None
    return flow


def exponential(matrix):
    return torch.linalg.matrix_exp(torch.tensor(matrix, dtype=torch.float64)).numpy()


def centres_of(image):
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    x, y = (
        low + (np.arange(n) + 0.5) / n * (high - low) for low, high, n in ((left, right, columns), (bottom, top, rows))
    )
    return np.stack(np.meshgrid(x, y), -1)


@pytest.mark.parametrize("whitens", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_the_field_is_the_flows_in_the_coordinates_of_the_picture(whitens, known):
    """x = S W⁻¹ z + b, so dx/dt = S W⁻¹ A W S⁻¹ (x − b), with the divergence tr A in any of them."""
    flow = linear(A, whitens=whitens, known=known)
    scale, shift = (np.diag(SCALE), SHIFT) if known else (np.eye(2), np.zeros(2))
    into = scale @ np.linalg.inv(WHITENING) if whitens else scale
    image = flow.plot(kind="field", colour="speed", cells=50).images[0]
    velocity = (centres_of(image) - shift) @ (into @ A @ np.linalg.inv(into)).T
    np.testing.assert_allclose(image.get_array(), np.linalg.norm(velocity, axis=-1), rtol=1e-6)
    divergence = flow.plot(kind="field", cells=50).images[0].get_array()
    np.testing.assert_allclose(divergence, np.trace(A), atol=1e-9)


def test_the_time_is_a_share_of_all_blocks():
    flow = linear(A, np.array(SHEAR) + np.eye(2))
    axes = flow.plot(kind="field", time=0.75, cells=8)
    np.testing.assert_allclose(axes.images[0].get_array(), np.trace(SHEAR) + 2, atol=1e-9)
    assert axes.get_title() == "t = 0.5 of block 2"
    axes = flow.plot(kind="field", time=0.25, cells=8)
    np.testing.assert_allclose(axes.images[0].get_array(), np.trace(A), atol=1e-9)
    assert flow.plot(kind="field", time=1.0, cells=8).get_title() == "t = 1 of block 2"


@pytest.mark.parametrize("whitens", [False, True])
def test_data_stand_where_they_are_at_that_time(whitens):
    rows = SHIFT + SCALE * np.random.default_rng(0).normal(size=(30, 2))
    into = np.diag(SCALE) @ (np.linalg.inv(WHITENING) if whitens else np.eye(2))
    axes = linear(A, whitens=whitens).plot(kind="field", time=0.5, cells=8, data=rows)
    (points,) = [one for one in axes.collections if one.get_label() == "data"]
    carried = into @ exponential(A / 2) @ np.linalg.inv(into)
    np.testing.assert_allclose(points.get_offsets(), (rows - SHIFT) @ carried.T + SHIFT, atol=3e-3)


@pytest.mark.parametrize("whitens", [False, True])
def test_paths_go_from_noise_to_the_samples_that_it_becomes(whitens):
    axes = linear(A, whitens=whitens).plot(kind="paths", n=20, seed=3)
    lines, starts, ends = axes.collections
    noise = noise_rows(20, 2, derived_seed(3, "plot/paths"))
    into = np.diag(SCALE) @ (np.linalg.inv(WHITENING) if whitens else np.eye(2))
    np.testing.assert_allclose(starts.get_offsets(), noise @ into.T + SHIFT, rtol=1e-9)
    back = np.linalg.inv(exponential(A))
    np.testing.assert_allclose(ends.get_offsets(), noise @ (into @ back).T + SHIFT, atol=3e-3)
    for place, path in enumerate(lines.get_segments()):
        np.testing.assert_allclose(path[0], starts.get_offsets()[place])
        np.testing.assert_allclose(path[-1], ends.get_offsets()[place])
        half = into @ exponential(-A / 2) @ noise[place] + SHIFT
        np.testing.assert_allclose(path[len(path) // 2], half, atol=3e-3)


def test_paths_of_many_columns_are_shown_in_two():
    flow = sf.Flow(LinearField(torch.diag(torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64))))
    axes = flow.plot(kind="paths", columns=[3, 1], n=9, data=np.zeros((2, 3)), dim=3)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("column 3", "column 1")
    data, _, starts, ends = axes.collections
    ratio = np.asarray(ends.get_offsets()) / np.asarray(starts.get_offsets())
    np.testing.assert_allclose(ratio, np.exp([[-1.0, -0.1]] * 9), rtol=2e-3)
    assert len(data.get_offsets()) == 2
