from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from support.compare_rows import classifier_of, failed_of, run_of, series, stage_of

from analysis.compare.compare import compare
from analysis.compare.notes import notes, nothing_to_compare
from analysis.compare.types import KINDS, PROTOCOLS
from analysis.compare.words import verdicts
from sparseflows.specs import choices
from sparseflows.specs.methods import METHODS


def comparison_of(*groups):
    (found,) = compare(run_of(*groups))
    return found


def difference_of(found, protocol, method, stage, against):
    (one,) = [
        one
        for one in found.differences
        if (one.protocol, one.method, one.stage, one.against) == (protocol, method, stage, against)
    ]
    return one


def questions(found):
    return {(one.protocol, one.method, one.stage, one.against) for one in found.differences}


SNIP = series("cascade", "snip", 1, [0.20, 0.25, 0.30])
RANDOM = series("cascade", "random_weights", 1, [0.30, 0.37, 0.44])
CONTROL = series("control", "dense", 1, [0.10, 0.16, 0.19])
REDUCED = series("reduced", "dense", 1, [0.20, 0.25, 0.30])
DENSE = series("cascade", "dense", 0, [0.15, 0.20, 0.25])


def test_paired_difference_by_hand():
    found = comparison_of(DENSE, SNIP, RANDOM, CONTROL, REDUCED)
    one = difference_of(found, "cascade", "snip", 1, "random")
    # 0.10, 0.12, 0.14 better: mean 0.12, deviation 0.02; unpaired, the error would be 0.05
    assert one.difference.value == pytest.approx(0.12)
    assert one.difference.se == pytest.approx(0.02 / math.sqrt(3))
    assert (one.pairs, one.verdict, one.other_protocol, one.other_method) == (3, "beats", "cascade", "random_weights")
    assert (one.value, one.other_value) == (pytest.approx(0.25), pytest.approx(0.37))
    t = 0.12 / (0.02 / math.sqrt(3))
    assert one.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # closed form for 2 degrees of freedom

    worse = difference_of(found, "cascade", "snip", 1, "control")
    # 0.10, 0.09, 0.11 worse
    assert worse.difference.value == pytest.approx(-0.10)
    assert worse.difference.se == pytest.approx(0.01 / math.sqrt(3))
    assert worse.verdict == "loses"

    same = difference_of(found, "cascade", "snip", 1, "reduced")
    assert (same.difference.value, same.difference.se, same.p, same.verdict) == (0.0, 0.0, 1.0, "no difference shown")


def test_which_questions_are_asked():
    found = comparison_of(
        *(DENSE, SNIP, RANDOM, CONTROL, REDUCED),
        *(series(protocol, "snip", 1, [0.4, 0.5, 0.6]) for protocol in ("one_shot", "gradual", "scratch", "rewind")),
        series("scratch", "random_weights", 1, [0.5, 0.6, 0.6]),
    )
    expected = {("cascade", "snip", 1, against) for against in ("random", "control", "reduced")} | {
        ("cascade", "random_weights", 1, against) for against in ("control", "reduced")
    }
    expected |= {
        (protocol, "snip", 1, against)
        for protocol in ("gradual", "scratch", "rewind")
        for against in ("control", "reduced", "cascade")
    }
    expected |= {("scratch", "random_weights", 1, against) for against in ("control", "reduced", "cascade")}
    expected |= {("scratch", "snip", 1, "random")}
    expected |= {("one_shot", "snip", 1, against) for against in ("dense", "reduced", "cascade")}
    assert questions(found) == expected
    assert difference_of(found, "one_shot", "snip", 1, "dense").other_value == pytest.approx(0.20)


@pytest.mark.parametrize(
    ("method", "other"),
    [
        *((name, "random_weights") for name in ("unstructured", "magnitude", "sipp", "sipp_hybrid", "fisher_weights")),
        *((name, "random_neurons") for name in ("structured", "neuron_l2", "pfp", "fisher_neurons", "taylor")),
    ],
)
def test_random_is_of_the_same_kind(method, other):
    randoms = [series("cascade", name, 1, [0.5, 0.5, 0.5]) for name in ("random_weights", "random_neurons")]
    found = comparison_of(series("cascade", method, 1, [0.1, 0.2, 0.3]), *randoms)
    assert [one.other_method for one in found.differences] == [other]


