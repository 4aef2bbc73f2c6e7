from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.compare.stats import by_chance, holm, t_test


def two_sided(t: float, freedom: int) -> float:
    """P(|T| > t) in closed form, for 2 and for 4 degrees of freedom."""
    if freedom == 2:
        return 1 - t / math.sqrt(t**2 + 2)
    w = 1 + t**2 / 4
    return 1 - 0.75 * t / math.sqrt(w) * (1 - t**2 / (12 * w))


def naive_holm(p_values: list[float], level: float) -> list[bool]:
    """Step down as Holm describes it: reject the smallest while it is at most level / (tests left)."""
    rejected = [False] * len(p_values)
    left = list(range(len(p_values)))
    while left:
        smallest = min(left, key=lambda place: p_values[place])
        if p_values[smallest] > level / len(left):
            break
        rejected[smallest] = True
        left.remove(smallest)
    return rejected


def test_p_in_closed_form():
    # 0.10, 0.12, 0.14: mean 0.12, deviation 0.02
    assert t_test([0.10, 0.12, 0.14]) == pytest.approx(two_sided(0.12 / (0.02 / math.sqrt(3)), 2), rel=1e-9)
    # -2, -1, 0, 1, 7: mean 1, squares 9 + 4 + 1 + 0 + 36 = 50, variance 12.5
    assert t_test([-2.0, -1.0, 0.0, 1.0, 7.0]) == pytest.approx(two_sided(1 / math.sqrt(12.5 / 5), 4), rel=1e-9)
    assert t_test([2.0, 1.0, 0.0, -1.0, -7.0]) == t_test([-2.0, -1.0, 0.0, 1.0, 7.0])


def test_no_p_below_three_pairs_and_none_without_spread():
    assert t_test([]) is None
    assert t_test([1.0, 2.0]) is None
    assert t_test([0.5, 0.5, 0.5]) == 0.0
    assert t_test([0.0, 0.0, 0.0]) == 1.0


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 gives 0.04, 0.06, 0.06, 0.5
    assert holm([0.5, 0.03, 0.01, 0.02]) == pytest.approx([0.5, 0.06, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_holm_against_the_naive_procedure(seed):
    rng = np.random.default_rng(seed)
    p_values = [float(p) for p in np.round(rng.uniform(size=12) ** 4, 2 if seed % 2 else 12)]  # odd seeds have ties
    for level in (0.01, 0.05, 0.2):
        assert [p <= level for p in holm(p_values)] == naive_holm(p_values, level)


def test_holm_keeps_the_family_where_nothing_differs():
    rng = np.random.default_rng(0)
    trials = 2000
    wrong = sum(min(holm([float(p) for p in rng.uniform(size=10)])) <= 0.05 for _ in range(trials))
    assert 0.02 < wrong / trials < 0.07  # 1 - (1 - 0.005)^10 = 0.049, and four standard errors of 0.005


def test_what_chance_would_show():
    assert by_chance([3]) == pytest.approx(two_sided(2.0, 2), rel=1e-9)
    assert by_chance([5, 5, 3]) == pytest.approx(2 * two_sided(2.0, 4) + two_sided(2.0, 2), rel=1e-9)
    draws = np.random.default_rng(1).normal(size=(20_000, 5))
    beyond = np.abs(draws.mean(axis=1)) > 2 * draws.std(axis=1, ddof=1) / math.sqrt(5)
    assert by_chance([5]) == pytest.approx(beyond.mean(), abs=0.01)  # four standard errors of 0.0023
