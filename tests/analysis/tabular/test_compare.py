"""No word about ours without an adjusted p, nor about pruning without a control; by a hair above and below."""

from __future__ import annotations

import math

import pytest
from support.compare_rows import choices_of, fitted

from analysis.tables.numbers import Mean
from analysis.tabular.baselines import GAUSSIAN, MIXTURE
from analysis.tabular.compare import compare
from analysis.tabular.formats import remedies

SEEDS = (0, 1, 2)
# Of differences m - d, m, m + d the standard error is d/√3, and p is 0.05 at m = 4.302653 d/√3 (2 degrees of freedom).
LIMIT = 4.302653 / math.sqrt(3)
ABOVE, BELOW = 1.01 * LIMIT, 0.99 * LIMIT


def spread(mean, by):
    return [mean - by, mean, mean + by]


@pytest.fixture
def pruned(make_set, row_of):
    """A run whose pruned stage is `changes` above its control, which is 1 below its dense flow of 12."""

    def make(changes, seeds=SEEDS, control=True, folder="a", dataset="wine"):
        extra = []
        for seed, change in zip(seeds, changes, strict=False):
            extra.append(row_of("unstructured", seed, 1, 500, 11.0 + 0.1 * seed + change, nll_val=11.0, kl_gap=""))
            if control:
                extra.append(row_of("dense", seed, 1, 1000, 11.0 + 0.1 * seed, protocol="control", kl_gap=""))
        return make_set(dataset, folder, (1000, 12.0, 12.0), {}, seeds=seeds, extra=extra)

    return make


def by_name(found):
    return {one.against: one for one in found}


@pytest.mark.parametrize(
    ("by", "verdicts"),
    [
        # Two baselines are two tests: both just below 0.05 are not enough, half of it is.
        (1.0 / ABOVE, ("no difference shown", "no difference shown")),
        (1.0 / (6.205347 / math.sqrt(3) * 1.01), ("beats", "loses")),  # the 98.75 % point
        (1.0 / (6.205347 / math.sqrt(3) * 0.99), ("no difference shown", "no difference shown")),
    ],
)
def test_against_baselines_by_a_hair(make_set, by, verdicts):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {}, seeds=SEEDS)
    nlls = {seed: (12.0 + 0.1 * seed + more, 12.0 + 0.1 * seed - more) for seed, more in enumerate(spread(1.0, by))}
    gaussian, mixture = compare(choices_of(run), fitted(run, nlls, own_splits=True))
    assert (gaussian.verdict, mixture.verdict) == verdicts
    assert gaussian.p_holm == pytest.approx(2 * gaussian.p)
    assert ("FFJORD (12.10) beats the Gaussian (13.10, same rows) by 1.00" in gaussian.sentence) == (
        verdicts[0] == "beats"
    )
    assert ("loses to the Gaussian mixture" in mixture.sentence) == (verdicts[1] == "loses")
    assert ("shows no difference from the Gaussian" in gaussian.sentence) == (verdicts[0] != "beats")
    assert "after Holm's correction over 2 tests)" in gaussian.sentence


def test_beats_at_p_of_0_076_is_no_word(make_set):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {}, seeds=SEEDS)
    more = spread(1.0, math.sqrt(3) / 3.42)  # t = 3.42 of 2 degrees of freedom
    nlls = {seed: (12.0 + 0.1 * seed + by, 14.0 + seed) for seed, by in enumerate(more)}
    gaussian = by_name(compare(choices_of(run), fitted(run, nlls)))[GAUSSIAN]
    assert gaussian.p == pytest.approx(0.076, abs=5e-4)
    assert gaussian.difference.beyond_error
    assert gaussian.verdict == "no difference shown"
    assert "beats" not in gaussian.sentence


def test_one_seed_is_shown_unpaired_and_says_so(make_set):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 11.0, 11.98)]})
    found = compare(choices_of(run), fitted(run, {0: (13.0, 12.05)}))
    assert [one.against for one in found] == [GAUSSIAN, MIXTURE, "dense"]
    gaussian, _, dense = found
    assert gaussian.difference == Mean(1.0, pytest.approx(math.hypot(0.05, 0.02)))
    assert gaussian.sentence == (
        "wine: FFJORD (12.00) against the Gaussian (13.00, same rows): +1.00 ± 0.05 nats, above 0 where the flow's is "
        "lower (1 seed: ± s.e. over the test set, unpaired); not testable here: 1 seed of both, and a verdict needs 3"
    )
    assert gaussian.remedy.endswith(" --set 'seeds=[0,1,2]'")
    assert dense.difference.value == pytest.approx(-0.02)
    assert dense.sentence.endswith("unpaired): not testable here: no control in this run")
    assert {one.verdict for one in found} == {"not testable here"}
    assert [one.paired_over for one in found] == [0, 0, 0]