def test_every_method_and_protocol_of_a_param_file_is_known():
    assert {name: method.kind for name, method in METHODS.items()} == KINDS
    assert {*PROTOCOLS, "control", "reduced"} == set(choices.PROTOCOLS)


def test_means_of_every_stage():
    found = comparison_of(DENSE, SNIP, CONTROL)
    snip = next(one for one in found.stages if one.method == "snip")
    assert (snip.value.value, snip.value.se) == (pytest.approx(0.25), pytest.approx(0.05 / math.sqrt(3)))
    assert (snip.prune_ratio.value, snip.prune_ratio.se, snip.params) == (pytest.approx(0.5), pytest.approx(0), 500)
    assert snip.validation == pytest.approx(0.75)
    control = next(one for one in found.stages if one.protocol == "control")
    assert (control.keep_ratio_target, control.prune_ratio.value) == (0.5, 0.0)


def test_failed_seeds_enter_no_mean_and_no_pair():
    snip = [*SNIP[:2], failed_of("cascade", "snip", 2, 1), stage_of("cascade", "snip", 3, 1, 0.1)]
    found = comparison_of(snip, [*RANDOM, stage_of("cascade", "random_weights", 4, 1, 9.0)])
    one = difference_of(found, "cascade", "snip", 1, "random")
    assert one.seeds == (0, 1)
    assert one.difference.value == pytest.approx(0.11)  # 0.10, 0.12
    assert (one.verdict, one.p, one.p_holm) == ("too few pairs", None, None)
    mean = next(stage for stage in found.stages if stage.method == "snip")
    assert mean.seeds == (0, 1, 3)
    assert mean.value.value == pytest.approx((0.20 + 0.25 + 0.1) / 3)
    assert "left out: cascade snip stage 1 seed 2: underflow in dt" in notes(found)


def test_a_done_stage_without_a_number_is_left_out():
    # what a run writes for a NaN is an empty cell
    found = comparison_of([*SNIP[:2], stage_of("cascade", "snip", 2, 1, None)], RANDOM)
    assert difference_of(found, "cascade", "snip", 1, "random").seeds == (0, 1)
    assert "left out: cascade snip stage 1 seed 2: no KL gap was recorded" in notes(found)


def test_the_order_of_the_rows_does_not_matter():
    rows = [*DENSE, *SNIP, *RANDOM, *CONTROL, *REDUCED]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert comparison_of(shuffled).differences == comparison_of(rows).differences
    assert comparison_of(shuffled).stages == comparison_of(rows).stages


def test_one_seed_has_no_error_and_no_verdict():
    found = comparison_of(SNIP[:1], RANDOM[:1])
    (one,) = found.differences
    assert one.difference.value == pytest.approx(0.1)
    assert (one.difference.se, one.p, one.verdict, one.survives) == (None, None, "too few pairs", False)


def test_kl_gap_then_nll_then_accuracy():
    assert comparison_of(SNIP, RANDOM).quantity.column == "kl_gap"
    rows = [
        series(one, two, 1, [0.1, 0.2, 0.4], kl_gap=None) for one, two in (("cascade", "snip"), ("control", "dense"))
    ]
    assert comparison_of(*rows).quantity.column == "nll_test"


def test_classifiers_are_compared_in_points_of_accuracy():
    snip = [classifier_of("cascade", "snip", seed, 1, value) for seed, value in enumerate((0.97, 0.96, 0.98))]
    blind = [
        classifier_of("cascade", "random_weights", seed, 1, value) for seed, value in enumerate((0.95, 0.93, 0.94))
    ]
    found = comparison_of(snip, blind)
    assert (found.quantity.column, found.quantity.unit) == ("accuracy_test", "points")
    one = difference_of(found, "cascade", "snip", 1, "random")
    assert one.difference.value == pytest.approx(3.0)  # 2, 3, 4 points: higher is better
    assert one.difference.se == pytest.approx(1 / math.sqrt(3))
    assert one.verdict == "beats"
    assert found.best.validation == pytest.approx(0.03)


