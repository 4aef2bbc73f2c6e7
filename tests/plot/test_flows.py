"""Pictures of a flow's density and samples on a user's axes: what they show is what the flow says."""

import copy

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from support.truths import SPIRAL
from torch import nn

import sparseflows as sf
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.transforms.transformed import fit_transformed
from sparseflows.errors import InputError
from sparseflows.flow.fields import LinearField, MLPField

SHIFT, SCALE = np.array([170.0, -2.0]), np.array([9.0, 0.5])
RNG = np.random.default_rng(0)


def linear(matrix=SPIRAL, standardiser=None, columns=None):
    field = LinearField(torch.tensor(matrix, dtype=torch.float64))
    field.dim = len(matrix)
    flow = sf.Flow(field)
    flow.standardiser, flow.columns = standardiser, columns
    return flow


def of_people():
    """Of two named columns in units of their own."""
    return linear(standardiser=Standardiser(SHIFT, SCALE), columns=("height", "mood $x$"))


def gaussian(flow):
    """Its density, in closed form."""
    carried = torch.linalg.matrix_exp(torch.tensor(SPIRAL, dtype=torch.float64)).numpy()
    covariance = np.linalg.inv(carried.T @ carried)
    if flow.standardiser is None:
        return stats.multivariate_normal(np.zeros(2), covariance)
    return stats.multivariate_normal(SHIFT, np.diag(SCALE) @ covariance @ np.diag(SCALE))


def centres_of(image):
    """The middles (rows, columns, 2) of an image's cells."""
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape
    x, y = (
        low + (np.arange(n) + 0.5) / n * (high - low) for low, high, n in ((left, right, columns), (bottom, top, rows))
    )
    return np.stack(np.meshgrid(x, y), -1)


def points_of(axes, label):
    """The points (n, 2) of the scatter of that label."""
    (found,) = [one for one in axes.collections if one.get_label() == label]
    return np.asarray(found.get_offsets())


@pytest.mark.parametrize("flow", [linear(), of_people()], ids=["own coordinates", "the data's"])
def test_the_image_is_the_density_at_its_cells(flow):
    axes = flow.plot(cells=60)
    (image,) = axes.images
    wanted = gaussian(flow).pdf(centres_of(image))
    np.testing.assert_allclose(image.get_array(), wanted, rtol=2e-3, atol=2e-3 * wanted.max())
    left, right, bottom, top = image.get_extent()
    assert image.get_array().sum() * (right - left) * (top - bottom) / 60**2 == pytest.approx(1, abs=0.03)
    assert (axes.get_xlim(), axes.get_ylim()) == ((left, right), (bottom, top))


def test_one_unit_is_one_length_and_two_units_are_not():
    assert linear().plot(cells=4).get_aspect() == 1
    assert linear(standardiser=Standardiser(SHIFT, np.full(2, 3.0))).plot(cells=4).get_aspect() == 1
    assert of_people().plot(cells=4).get_aspect() == "auto"


def test_names_and_coordinates_are_on_the_axes():
    axes = of_people().plot(cells=4)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("height", "mood $x$")
    axes.figure.canvas.draw()  # a dollar sign is no mathematics
    axes = of_people().plot(cells=4, coordinates="standardised")
    assert axes.get_xlabel() == "height (standardised)"
    assert max(map(abs, axes.get_xlim())) < 10
    assert linear().plot(cells=4).get_ylabel() == "column 2"


def test_samples_and_data_lie_over_the_density():
    rows = SHIFT + SCALE * RNG.normal(size=(40, 2))
    axes = of_people().plot(cells=4, data=rows, n=50)
    np.testing.assert_allclose(points_of(axes, "data"), rows)
    assert points_of(axes, "samples").shape == (50, 2)
    frame = pd.DataFrame(rows[:, ::-1], columns=["mood $x$", "height"]).assign(day="monday")
    np.testing.assert_allclose(points_of(of_people().plot(cells=4, data=frame), "data"), rows)
    holes = np.vstack([rows, [[np.nan, 1.0]]])
    assert len(points_of(of_people().plot(cells=4, data=torch.from_numpy(holes)), "data")) == 40
    assert [one.get_label() for one in of_people().plot(cells=4, n=0).collections] == []


def test_the_seed_decides():
    one, same, other = (points_of(linear().plot(cells=4, seed=seed), "samples") for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.isin(one, other).any()
    many = points_of(linear().plot(kind="samples", n=4000), "samples")
    covariance = np.cov(many.T)
    np.testing.assert_allclose(covariance, gaussian(linear()).cov, atol=0.12)


def test_nothing_else_is_touched(figures):
    figure, axes = figures.subplots(1, 4)
    flow, before = of_people(), torch.get_rng_state()
    settings, open_figures = dict(matplotlib.rcParams), figures.get_fignums()
    for ax, kind in zip(axes, ("density", "samples", "field", "paths"), strict=True):
        assert flow.plot(ax, kind) is ax
    assert dict(matplotlib.rcParams) == settings
    assert figures.get_fignums() == open_figures
    assert len(figure.axes) == 4  # no scale beside a user's own axes
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in flow.parameters())
    assert flow.solver == linear().solver


