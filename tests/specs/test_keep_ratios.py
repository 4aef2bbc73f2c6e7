"""Keep-ratio sequences: written out, written short, refused."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflows.specs.keep_ratios import MAX_STAGES, expand_keep_ratios

# Twenty keep ratios from 0.80 to 0.20 in equal steps of their logarithm, then nine from 0.18 to 0.02.
PUBLISHED = [{"geometric": [0.80, 0.20, 20]}, {"linear": [0.18, 0.02, 9]}]


def refusal(value):
    with pytest.raises(ValueError, match="keep_ratios") as caught:
        expand_keep_ratios(value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_published_sequence():
    ratios = expand_keep_ratios(PUBLISHED)
    assert len(ratios) == 29
    assert ratios == sorted(set(ratios), reverse=True)
    assert [ratios[0], ratios[19], ratios[20], ratios[28]] == [0.8, 0.2, 0.18, 0.02]
    factors = [b / a for a, b in pairwise(ratios[:20])]
    assert factors == pytest.approx([(0.2 / 0.8) ** (1 / 19)] * 19, rel=1e-5)  # six decimals are kept
    assert ratios[20:] == pytest.approx([0.18, 0.16, 0.14, 0.12, 0.1, 0.08, 0.06, 0.04, 0.02], abs=1e-12)


def test_plain_numbers_and_runs_mix():
    assert expand_keep_ratios([0.9, {"linear": [0.8, 0.6, 3]}, 0.5]) == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert expand_keep_ratios([{"geometric": [0.8, 0.2, 3]}]) == [0.8, 0.4, 0.2]
    assert expand_keep_ratios([{"linear": [0.5, 0.25, 2]}]) == [0.5, 0.25]
    assert expand_keep_ratios([]) == []
    assert len(expand_keep_ratios([{"linear": [0.999, 0.001, MAX_STAGES]}])) == MAX_STAGES


@given(st.lists(st.floats(1e-6, 1, exclude_max=True), unique=True, max_size=20))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_falls_is_taken_and_what_does_not_is_not(ratios):
    falling = sorted(ratios, reverse=True)
    assert expand_keep_ratios(falling) == falling
    if ratios != falling:
        assert "must fall" in refusal(ratios)


def test_anything_but_a_list():
    for value in [None, 0.5, "0.5", {"geometric": [0.8, 0.2, 3]}, (0.8, 0.5), True]:
        assert refusal(value).startswith("keep_ratios is a list, for example [0.8, 0.5]")


def test_ratios_outside_the_open_interval():
    for ratio in [0, 1, 0.0, 1.0, -0.5, 1.5, 25, float("nan"), float("inf"), 10**400, -(10**400)]:
        message = refusal([0.9, ratio])
        assert message.startswith("keep_ratios lie strictly between 0 and 1 (the share that is kept), not ")
        assert len(message) < 120


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([0.5, 0.5], "0.5 follows 0.5"),
        ([0.2, 0.8], "0.8 follows 0.2"),
        ([0.9, {"linear": [0.95, 0.5, 4]}], "0.95 follows 0.9"),
        ([{"geometric": [0.8, 0.2, 3]}, {"linear": [0.2, 0.1, 2]}], "0.2 follows 0.2"),
    ],
)
def test_ratios_that_do_not_fall(ratios, words):
    assert refusal(ratios) == f"keep_ratios must fall (the share that is kept): {words}"


def test_items_that_are_neither_numbers_nor_runs():
    for item in [
        *(None, "0.5", True, False, [0.5], {}, {"quadratic": [0.8, 0.2, 3]}, {"linear": [0.8, 0.2]}, {"linear": 3}),
        {"linear": [0.8, 0.2, 3], "geometric": [0.8, 0.2, 3]},
    ]:
        message = refusal([item])
        assert "is neither a number nor {geometric: [first, last, count]} nor {linear: [first, last, count]}" in message


@pytest.mark.parametrize("kind", ["geometric", "linear"])
def test_runs_of_the_wrong_types(kind):
    for run in (["0.8", 0.2, 3], [0.8, None, 3], [0.8, 0.2, 3.0], [0.8, 0.2, True], [True, 0.2, 3]):
        message = refusal([{kind: run}])
        assert message == f"keep_ratios: {kind} takes [first, last, count], two numbers and a whole number"


def test_runs_out_of_bounds():
    for run in [
        *([0.2, 0.8, 3], [0.8, 0.8, 3], [1, 0.2, 3], [0.8, 0, 3], [0.8, -0.1, 3], [1.8, 0.2, 3]),
        *([0.8, 0.2, 1], [0.8, 0.2, 0], [0.8, 0.2, -3], [0.8, 0.2, MAX_STAGES + 1], [0.8, 0.2, 10**300]),
        *([float("nan"), 0.2, 3], [0.8, float("nan"), 3]),
    ]:
        message = refusal([{"linear": run}])
        assert "must have 1 > first > last > 0 and 2 ≤ count ≤ 1000" in message
        assert len(message) < 150


def test_too_many_stages():
    many = [{"linear": [0.9, 0.5, 600]}, {"linear": [0.4, 0.1, 600]}]
    assert refusal(many) == f"keep_ratios: at most {MAX_STAGES} stages, not 1200"


def test_a_run_too_close_to_tell_apart_does_not_fall():
    assert "must fall" in refusal([{"linear": [0.5, 0.4999999, 3]}])  # six decimals
