from __future__ import annotations

import pytest
from support.compare_rows import classifier_of, failed_of, run_of, series, stage_of

from analysis.compare.compare import compare
from analysis.compare.words import amount, headlines, ratio, verdicts
from analysis.tables.numbers import Mean

RANDOM = [series("cascade", "random_weights", stage, [0.50, 0.60, 0.70]) for stage in (1, 2, 3)]


def comparison_of(*groups):
    (found,) = compare(run_of(*groups))
    return found


def sentences_of(*groups):
    return [one.sentence for one in verdicts(comparison_of(*groups))]


@pytest.mark.parametrize(
    ("value", "se", "shown"),
    [
        (0.1234, 0.0234, "0.12 ± 0.02"),
        (0.1234, 0.0134, "0.123 ± 0.013"),  # two digits of an error that starts with a 1
        (-0.001, 0.03, "0.00 ± 0.03"),
        (-0.04, 0.03, "-0.04 ± 0.03"),
        (0.5, 0.000004, "0.5000 ± <0.0001"),
        (2.4, 1.3, "2.4 ± 1.3"),
        (12.0, 34.0, "12 ± 34"),
        (0.25, None, "0.250"),
        (0.25, 0.0, "0.250 ± 0"),
    ],
)
def test_amounts(value, se, shown):
    assert amount(Mean(value, se)) == shown


def test_ratios():
    assert [ratio(value) for value in (0.5, 0.79992, 0.875, 0.995, 0.9996)] == [
        "50 %",
        "80 %",
        "87.5 %",
        "99.5 %",
        "99.96 %",
    ]


def test_a_single_ratio():
    # 0.10, 0.12, 0.14 better: p = 0.009, the only comparison
    (said,) = sentences_of(series("cascade", "snip", 1, [0.40, 0.48, 0.56]), RANDOM[0])
    assert said == (
        "After retraining (cascade), snip beats random by 0.120 ± 0.012 nats at PR 50 % "
        "(3 seeds; p = 0.0091 after Holm's correction)."
    )
    # 0.10, 0.10, 0.25 worse: three standard errors, which is p = 0.095 of three seeds
    (said,) = sentences_of(series("cascade", "snip", 1, [0.60, 0.70, 0.95]), RANDOM[0])
    assert said == (
        "After retraining (cascade), snip shows no difference from random: -0.15 ± 0.05 nats at PR 50 % (3 seeds)."
    )
    (said,) = sentences_of(series("cascade", "snip", 1, [0.60, 0.72, 0.84]), RANDOM[0])
    assert said == (
        "After retraining (cascade), snip loses to random by 0.120 ± 0.012 nats at PR 50 % "
        "(3 seeds; p = 0.0091 after Holm's correction)."
    )


def test_several_ratios_in_one_sentence():
    (said,) = sentences_of(
        series("cascade", "snip", 1, [0.40, 0.70, 0.70]),  # 0.10, -0.10, 0: within
        series("cascade", "snip", 2, [0.40, 0.48, 0.56]),  # 0.10, 0.12, 0.14 better
        series("cascade", "snip", 3, [0.60, 0.72, 0.84]),  # 0.10, 0.12, 0.14 worse
        *RANDOM,
    )
    assert said == (
        "After retraining (cascade), snip beats random at 1 of 3 prune ratios: by 0.120 ± 0.012 nats at PR 80 %; "
        "loses to it at 1 of 3 prune ratios: by 0.120 ± 0.012 nats at PR 90 %; no difference is shown at the other: "
        "0.00 ± 0.06 nats at PR 50 % (3 seeds; p at most 0.0274 after Holm's correction)."
    )


def test_too_few_seeds_give_no_verdict():
    two = [*series("cascade", "snip", 1, [0.40, 0.48]), failed_of("cascade", "snip", 2, 1)]
    (said,) = sentences_of(two, RANDOM[0])
    assert said == (
        "After retraining (cascade), snip against random: too few seeds for a verdict: 0.110 ± 0.010 nats at PR 50 % "
        "(2 seeds)."
    )
    (said,) = sentences_of(two, series("cascade", "snip", 2, [0.40, 0.48, 0.56]), *RANDOM)
    assert said == (
        "After retraining (cascade), snip beats random by 0.120 ± 0.012 nats at PR 80 %; too few seeds for a verdict: "
        "0.110 ± 0.010 nats at PR 50 % (2 to 3 seeds; p = 0.0091 after Holm's correction)."
    )
    (one,) = verdicts(comparison_of(two, series("cascade", "snip", 2, [0.40, 0.48, 0.56]), *RANDOM))
    assert (one.ratios, one.beats, one.loses, one.within_error, one.too_few_pairs, one.survive_holm) == (
        2,
        1,
        0,
        0,
        1,
        1,
    )


