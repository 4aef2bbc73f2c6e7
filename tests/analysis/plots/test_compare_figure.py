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
