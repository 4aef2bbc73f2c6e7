from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from support.truths import FULL, SPIRAL, normal

from analysis.fields.arrays import field_arrays
from analysis.plots import style
from analysis.plots.fields.densities import density_figure, density_limit, pairs_figure
from analysis.plots.fields.panels import middle_index, panels_figure
from analysis.plots.fields.paths import animation, trajectories_figure
from analysis.plots.fields.plane import Panel
from analysis.plots.fields.streams import field_figure, scale_values
from analysis.runs.groups import evenly
from sparseflows.data.splits import Splits
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.plot.streams import colour_limits

ROTATION = ((0.0, 1.0), (-1.0, 0.0))


def splits_of(dim, truth=False):
    rows = normal(900, dim, dtype=torch.float64).numpy()

    def log_prob(z):
        return -0.5 * (z**2).sum(1) - np.log(2 * np.pi)

    standardiser = Standardiser(np.zeros(dim), np.ones(dim))
    return Splits("normal", rows[:600], rows[600:700], rows[700:], standardiser, log_prob if truth else None)


@pytest.fixture(scope="module")
def plane():
    """A rotation by one radian, which leaves the standard normal as it is; its true density known."""
    flow = Flow(LinearField(torch.tensor(ROTATION)))
    return field_arrays(flow, splits_of(2, truth=True), lambda *_: None, frames=5)