def test_new_axes_are_pyplots_and_have_a_scale(figures):
    axes = linear().plot(cells=4)
    assert axes.figure is figures.gcf()
    assert len(axes.figure.axes) == 2


class Walled(nn.Module):
    """The field that stands still, and is no number beyond a distance."""

    dim = 2

    def __init__(self, wall):
        super().__init__()
        self.scale, self.wall = nn.Parameter(torch.ones(())), wall

    def forward(self, t, z):
        return torch.where(z.norm(dim=1, keepdim=True) > self.wall, torch.nan, 0.0 * self.scale * z)


def test_what_cannot_be_solved_is_blank():
    axes = sf.Flow(Walled(2.0)).plot(cells=30, extent=(-3, 3, -3, 3), n=0)
    found, distance = axes.images[0].get_array(), np.linalg.norm(centres_of(axes.images[0]), axis=-1)
    assert np.isnan(np.ma.filled(found, np.nan)[distance > 2]).all()
    inside = np.asarray(found)[distance <= 2]
    np.testing.assert_allclose(inside, np.exp(-0.5 * distance[distance <= 2] ** 2) / (2 * np.pi), rtol=1e-3)


@pytest.mark.parametrize("kind", ["density", "samples", "field", "paths"])
def test_no_graph_is_recorded(kind, monkeypatch):
    seen, forward, tangents = [], MLPField.forward, MLPField.tangents

    def watched(function):
        def call(*args):
            seen.append(torch.is_grad_enabled())
            return function(*args)

        return call

    monkeypatch.setattr(MLPField, "forward", watched(forward))
    monkeypatch.setattr(MLPField, "tangents", watched(tangents))
    flow = sf.Flow(MLPField(2, [8]), solver=sf.Solver(compiled=False))
    flow.plot(kind=kind, **({"cells": 8} if kind in ("density", "field") else {}))
    assert seen
    assert not any(seen)


# --- one column


def test_a_single_column_is_a_curve_on_a_histogram():
    flow = linear([[0.5]], Standardiser(np.array([3.0]), np.array([2.0])))
    axes = flow.plot(data=3 + RNG.normal(size=500))
    x, p = axes.lines[0].get_data()
    np.testing.assert_allclose(p, stats.norm(3, 2 * np.exp(-0.5)).pdf(x), rtol=2e-3, atol=1e-4)
    assert [one.get_text() for one in axes.get_legend().get_texts()] == ["samples", "data", "density"]
    heights, edges = counted(axes.patches[0])
    assert (heights * np.diff(edges)).sum() == pytest.approx(1, abs=0.02)
    middles = (edges[1:] + edges[:-1]) / 2
    assert abs(heights - np.interp(middles, x, p)).max() < 0.05
    assert flow.plot(kind="samples").get_xlabel() == "column 1"


def counted(patch):
    """Heights (n,) and edges (n + 1,) of a stepped histogram, by its outline."""
    x, y = patch.get_xy().T
    edges = np.unique(x)
    flat = [(x[k], y[k]) for k in range(len(x) - 1) if y[k] == y[k + 1] and x[k] < x[k + 1]]
    heights = dict(sorted(flat, key=lambda step: step[1]))  # the ground is a line of the outline too
    return np.array([heights.get(edge, 0.0) for edge in edges[:-1]]), edges


# --- many columns


FIVE = ("a", "b", "c", "d", "e", "f")


def many(columns=FIVE):
    width = len(columns)
    return linear(np.diag(np.linspace(-1, 1, width)), Standardiser(np.arange(width) * 10.0, np.ones(width)), columns)


def test_more_columns_are_shown_in_pairs():
    grid = many().plot(columns=["f", 2, "a"])
    assert grid.shape == (3, 3)
    assert [axes.get_xlabel() for axes in grid[-1]] == ["f", "b", "a"]
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["", "b", "a"]
    x, y = points_of(grid[1, 0], "samples").T
    assert x.mean() == pytest.approx(50, abs=0.2)
    assert y.mean() == pytest.approx(10, abs=0.3)
    assert (x.std(), y.std()) == (pytest.approx(np.exp(-1), rel=0.1), pytest.approx(np.exp(0.6), rel=0.1))
    assert not grid[0, 2].axison
    assert grid[0, 0].get_xlim() == grid[1, 0].get_xlim() == grid[2, 0].get_xlim()
    assert grid[1, 0].get_ylim() == grid[1, 1].get_xlim()