@pytest.mark.parametrize(("apart", "verdict"), [(1.01, "beats"), (0.99, "no difference shown")])
def test_the_adjusted_p_decides_by_a_hair(apart, verdict):
    # m - 1, m, m + 1 better: s.e. 1/√3, so p = 0.05 at m = 4.3027/√3, the 97.5 % point of t with 2 degrees of freedom
    mean = apart * 4.302653 / math.sqrt(3)
    control = series("control", "dense", 1, [gap + mean + k for k, gap in enumerate([-0.80, 0.25, 1.30], start=-1)])
    pruned = series("cascade", "snip", 1, [-0.80, 0.25, 1.30])
    one = difference_of(comparison_of(pruned, control), "cascade", "snip", 1, "control")
    assert (one.verdict, one.p <= 0.05) == (verdict, verdict == "beats")
    # a second test of the same question asks twice as much, one of another question does not
    again = difference_of(comparison_of(pruned, control, RANDOM), "cascade", "snip", 1, "control")
    assert (again.p_holm, again.verdict) == (pytest.approx(2 * one.p), "no difference shown")
    reduced = series("reduced", "dense", 1, [9.0, 10.0, 12.0])
    assert difference_of(comparison_of(pruned, control, reduced), "cascade", "snip", 1, "control").verdict == verdict


def test_two_standard_errors_of_three_seeds_are_no_verdict():
    found = comparison_of(SNIP, series("control", "dense", 1, [1.20, 1.25, 4.20]))  # 1, 1, 3.9 better: p = 0.18
    one = difference_of(found, "cascade", "snip", 1, "control")
    assert one.difference.beyond_error
    assert (one.verdict, one.survives) == ("no difference shown", False)


@pytest.mark.parametrize(("steps", "verdict"), [(1515, "loses"), (1516, "not testable here"), (None, "loses")])
def test_a_control_that_trained_for_another_time_is_none(steps, verdict):
    control = series("control", "dense", 1, [0.10, 0.16, 0.19], steps_total=steps)
    found = comparison_of([replace(stage, steps_total=1500) for stage in SNIP], control)
    assert difference_of(found, "cascade", "snip", 1, "control").verdict == verdict
    (said,) = verdicts(found)
    assert (said.loses, said.untestable) == ((1, 0) if verdict == "loses" else (0, 1))
    assert ("did not train for as long, so not testable here" in said.sentence) == (said.untestable == 1)
    assert ("loses" in said.sentence) == (said.loses == 1)


def test_holm_is_over_the_comparisons_of_one_question_with_three_pairs():
    late = [failed_of("cascade", "snip", 0, 2), *series("cascade", "snip", 2, [0.1, 0.2, 0.3])[1:]]
    control = series("control", "dense", 1, [0.15, 0.15, 0.10])  # 0.05, 0.10, 0.20 better: 2.6 s.e.
    found = comparison_of(SNIP, RANDOM, control, late, series("control", "dense", 2, [0.1, 0.3, 0.3]))
    tested = [one for one in found.differences if one.p is not None]
    assert len(found.differences) == 4
    assert [one.against for one in tested] == ["random", "control", "control"]
    random, *controls = tested
    assert random.p_holm == pytest.approx(random.p)
    assert min(one.p_holm for one in controls) == pytest.approx(2 * min(one.p for one in controls))
    assert [one.p_holm for one in found.differences if one.p is None] == [None]
    assert [one.verdict for one in tested] == ["beats", *["no difference shown"] * 2]
    assert [one.survives for one in tested] == [True, False, False]


def test_the_best_is_chosen_on_validation_among_stages_of_all_seeds():
    good = series("cascade", "snip", 2, [0.1, 0.1, 0.1], nll_val=0.9)
    better = series("cascade", "magnitude", 1, [0.4, 0.4, 0.4], nll_val=0.8)
    lucky = [
        failed_of("cascade", "magnitude", 0, 2),
        *series("cascade", "magnitude", 2, [9, 0.1, 0.1], nll_val=0.1)[1:],
    ]
    dense = series("control", "dense", 1, [0.1, 0.1, 0.1], nll_val=0.0)
    best = comparison_of(good, better, lucky, dense).best
    assert (best.method, best.stage) == ("magnitude", 1)
    blind = comparison_of(series("cascade", "snip", 1, [0.1, 0.2, 0.3], nll_val=None), dense)
    assert blind.best is None


