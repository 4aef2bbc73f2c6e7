"""What the axes of the other charts show: mode quality, classifiers, tabular sets, spectra, histograms, boundaries."""

import numpy as np
import pytest

from analysis.plots.classifiers.accuracy import classify_figure
from analysis.plots.classifiers.plane import Panel, Row, boundary_figure, trajectories_figure
from analysis.plots.classifiers.weights import weights_figure
from analysis.plots.modes import mode_quality_figure
from analysis.plots.spectrum import spectrum_figure
from analysis.plots.tabular import tabular_figure


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def points_of(axes, marker):
    return [len(line.get_xdata()) for line in axes.lines if line.get_marker() == marker]


@pytest.mark.parametrize("names", [("good_within_2", "good_within_3", "modes_captured"), ("density", "coverage", "sw")])
def test_mode_quality(drawn, names):
    names = tuple("sliced_wasserstein" if name == "sw" else name for name in names)
    arrays = {
        "method": np.array(["dense", "structured", "structured"]),
        "prune_ratio": np.array([0.0, 0.5, 0.9]),
        "dataset": np.array("rings"),
        "se_over": np.array("3 seeds"),
    }
    for name in names:
        arrays |= {name: np.array([0.8, 0.7, 0.6]), f"{name}_se": np.full(3, 0.01)}
        arrays |= {
            f"{name}_data": np.array(0.9),
            f"{name}_data_se": np.array(0.02),
            f"{name}_perfect": np.array(np.nan),
        }
    if "modes_captured" in names:
        arrays |= {"good_within_2_perfect": np.array(0.86), "modes_captured_perfect": np.array(10.0)}
    mode_quality_figure(arrays)
    (figure,) = drawn
    assert len(figure.axes) == 3
    for axes in figure.axes:
        assert axes.get_xscale() == "log"
        assert (points_of(axes, "*"), points_of(axes, "s")) == ([1], [2])
    assert figure.axes[0].get_ylabel() == ("density" if "density" in names else "within 2 sd of a mode (%)")
    assert labels(figure.axes[-1].xaxis)[0] == "0 %"
    assert {"structured", "dense"} <= set(texts(figure.legends[0]))
    assert figure.legends[0].get_title().get_text() == "rings, ± s.e. over 3 seeds"
    if "modes_captured" in names:
        assert figure.axes[-1].get_ylim()[1] > 10


def test_classifiers(drawn):
    arrays = {
        "label": np.array(["dense", "magnitude", "magnitude", "one_shot magnitude", "control dense"]),
        "method": np.array(["dense", "magnitude", "magnitude", "magnitude", "dense"]),
        "protocol": np.array(["cascade", "cascade", "cascade", "one_shot", "control"]),
        "stage": np.array([0, 1, 2, 1, 1]),
        "prune_ratio": np.array([0.0, 0.5, 0.9, 0.5, 0.0]),
        **{"accuracy": np.linspace(0.9, 0.5, 5), "accuracy_se": np.full(5, 0.01)},
        **{"loss": np.array([0.1, 0.2, 2.0, 0.3, 0.1]), "loss_se": np.array([0.01, np.nan, 0.1, 0.01, 0.01])},
        **{"dataset": np.array("moons"), "se_over": np.array("test set"), "seeds": np.array(1)},
    }
    classify_figure(arrays)
    (figure,) = drawn
    accuracy, loss = figure.axes
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("test accuracy (%)", "test loss (nats)")
    assert (accuracy.get_yscale(), loss.get_yscale()) == ("linear", "log")
    assert points_of(accuracy, "o") == [2, 1]
    assert accuracy.lines[-1].get_ydata().tolist() == [50.0]
    lines = {line.get_linestyle() for line in accuracy.lines if line.get_marker() == "o"}
    assert lines == {"-", "--"}  # a protocol each
    assert texts(figure.legends[0]) == ["dense", "magnitude", "one_shot magnitude", "control dense"]
    assert figure.legends[0].get_title().get_text() == "moons, 1 seed, accuracy ± s.e. of the test rows"