def test_the_first_five_of_many_and_two_or_one_on_axes_of_ones_own(figures):
    assert many().plot().shape == (5, 5)
    _, axes = figures.subplots()
    assert many().plot(axes, columns=["a", "c"]) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "c")
    assert many().plot(columns=[3]).get_xlabel() == "c"
    _, own = figures.subplots(3, 3)
    assert many().plot(own, columns=[1, 2, 3], data=np.zeros((4, 6)))[2, 0] is own[2, 0]
    assert len(points_of(own[2, 0], "data")) == 4
    assert [text.get_text() for text in own[0, 1].get_legend().get_texts()] == ["samples", "data"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "density"}, "the density of 6 columns is no picture; kind='samples'"),
        ({"kind": "field"}, "the field of 6 columns"),
        ({"kind": "shape"}, "unknown kind 'shape'.*density, field, paths, samples"),
        ({"columns": ["g"]}, "'g'"),
        ({"columns": ["a", "a"]}, "once"),
        ({"columns": []}, "1 to 12"),
        ({"columns": "a"}, "a list"),
        ({"columns": [7]}, "7"),
        ({"data": np.zeros((3, 2))}, r"shape \(3, 2\); give rows \(N, 6\)"),
        ({"data": [["a"] * 6]}, "numbers only"),
        ({"n": 0}, "n is 0"),
        ({"n": -1}, "n is -1"),
        ({"ax": np.array([1, 2])}, r"axes \(5, 5\)"),
        ({"coordinates": "raw"}, "unknown coordinates 'raw'"),
        ({"kind": "paths", "columns": [1]}, "two columns"),
        ({"kind": "paths", "n": 0}, "n is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as refusal:
        many().plot(**options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ax": 3}, "ax is a int"),
        ({"cells": 1}, "cells is 1"),
        ({"extent": (1, 0, 0, 1)}, "rising"),
        ({"extent": (0, 1)}, r"\(left, right, bottom, top\)"),
        ({"kind": "field", "time": 2}, "from 0"),
        ({"kind": "field", "colour": "red"}, "unknown colour"),
        ({"kind": "field", "cells": 1}, "cells is 1"),
        ({"coordinates": "data"}, "no standardiser"),
    ],
)
def test_options_of_two_columns_are_checked(options, words):
    with pytest.raises(InputError, match=words):
        linear().plot(**options)


# --- columns seen through maps, and names that come along


def test_a_density_behind_maps_is_0_where_they_take_nothing():
    flow = sf.Flow(LinearField(torch.zeros(2, 2, dtype=torch.float64)))
    rows = np.c_[np.exp(RNG.normal(size=500)), RNG.beta(2, 3, size=500)]
    flow.standardiser = fit_transformed(rows, {"1": "log", "2": {"logit": [0, 1]}}, None, "rows")
    flow.columns = ("pay", "share")
    image = flow.plot(cells=100, extent=(-1, 15, -0.5, 1.5), n=0).images[0]
    x, y = np.moveaxis(centres_of(image), -1, 0)
    found = np.asarray(image.get_array())
    assert (found[(x <= 0) | (y <= 0) | (y >= 1)] == 0).all()
    assert found.sum() * 16 * 2 / 100**2 == pytest.approx(1, abs=0.03)
    assert flow.plot(kind="samples").get_xlabel() == "pay"
    for kind in ("field", "paths"):  # states between data and noise are no rows of the table
        assert flow.plot(kind=kind).get_xlabel() == "pay (as the flow sees it)"
        with pytest.raises(InputError, match="coordinates='standardised'"):
            flow.plot(kind=kind, coordinates="data")


def test_names_go_where_the_flow_goes(tmp_path):
    flow = sf.Flow(MLPField(2, [8]))
    flow.columns = ("a", "b")
    again = sf.load_file(sf.save(flow, tmp_path / "flow.safetensors"))
    assert again.columns == flow.compact().columns == copy.deepcopy(flow).columns == ("a", "b")
    assert sf.load_file(sf.save(sf.Flow(MLPField(2, [8])), tmp_path / "bare.safetensors")).columns is None
    frame = pd.DataFrame(RNG.normal(size=(60, 2)), columns=["p", "q"])
    fitted = sf.SparseFlowDensity(hidden=(4,), steps=2, keep_ratio=None, random_state=0).fit(frame)
    assert fitted.flow_.plot(cells=4).get_xlabel() == "p"
    del flow.__dict__["columns"]  # pickled by an earlier version
    assert flow.plot(cells=4).get_xlabel() == "column 1"


def test_the_room_gives_its_functions_by_name():
    assert sf.plot.plot_density(linear(), cells=4).images
    with pytest.raises(AttributeError, match="no attribute 'plot_nothing'"):
        _ = sf.plot.plot_nothing