def test_a_row_without_a_protocol_is_of_the_cascade():
    found = comparison_of(series(None, "snip", 1, [0.1, 0.2, 0.3]), RANDOM)
    assert questions(found) == {("cascade", "snip", 1, "random")}


def test_one_comparison_for_each_data_set():
    other = [series("cascade", method, 1, [0.1, 0.2, 0.4], dataset="moons") for method in ("snip", "random_weights")]
    found = compare(run_of(SNIP, RANDOM, *other))
    assert [(one.dataset, len(one.differences)) for one in found] == [("rings", 1), ("moons", 1)]


def test_unequal_params_are_told_but_not_of_control():
    found = comparison_of(series("cascade", "snip", 1, [0.1, 0.2, 0.3], params=511), RANDOM, CONTROL)
    assert "unequal params: cascade snip against random (stage 1, by up to 1.1 % of dense)" in notes(found)
    close = comparison_of(series("cascade", "snip", 1, [0.1, 0.2, 0.3], params=510), RANDOM, CONTROL)
    assert not any("unequal params" in line for line in notes(close))


def test_unequal_steps_are_told_where_they_are_known():
    unknown = "training steps are not known (results.csv has no steps_total), so unequal training would not show"
    assert unknown in notes(comparison_of(SNIP, RANDOM))
    rows = [
        series("cascade", "snip", 1, [0.1, 0.2, 0.3], steps_total=1500),
        series("cascade", "random_weights", 1, [0.1, 0.2, 0.3], steps_total=1500),
        series("one_shot", "snip", 1, [0.1, 0.2, 0.3], steps_total=1000),
        series("control", "dense", 1, [0.1, 0.2, 0.3], steps_total=1515),
    ]
    told = notes(comparison_of(*rows))
    assert unknown not in told
    assert "unequal training steps: one_shot against cascade (stage 1: 1,000 against 1,500)" in told
    rows[-1] = series("control", "dense", 1, [0.1, 0.2, 0.3], steps_total=2000)
    assert "cascade against control (stage 1: 1,500 against 2,000)" in " ".join(notes(comparison_of(*rows)))


def test_what_is_missing_is_told_with_its_setting():
    told = notes(comparison_of(series("one_shot", "taylor", 1, [0.1, 0.2, 0.3]), SNIP, DENSE))
    assert "not compared: weights with random_weights (add random_weights to prune.methods)" in told
    assert "not compared: neurons with random_neurons (add random_neurons to prune.methods)" in told
    assert any(line.endswith("(add control to prune.protocols)") for line in told)
    assert any(line.endswith("(add reduced to prune.protocols)") for line in told)
    assert not any(line.startswith("not compared") for line in notes(comparison_of(SNIP, RANDOM, CONTROL, REDUCED)))
    mine = notes(comparison_of(series("cascade", "mine", 1, [0.1, 0.2, 0.3]), CONTROL))
    assert any(line.startswith("not compared: mine with random") for line in mine)


def test_stages_that_share_no_seed_are_told():
    apart = [stage_of("cascade", "random_weights", seed, 1, 0.5) for seed in (7, 8, 9)]
    found = comparison_of(SNIP, apart, CONTROL)
    assert (
        "no seed is done for both: cascade snip against random (stage 1); cascade random_weights against control "
        "(stage 1)" in notes(found)
    )


def test_nothing_to_compare_says_what_would_help():
    assert "set prune.methods" in nothing_to_compare(comparison_of(DENSE))
    told = nothing_to_compare(comparison_of(DENSE, SNIP))
    for remedy in ("add random_weights to prune.methods", "add control to prune.protocols", "add reduced"):
        assert remedy in told
    apart = [stage_of(one, two, 7, 1, 0.5) for one, two in (("cascade", "random_weights"), ("control", "dense"))]
    apart += [stage_of("reduced", "dense", 8, 1, 0.5)]
    lonely = [stage_of("cascade", "snip", 0, 1, 0.5), failed_of("cascade", "random_weights", 0, 1)]
    assert nothing_to_compare(comparison_of(lonely, apart)) is None  # random against control has a pair
    assert "no seed has finished" in nothing_to_compare(comparison_of(lonely, apart[1:]))
    assert nothing_to_compare(comparison_of(SNIP, RANDOM)) is None