def test_seeds_are_paired_split_by_split(make_set):
    # Flow 12.0, 12.1, 12.2 against Gaussians 13.0, 13.2, 13.1: differences 1.0, 1.1, 0.9.
    run = make_set("wine", "a", (1000, 12.0, 12.0), {}, seeds=SEEDS)
    baselines = fitted(run, {0: (13.0, 11.0), 1: (13.2, 11.1), 2: (13.1, 11.21)}, own_splits=True)
    gaussian, mixture = compare(choices_of(run), baselines)
    assert gaussian.difference == Mean(pytest.approx(1.0), pytest.approx(0.1 / math.sqrt(3)))
    assert "(paired over 3 seeds, each with its own split; p = 0.0033" in gaussian.sentence
    assert "loses to the Gaussian mixture (11.10, same rows) by 1.00" in mixture.sentence
    assert (
        "(paired over 3 seeds, one split; p = "
        in compare(choices_of(run), fitted(run, {seed: (13.0, 11.0) for seed in SEEDS}))[0].sentence
    )


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        (spread(-0.1 * ABOVE, 0.1), "beats", ": beats it"),
        (spread(-0.1 * BELOW, 0.1), "no difference shown", ": no difference shown"),
        (spread(0.1 * BELOW, 0.1), "no difference shown", ": no difference shown"),
        (spread(0.1 * ABOVE, 0.1), "loses", ": loses to it"),
    ],
)
def test_pruning_is_held_against_the_control_first(pruned, changes, verdict, said):
    found = compare(choices_of(pruned(changes)), {})
    assert [one.against for one in found] == ["control", "dense"]
    control, dense = found
    assert (control.verdict, control.reason, control.remedy) == (verdict, None, None)
    assert control.sentence.endswith(said)
    assert "against the control, the dense flow trained on for as long: " in control.sentence
    assert control.difference.value == pytest.approx(changes[1])
    assert dense.difference.value == pytest.approx(changes[1] - 1.0)
    assert "against the dense flow as it was, which trained less: " in dense.sentence
    assert remedies(found) == ""


def test_without_a_control_pruning_has_numbers_and_a_command(pruned):
    run = pruned([-0.01, 0.0, 0.01], control=False)
    (dense,) = found = compare(choices_of(run), {})
    assert dense.difference == Mean(pytest.approx(-1.0), pytest.approx(0.01 / math.sqrt(3)))
    assert (dense.verdict, dense.reason) == ("not testable here", "no control in this run")
    assert dense.sentence.endswith(": not testable here: no control in this run")
    assert not any(word in dense.sentence for word in ("beats", "loses", "helped", "no difference"))
    assert dense.remedy.endswith("--set 'prune.protocols=[cascade,control]'")
    assert remedies(found) == f"\nWhat makes more of it testable, in a run folder of its own:\n  {dense.remedy}\n"


def test_one_command_a_run_adds_the_control_and_the_seeds(pruned):
    run = pruned([0.0], seeds=(0,), control=False)
    found = compare(choices_of(run), fitted(run, {0: (13.0, 12.05)}))
    *_, command, _ = remedies(found).split("\n")
    assert len(remedies(found).splitlines()) == 3
    assert command.endswith(" --set 'prune.protocols=[cascade,control]' --set 'seeds=[0,1,2]'")


def test_two_seeds_of_a_control_are_too_few(pruned):
    control, dense = compare(choices_of(pruned([0.0, 0.1], seeds=(0, 1))), {})
    assert control.verdict == dense.verdict == "not testable here"
    assert control.reason == "2 seeds of both, and a verdict needs 3"


def test_two_runs_are_two_tests_of_one_question(pruned):
    runs = [
        pruned(spread(-0.1 * ABOVE, 0.1), folder="a"),
        pruned(spread(0.0, 0.1), folder="b", dataset="digits"),
    ]
    (alone,) = (one for one in compare(choices_of(runs[0]), {}) if one.against == "control")
    first, second = (one for one in compare(choices_of(*runs), {}) if one.against == "control")
    assert alone.verdict == "beats"
    assert first.p_holm == pytest.approx(2 * alone.p)
    assert (first.verdict, second.verdict) == ("no difference shown", "no difference shown")