def test_the_protocol_and_what_it_is_held_against_are_named():
    snip = series("one_shot", "snip", 1, [0.6, 0.7, 0.9])
    said = sentences_of(snip, series("cascade", "dense", 0, [0.1, 0.2, 0.3]))
    assert said[0].startswith("Without retraining (one-shot), snip loses to the dense flow by ")
    scratch = sentences_of(series("scratch", "snip", 1, [0.6, 0.7, 0.9]), series("cascade", "snip", 1, [0.1, 0.2, 0.3]))
    assert scratch[0].startswith("Trained from scratch (scratch), snip loses to its own cascade by ")
    control = sentences_of(
        series("cascade", "snip", 1, [0.6, 0.7, 0.9]),
        series("control", "dense", 1, [0.1, 0.2, 0.3]),
        series("reduced", "dense", 1, [1.1, 1.2, 1.3]),
    )
    assert "snip loses to the dense flow trained on for as long by" in control[0]
    assert "snip beats a dense flow of its own size by" in control[1]


def test_headlines():
    found = comparison_of(
        series("cascade", "snip", 1, [0.40, 0.48, 0.56]),
        series("cascade", "snip", 2, [0.40, 0.70, 0.70], nll_val=9.0),
        *RANDOM[:2],
        series("control", "dense", 1, [0.30, 0.36, 0.46]),
        series("reduced", "dense", 1, [0.41, 0.47, 0.56]),
    )
    said = headlines(found)
    assert said[0] == (
        "After retraining (cascade), against random, counted over the prune ratios: snip beats it at 1 of 2."
    )
    best = "The best pruned flow on validation rows (cascade, snip, PR 50 %)"
    assert said[1].startswith(
        f"{best} is worse than the dense flow trained on for as long by 0.107 ± 0.007 nats (3 seeds; "
    )
    shown = f"{best} shows no difference from a dense flow of its own size: 0.000 ± 0.006 nats, above 0 "
    assert said[2].startswith(shown)
    assert said[3] == (
        "Against the dense flow trained on for as long: of 2 pruned stages, 0 better, 2 worse, 0 with no difference "
        "shown."
    )
    # 2 against random, 2 against control, 2 against reduced; chance: 6 * (1 - 2 / sqrt(6)) = 1.1
    assert said[-1].startswith(
        "6 comparisons were made, all over 3 seeds or more. More than 2 s.e. apart: 4 (chance alone"
    )
    assert "about 1.1 if nothing differed" in said[-1]


def test_headlines_of_one_seed_hold_no_verdict():
    one = [stage_of("cascade", "snip", 0, 1, 0.4), stage_of("control", "dense", 0, 1, 0.3)]
    said = headlines(comparison_of(one))
    assert said[-1] == "1 comparison was made, none over 3 seeds or more: no verdicts."
    assert "too few seeds for a verdict: -0.100 nats" in said[0]
    assert len(said) == 2


def test_classifiers_speak_of_networks_and_points():
    snip = [classifier_of("cascade", "snip", seed, 1, value) for seed, value in enumerate((0.97, 0.96, 0.98))]
    dense = [classifier_of("control", "dense", seed, 1, value) for seed, value in enumerate((0.95, 0.93, 0.94))]
    found = comparison_of(snip, dense)
    assert headlines(found)[0].startswith(
        "The best pruned network on validation rows (cascade, snip, PR 50 %) is better than the dense network trained "
        "on for as long by 3.0 ± 0.6 points (3 seeds; "
    )
    assert (
        "beats the dense network trained on for as long by 3.0 ± 0.6 points at PR 50 %" in verdicts(found)[0].sentence
    )