@pytest.fixture(scope="module")
def many():
    """Three columns, one pair of them shown."""
    flow = Flow(LinearField(0.3 * torch.tensor(FULL)))
    return field_arrays(flow, splits_of(3), lambda *_: None, frames=5, pairs=((2, 0),))


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A quarter of the dots: what is tested here is not how fine the figures are."""
    monkeypatch.setattr(style, "DPI", 50)


def few(arrays):
    """The same without most of the times: panels take long to draw."""
    kept = {name: arrays[name][[0, 2]] for name in ("block", "time", "end_time")}
    axis = arrays["velocity"].ndim - 4  # pairs come first
    kept |= {name: arrays[name][[0, 2]] for name in ("sample_divergence", "sample_speed") if name in arrays}
    kept |= {name: np.take(arrays[name], [0, 2], axis=axis) for name in ("velocity", "divergence")}
    return arrays | kept


def size_of(png):
    return struct.unpack(">II", png[16:24])


def inked(png):
    """Share of the pixels that are not white."""
    with Image.open(io.BytesIO(png)) as image:
        return float((np.asarray(image.convert("L")) < 250).mean())


def test_the_arrays_of_a_plane(plane):
    arrays, values = plane.arrays, plane.values
    # Single precision and a tolerance of 1e-3; the window reaches to 3.5 at least.
    assert values["mass_on_grid"] == pytest.approx(1, abs=5e-3)
    assert np.abs(arrays["density"] - arrays["truth"]).max() < 1e-3
    assert bool(arrays["truth_is_known"])
    assert values["max_abs_divergence"] < 1e-6
    assert (values["times"], values["blocks"]) == ([0, 0.25, 0.5, 0.75, 1], [1] * 5)
    assert arrays["velocity"].shape == (5, *arrays["divergence"].shape[1:], 2)
    assert arrays["frames"].shape == (5, 2000, 2)
    turned = torch.linalg.matrix_exp(-torch.tensor(ROTATION)).numpy()
    assert np.allclose(arrays["frames"][-1], arrays["frames"][0] @ turned.T, atol=2e-3)
    assert np.array_equal(arrays["samples"][0], arrays["frames"][-1])
    assert np.array_equal(arrays["paths"][0, 0], arrays["frames"][0, :128])
    # |f| = |z| stays as it is on a path.
    assert values["mean_speed"] == pytest.approx(np.linalg.norm(arrays["paths"][0, 0], axis=-1).mean(), rel=1e-3)


def test_several_blocks_are_told_apart():
    flow = Flow([LinearField(torch.tensor(SPIRAL)), LinearField(-torch.tensor(SPIRAL))])
    found = field_arrays(flow, splits_of(2), lambda *_: None, frames=3)
    assert found.values["times"] == [0, 0.25, 0.5, 0.75, 1] * 2
    assert found.values["blocks"] == [1] * 5 + [2] * 5
    assert found.values["max_abs_divergence"] == pytest.approx(abs(np.trace(SPIRAL)), rel=1e-5)
    # There and back again; in between, it was elsewhere.
    start, half, end = found.arrays["frames"]
    assert np.allclose(start, end, atol=2e-3)
    assert np.abs(start - half).max() > 0.5
    assert middle_index(found.arrays) == 2  # block 1 of 2, t = 0.5


def test_without_a_known_density_the_test_rows_are_counted():
    splits = splits_of(2)
    found = field_arrays(Flow(LinearField(torch.tensor(SPIRAL))), splits, lambda *_: None, frames=2).arrays
    assert not bool(found["truth_is_known"])
    left, right, bottom, top = found["density_extent"]
    area = (right - left) * (top - bottom) / found["truth"].size
    assert found["truth"].sum() * area == pytest.approx(1, rel=1e-5)


def test_the_arrays_of_pairs(many):
    arrays, values = many.arrays, many.values
    assert "mass_on_grid" not in values
    assert values["columns"] == [[3, 1]]
    assert arrays["velocity"].shape == (1, 5, 16, 16, 2)
    assert values["max_abs_divergence"] == pytest.approx(0.3 * np.trace(FULL), rel=1e-5)
    known = np.isfinite(arrays["divergence"])
    assert known.any()
    assert np.allclose(arrays["divergence"][known], 0.3 * np.trace(FULL), rtol=1e-5)
    assert np.array_equal(arrays["frames"][-1], arrays["samples"][0])


def test_equal_seeds_give_equal_arrays(many):
    flow = Flow(LinearField(0.3 * torch.tensor(FULL)))
    pairs = ((2, 0),)
    again = field_arrays(flow, splits_of(3), lambda *_: None, frames=5, pairs=pairs)
    other = field_arrays(flow, splits_of(3), lambda *_: None, seed=1, frames=5, pairs=pairs)
    assert again.values == many.values
    assert all(np.array_equal(again.arrays[n], a, equal_nan=a.dtype.kind == "f") for n, a in many.arrays.items())
    assert not np.array_equal(other.arrays["frames"], many.arrays["frames"])


def test_figures_of_a_plane(plane):
    arrays = few(plane.arrays)
    speed = field_figure(arrays, "title", "speed")
    assert speed["pdf"].startswith(b"%PDF")
    assert size_of(speed["png"])[0] > 250
    assert inked(speed["png"]) > 0.3
    with np.load(io.BytesIO(speed["npz"])) as stored:
        assert np.array_equal(stored["velocity"], arrays["velocity"])
    density = density_figure(arrays, "title", 0.999)
    paths = trajectories_figure(arrays, "title")
    assert paths == trajectories_figure(arrays, "title")  # to the byte
    assert max(len(one) for one in (*speed.values(), *density.values())) < 2**21
    assert len(speed["pdf"]) < 2**20


def test_figures_of_pairs(many):
    for figure in (
        field_figure(few(many.arrays), "title", "divergence"),
        pairs_figure(many.arrays, "title"),
        trajectories_figure(many.arrays, "title"),
    ):
        assert inked(figure["png"]) > 0.01
        assert figure["pdf"].startswith(b"%PDF")
        assert len(figure["pdf"]) < 2**20


def test_panels(plane, many):
    for one, rows in ((plane, 3), (many, 2)):
        columns = [Panel("dense\n8 params", one.arrays), Panel("PR 50 %\n4 params", one.arrays)]
        drawn = panels_figure(columns, "title", "divergence")
        assert inked(drawn["png"]) > 0.01
        with np.load(io.BytesIO(drawn["npz"])) as stored:
            assert stored["stage"].tolist() == ["dense, 8 params", "PR 50 %, 4 params"]
            assert len(stored["velocity"]) == 2
            assert ("density" in stored) == (rows == 3)


def test_the_animation_decodes(plane):
    gif = animation(plane.arrays, "title")
    assert animation(plane.arrays, "title") == gif
    with Image.open(io.BytesIO(gif)) as image:
        assert image.n_frames == 5
        assert image.info["loop"] == 0  # for ever
        durations, corners = [], []
        for frame in range(5):
            image.seek(frame)
            durations.append(image.info["duration"])
            corners.append(image.convert("RGB").getpixel((2, 2)))
        assert durations[-1] >= 10 * durations[1]
        assert set(corners) == {(255, 255, 255)}
    assert len(gif) < 1_500_000


def test_columns_are_chosen_evenly_with_the_last():
    assert evenly(4, 6) == [0, 1, 2, 3]
    assert evenly(0, 6) == []
    assert evenly(60, 6) == [0, 12, 24, 35, 47, 59]
    for stages in range(7, 70):
        chosen = evenly(stages, 6)
        assert len(chosen) == 6
        assert (chosen[0], chosen[-1]) == (0, stages - 1)
        assert np.ptp(np.diff(chosen)) <= 1


def test_colours_are_one_scale_that_one_wild_stage_does_not_take():
    calm = [np.full((20, 20), value) for value in (1.0, -2.0, 3.0)]
    wild = np.full((20, 20), 1e4)
    assert colour_limits([*calm, wild, calm[2]], "divergence") == (-4.5, 4.5)
    low, high = colour_limits([np.stack(calm)], "speed")
    assert low == 0
    assert high == pytest.approx(4.5)
    assert colour_limits([np.full((4, 4), np.nan)], "divergence") == (-1.0, 1.0)
    assert colour_limits([np.full((4, 4), 1e-9)], "divergence") == (-1.0, 1.0)


def test_the_scale_is_that_of_the_samples_not_of_the_corners(plane, many):
    arrays = dict(plane.arrays)
    # |f| = |z| of the noise, whatever the time.
    noise = np.linalg.norm(arrays["frames"][0, :500], axis=-1)
    assert np.allclose(arrays["sample_speed"], noise, rtol=2e-3)
    before = colour_limits([scale_values(arrays, "speed")], "speed")
    arrays["velocity"] = arrays["velocity"] * 1e6
    assert colour_limits([scale_values(arrays, "speed")], "speed") == before
    cells = scale_values(many.arrays, "speed", 2)
    assert np.allclose(np.nanmax(cells), np.nanmax(np.linalg.norm(many.arrays["velocity"][0, 2], axis=-1)))


def test_the_density_scale_ends_at_the_true_peak(plane):
    # The highest cell's centre is within half a cell, 0.04, of the mode.
    assert density_limit(plane.arrays) == pytest.approx(1 / (2 * np.pi), rel=0.01)


def test_the_columns_own_distributions(many, drawn):
    pairs_figure(many.arrays, "title")
    (figure,) = drawn
    data, _, first, second = figure.axes
    assert data.get_title().startswith("data: ")
    assert [axes.get_xlabel() for axes in (first, second)] == ["column 3 (standardised)", "column 1 (standardised)"]
    assert [axes.get_ylabel() for axes in (first, second)] == ["density", "density"]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["data", "flow"]
    assert second.get_legend() is None
    # Each is the density of its rows: where all are within the window, it integrates to 1.
    for axes, side in ((first, 0), (second, 1)):
        low, high = many.arrays["rows_extent"][0].reshape(2, 2)[side]
        for outline, rows in zip(axes.collections[::-1], (many.arrays["rows"], many.arrays["samples"]), strict=True):
            corners = outline.get_paths()[0].vertices
            x, y = corners[:, 0], corners[:, 1]
            area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
            column = rows[0][:, side]
            assert area == pytest.approx(np.mean((column >= low) & (column <= high)), abs=1e-3)


def test_what_the_pictures_of_a_plane_show(plane, drawn):
    arrays = few(plane.arrays)
    field_figure(arrays, "title", "divergence")
    density_figure(arrays, "title", 0.999)
    trajectories_figure(arrays, "title")
    field, density, paths = drawn
    assert [axes.get_title() for axes in field.axes[:2]] == ["t = 0 (data)", "t = 0.5"]
    assert field.axes[-1].get_ylabel().startswith("divergence")  # of the colour bar
    assert [axes.get_title() for axes in density.axes[:2]] == [
        "the true density", "the flow's density (mass in the window 0.999)"
    ]  # fmt: skip
    assert [axes.get_xlabel() for axes in density.axes[:2]] == ["z₁ (standardised)"] * 2
    for figure in drawn:
        assert figure.axes[0].get_aspect() == 1
        assert figure.axes[0].images or figure.axes[0].collections
    assert [text.get_text() for text in paths.legends[0].get_texts()] == ["noise, z(T)", "sample, x = z(0)"]


@pytest.mark.parametrize(
    ("names", "pairs", "labels"),
    [(("pay", "size", "age"), ((2, 0), (1, 2)), [("age", "pay"), ("size", "age")]), (("x", "y"), None, [("x", "y")])],
)
def test_columns_with_names_are_shown_by_them(names, pairs, labels, drawn):
    dim = len(names)
    flow = Flow(LinearField(0.3 * torch.tensor(FULL if dim == 3 else SPIRAL)))
    flow.columns = names
    arrays = few(field_arrays(flow, splits_of(dim), lambda *_: None, frames=2, pairs=pairs).arrays)
    files = {
        "field": field_figure(arrays, "title", "divergence"),
        "paths": trajectories_figure(arrays, "title"),
        "panels": panels_figure([Panel("a", arrays), Panel("b", arrays)], "title", "divergence"),
        "own": density_figure(arrays, "title", 1.0) if dim == 2 else pairs_figure(arrays, "title"),
    }
    wanted = {f"{name} (standardised)" for name in names}
    for figure in drawn:
        shown = {text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())}
        assert {text for text in shown if "standardised" in text} <= wanted
    assert drawn[1].axes[0].get_xlabel() == f"{labels[0][0]} (standardised)"
    assert drawn[1].axes[0].get_ylabel() == f"{labels[0][1]} (standardised)"
    for name, several in files.items():
        kept = np.load(io.BytesIO(several["npz"]))["names"].tolist()
        assert kept == (list(labels[0]) if name == "panels" else [list(pair) for pair in labels])
