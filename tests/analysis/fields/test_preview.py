"""The small picture of a field: its arrays are the field's, and its arrows stand where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analysis.fields.arrays import PREVIEW_CELLS as CELLS
from analysis.fields.arrays import preview_arrays
from analysis.plots.fields.streams import ARROWS, _means, preview_figure, scale_values, when
from sparseflows.flow.model import Flow

ROWS = np.random.default_rng(0).normal(size=(50, 2))


class Linear(nn.Module):
    """f = A z, with trace tr A everywhere."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, t, z):
        return z @ self.a.T

    def tangents(self, t, z, v):
        return z @ self.a.T, (v @ self.a.T).expand(len(v), *z.shape)


A = [[0.3, -1.0], [0.5, 0.2]]


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_arrays_are_the_field(blocks):
    flow = Flow([Linear(A) for _ in range(blocks)]) if blocks > 1 else Flow(Linear(A))
    arrays = preview_arrays(flow, ROWS)
    assert arrays["block"].tolist() == [block for block in range(1, blocks + 1) for _ in range(3)]
    assert arrays["time"].tolist() == [0.0, 0.5, 1.0] * blocks
    left, right, bottom, top = arrays["field_extent"]
    assert left <= min(-3.2, ROWS.min())
    x = left + (np.arange(CELLS) + 0.5) * (right - left) / CELLS
    y = bottom + (np.arange(CELLS) + 0.5) * (top - bottom) / CELLS
    z = np.stack(np.meshgrid(x, y), -1)
    for velocity, divergence in zip(arrays["velocity"], arrays["divergence"], strict=True):
        np.testing.assert_allclose(velocity, z @ np.array(A).T, atol=1e-12)  # float64 rounding
        np.testing.assert_allclose(divergence, 0.5, atol=1e-12)
    # The colours' scale: at samples on their way, from the data's end of the first block to the noise.
    np.testing.assert_allclose(scale_values(arrays, "divergence"), 0.5, atol=1e-12)
    speeds = arrays["sample_speed"]
    assert speeds.shape == (3 * blocks, 500)
    noise = speeds[-1]
    carried = np.linalg.norm(np.linalg.solve(_flow_map(blocks), _points(noise, flow).T).T @ np.array(A).T, axis=1)
    np.testing.assert_allclose(np.sort(speeds[0]), np.sort(carried), rtol=1e-3)  # the solves' tolerance is 1e-4


def _flow_map(blocks):
    from scipy.linalg import expm

    return expm(blocks * np.array(A))


def _points(noise, flow):
    from sparseflows.rng import numpy_generator

    points = numpy_generator(0, "glance").standard_normal((500, 2))
    np.testing.assert_allclose(np.linalg.norm(points @ np.array(A).T, axis=1), noise, rtol=1e-6)
    return points


def test_paths_that_cannot_be_solved_leave_the_scale_to_the_grid():
    flow = Flow(Linear([[float("nan"), 0.0], [0.0, 1.0]]))
    assert "sample_divergence" not in preview_arrays(flow, ROWS)


def test_an_arrow_is_the_mean_of_the_cells_around_it():
    values = np.random.default_rng(1).normal(size=(CELLS, CELLS, 2))
    side = CELLS // ARROWS
    assert side * ARROWS == CELLS
    means = _means(values)
    for i, j in ((0, 0), (3, 7), (ARROWS - 1, 2)):
        square = values[side * i : side * (i + 1), side * j : side * (j + 1)]
        np.testing.assert_allclose(means[i, j], square.mean((0, 1)), rtol=1e-12)
    assert _means(values[..., 0]).shape == (ARROWS, ARROWS)


def test_panels_say_when():
    arrays = {"block": np.array([1, 1, 2, 2]), "time": np.array([0, 1, 0, 0.7]), "end_time": np.array([1, 1, 0.7, 0.7])}
    assert [when(arrays, index) for index in range(4)] == [
        "block 1, t = 0 (data)",
        "block 1, t = 1",
        "block 2, t = 0",
        "block 2, t = 0.7 (noise)",
    ]


def test_the_picture_is_a_png_and_depends_on_the_field():
    pictures = [
        preview_figure(preview_arrays(Flow(Linear(a)), ROWS), "dense-s0/0") for a in (A, A, [[0.0, 1.0], [-1.0, 0.0]])
    ]
    assert all(one.startswith(b"\x89PNG") for one in pictures)
    assert pictures[0] == pictures[1] != pictures[2]
