from __future__ import annotations

import math

import pytest

from analysis.compare.paired import in_family, paired


def test_interval_and_p_by_hand():
    # 0.10, 0.12, 0.14: mean 0.12, deviation 0.02; t(2; 0.975) = 4.3027, and p has a closed form for 2 degrees
    found = paired([0.10, 0.12, 0.14])
    error = 0.02 / math.sqrt(3)
    assert (found.mean, found.se, found.seeds) == (pytest.approx(0.12), pytest.approx(error), 3)
    assert found.half == pytest.approx(4.302653 * error, rel=1e-6)
    t = 0.12 / error
    assert found.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert found.stands is False  # nothing does before its family is known
    (alone,) = in_family([found])
    assert (alone.p_holm, alone.tests, alone.stands) == (found.p, 1, True)
    assert alone.over == "95 % interval over 3 seeds, p = 0.0091"


def test_one_seed_has_its_own_error_and_two_have_no_p():
    one = paired([0.1], 0.02)
    assert (one.se, one.half, one.p, one.over) == (0.02, 0.04, None, "± 2 s.e. of the measurement, one seed")
    assert paired([0.1]).over == "one seed"
    two = paired([0.1, 0.2], 0.02)
    assert (two.p, two.se) == (None, pytest.approx(0.05))
    assert two.over == "95 % interval over 2 seeds"
    assert [one.p_holm for one in in_family([one, two])] == [None, None]


def test_a_family_counts_those_that_are_tested():
    strong, weak, few = paired([1.0, 1.1, 0.9]), paired([1.0, 2.0, 0.1]), paired([1.0, 1.1])
    first, second, third = in_family([strong, weak, few])
    assert (first.tests, third.tests) == (2, 0)
    assert first.p_holm == pytest.approx(2 * strong.p)
    assert second.p_holm == pytest.approx(weak.p)
    assert (first.stands, second.stands, third.stands) == (True, False, False)
    assert "after Holm's correction over 2 tests" in first.over
