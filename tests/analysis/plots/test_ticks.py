"""Ticks of logarithmic axes, and their labels."""

import pytest

from analysis.plots.ticks import count_label, count_ticks, ratio_ticks


def test_count_labels():
    counts = [200, 500, 1000, 1500, 20_000, 2_000_000, 3e9]
    assert [count_label(count) for count in counts] == ["200", "500", "1k", "1.5k", "20k", "2M", "3G"]


def test_ticks_of_a_usual_cascade():
    assert count_ticks(170, 10_100) == [200, 500, 1000, 2000, 5000, 10_000]
    assert ratio_ticks(8642, 190, 9200) == [0, 0.5, 0.75, 0.9, 0.95, 0.975]
    assert count_ticks(6100, 9200) == [7000, 8000, 9000]


@pytest.mark.parametrize("low", [1.0, 7.0, 123.0, 8153.0, 5e6])
@pytest.mark.parametrize("factor", [1.1, 1.5, 3.0, 20.0, 1e3, 1e5])
def test_ticks_are_few_inside_and_rising(low, factor):
    ticks = count_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 13
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor * (1 + 1e-12) for tick in ticks)
    assert all(low <= low * factor * (1 - ratio) for ratio in ratio_ticks(low * factor, low, low * factor))


def test_ticks_need_an_interval():
    with pytest.raises(ValueError, match="log axis"):
        count_ticks(0, 10)
