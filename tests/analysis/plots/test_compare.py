"""The figure of `compare`: what its axes show."""

import pytest
from support.compare_rows import run_of, series

from analysis.compare.compare import compare
from analysis.plots.compare import compare_arrays, compare_figure


def axes_of(drawn, factor, kept=(0.5, 0.25, 0.1)):
    """The upper panel of a cascade whose last stage is `factor` times as far from the truth as its first."""
    gap = 0.02
    groups = [series("cascade", "dense", 0, [gap, gap * 1.1])]
    for stage in range(1, len(kept) + 1):
        value = gap * factor ** ((stage - 1) / (len(kept) - 1))
        groups.append(series("cascade", "magnitude", stage, [value, value * 1.05]))
        groups.append(series("cascade", "random_weights", stage, [value * 1.5, value * 1.6]))
    compare_figure(compare_arrays(compare(run_of(*groups))[0]))
    (figure,) = drawn
    return figure.axes[0]


@pytest.mark.parametrize(("factor", "scale"), [(2, "linear"), (5, "linear"), (20, "log"), (40, "log")])
def test_stages_that_differ_eightfold_are_drawn_on_a_logarithmic_axis(drawn, factor, scale):
    assert axes_of(drawn, factor).get_yscale() == scale


def test_what_differs_forty_times_is_drawn_and_what_is_off_the_scale_is_counted(drawn):
    points = [line for line in axes_of(drawn, 40).lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in points] == [3]
    assert "off the scale" not in drawn[0].legends[0].get_title().get_text()
    drawn.clear()
    axes_of(drawn, 4000)
    assert "off the scale" in drawn[0].legends[0].get_title().get_text()


def test_prune_ratios_are_named_and_pruned_more_is_further_right(drawn):
    axes = axes_of(drawn, 2)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["90 %", "80 %", "50 %"]
    left, right = axes.get_xlim()
    assert left > 0.5 > 0.1 > right
    upper, lower = drawn[0].axes
    assert (upper.get_title(loc="left"), upper.get_ylabel()) == ("cascade", "KL gap (nats)")
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "prune ratio")
    assert lower.get_ylabel().startswith("better than random")
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["magnitude", "random_weights", "dense"]


def test_values_on_both_sides_of_zero_have_an_axis_for_both(drawn):
    groups = [series("cascade", "dense", 0, [0.02, 0.022])]
    for stage, (own, random) in enumerate([(0.02, 0.03), (0.4, 0.1), (2.0, 0.5)], start=1):
        groups.append(series("cascade", "magnitude", stage, [own, own * 1.05]))
        groups.append(series("cascade", "random_weights", stage, [random, random * 1.02]))
    compare_figure(compare_arrays(compare(run_of(*groups))[0]))
    lower = drawn[0].axes[1]
    assert lower.get_yscale() == "symlog"
    labels = [label.get_text() for label in lower.get_yticklabels()]
    assert "0" in labels
    assert any(label.startswith("-") for label in labels)