def test_tabular_sets(drawn):
    rows = [
        ("wine", "MAF", "published", "", "", 5000.0, 15.0, np.nan, True),
        ("wine", "TAN", "published", "", "", np.nan, 14.0, np.nan, True),
        ("wine", "Gaussian (ours)", "baseline", "", "", 100.0, 16.0, 0.1, True),
        ("wine", "MADE", "published", "", "", 3000.0, 99.0, np.nan, True),
        ("wine", "FFJORD (ours)", "dense", "dense", "nll", 9000.0, 15.5, 0.1, True),
        ("wine", "FFJORD, structured (ours)", "pruned", "structured", "nll", 4000.0, 15.2, 0.1, True),
        ("wine", "FFJORD, structured (ours)", "pruned", "structured", "nll", 1000.0, 15.6, 0.1, False),
    ]
    names = ("dataset", "series", "kind", "method", "objective", "params", "nll", "nll_se", "shown")
    arrays = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    tabular_figure(arrays | {"datasets": np.array(["wine"]), "apart": np.array(["wine"])})
    (figure,) = drawn
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "params", "test NLL (nats)")
    assert axes.get_title(loc="left") == "wine (ours: not the published split)"
    assert axes.get_ylim()[1] < 99
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["↑ MADE 99.00"]
    assert points_of(axes, "*") == [1]
    pruned = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "s"]
    assert [line.get_xdata().tolist() for line in pruned] == [[1000, 4000]]
    assert texts(figure.legends[0]) == [
        "MAF", "TAN (params not given: right edge)", "MADE", "Gaussian (ours)", "FFJORD (ours)",
        "FFJORD, structured (ours)",
    ]  # fmt: skip


def test_spectra(drawn):
    grid = np.linspace(-1, 1, 32)
    stages = [{"grid": grid, "density": np.exp(-(grid**2)), "eigenvalues": np.array(one)} for one in ([], [0.1, 0.5])]
    spectrum_figure(["dense", "PR 50 %"], stages, "a run")
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["dense", "PR 50 %"]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert [points_of(axes, "|") for axes in figure.axes] == [[], [2]]
    assert figure.get_suptitle() == "a run; ticks: the whole spectrum"


def test_histograms_of_weights(drawn):
    counts = np.ones((3, 2, 4), dtype=int)
    arrays = {
        **{"sweep": np.array(["magnitude"] * 3), "stage": np.arange(3), "prune_ratio": np.array([0.0, 0.5, 0.9])},
        **{"accuracy": np.array([0.9, 0.8, np.nan]), "layers": np.array(["first", "second"])},
        **{"weight_edges": np.linspace(-1, 1, 5), "weight_counts": counts},
        **{"norm_edges": np.linspace(0, 2, 5), "norm_counts": counts[:, :1]},
    }
    weights_figure(arrays, "a run")
    (figure,) = drawn
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "dense, accuracy 90.0 %",
        "PR 50 %, accuracy 80.0 %",
        "PR 90 %",
    ]
    assert [len(axes.patches) for axes in figure.axes] == [3, 3, 3, 2, 2, 2]  # the dense network's, and one a layer
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert figure.axes[3].get_xlabel() == "l1 norm of a neuron"
    assert texts(figure.legends[0]) == ["dense network, all layers", "first", "second"]


def test_boundaries_and_paths_of_classifiers(drawn):
    side = np.linspace(0.01, 0.99, 8)
    probabilities = np.stack([np.tile(side, (8, 1)), 1 - np.tile(side, (8, 1))], axis=-1)
    points = np.array([[-1.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    arrays = {
        **{"map_extent": np.array([-2.0, 2.0, -2.0, 2.0]), "probabilities": probabilities, "points": points},
        **{"labels": np.array([0, 1, 1]), "logits": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])},
        **{"paths": np.stack([points, 2 * points]), "paths_clock": np.array([0.0, 1.0])},
    }
    rows = [
        Row("magnitude", [Panel("dense", arrays), Panel("PR 50 %", arrays)]),
        Row("other", [Panel("dense", arrays)]),
    ]
    boundary_figure(rows, "a run")
    trajectories_figure(rows, "a run")
    boundaries, paths = drawn
    for figure in drawn:
        assert [axes.get_title() for axes in figure.axes] == ["dense", "PR 50 %", "dense", ""]
        assert [axes.axison for axes in figure.axes] == [True, True, True, False]
        assert figure.axes[0].get_aspect() == 1
    assert boundaries.axes[0].get_xlim() == (-2, 2)
    shown = [len(one.get_offsets()) for one in boundaries.axes[0].collections if len(one.get_offsets()) < 3]
    assert 1 in shown  # the point that is classified wrong
    assert texts(boundaries.legends[0]) == ["class 0", "class 1", "classified wrong"]
    assert "z(T)" in texts(paths.legends[0])[-1]
