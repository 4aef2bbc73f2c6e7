"""What charts share: axes and lines."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis.plots.axes import draw_means, kept, params_axis, ratio_axis, spread_axis
from analysis.plots.looks import look
from analysis.plots.ticks import spaced


@pytest.fixture
def axes():
    return Figure().add_subplot()


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize(
    ("ratios", "named"),
    [
        ([0, 0.5, 0.9, 0.99], ["0 %", "90 %", "99 %"]),
        ([0, 0.5, 0.75], ["0 %", "50 %", "75 %"]),
        ([0.0], ["0 %"]),
        ([], ["0 %"]),
        ([0, np.nan, 1.0], ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]),
    ],
)
def test_round_ratios_on_the_axis(axes, ratios, named):
    ratio_axis(axes, np.array(ratios, dtype=float))
    assert set(named) <= set(labels(axes.xaxis))
    left, right = axes.get_xlim()
    assert left > right
    for ratio in (one for one in ratios if np.isfinite(one)):
        assert left > kept(np.array(ratio)) > right


def test_ratios_themselves_on_the_axis_without_those_that_overlap(axes):
    ratio_axis(axes, np.array([0.5, 0.504, 0.8, 0.95]), room=0.1)
    assert labels(axes.xaxis) == ["95 %", "80 %", "50.4 %"]


def test_ticks_are_apart():
    assert spaced([1, 1.5, 2, 4, 5], np.log(2)) == [1, 2, 4]


def test_an_axis_of_params_is_wider_than_they_are(axes):
    low, high = params_axis(axes, 100, 10_000, 1.25)
    assert (low, high) == axes.get_xlim() == (80, 12_500)
    assert labels(axes.xaxis) == ["100", "200", "500", "1k", "2k", "5k", "10k"]


@pytest.mark.parametrize(
    ("values", "errors", "scale"),
    [
        ([1.0, 7.9], [0.1, 0.1], "linear"),
        ([1.0, 8.1], [0.1, 0.1], "log"),
        ([1.0, 8.1], [np.nan, np.nan], "log"),
        ([-1.0, 30.0], [0.1, 0.1], "symlog"),
        ([0.0, 30.0], [np.nan, np.nan], "symlog"),
        ([], [], "linear"),
    ],
)
def test_values_far_apart_are_on_a_logarithmic_axis(axes, values, errors, scale):
    axes.plot(range(len(values)), values)
    spread_axis(axes, np.arange(len(values)), np.array(values), np.array(errors))
    assert axes.get_yscale() == scale
    if scale != "linear":
        low, high = axes.get_ylim()
        assert low < min(values)
        assert high > max(values)
        assert len(labels(axes.yaxis)) >= 2


def test_a_line_has_bars_where_errors_are_known_and_leaves_unknown_means_out(axes):
    x, means, errors = np.array([3.0, 1.0, 2.0]), np.array([30.0, 10.0, np.nan]), np.array([1.0, np.nan, 1.0])
    draw_means(axes, x, means, errors, look("magnitude"))
    line = axes.lines[-1]
    assert line.get_xdata().tolist() == [1, 3]
    assert line.get_ydata().tolist() == [10, 30]
    (bars,) = axes.containers[0].lines[2]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[3, 29], [3, 31]]]
