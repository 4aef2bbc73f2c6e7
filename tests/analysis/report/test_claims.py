"""No verdict without a control, three seeds and an adjusted p; each claim a hair above and below the limit."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace

import pytest
from support.small_runs import refuse

from analysis.cli.app import app
from analysis.report.claims import FAILS, HOLDS, MIXED, NO_DIFFERENCE, UNTESTABLE, claims
from analysis.report.words import summary, training_caveat
from analysis.runs.records import read_run
from sparseflows.cli.console import run_app

T2 = 4.302653  # the 97.5 % point of t with 2 degrees of freedom
# Of differences m - d, m, m + d the standard error is d/√3: p is 0.05 at m = T2 d/√3.
LIMIT = T2 / math.sqrt(3)
ABOVE, BELOW = 1.01 * LIMIT, 0.99 * LIMIT  # in units of d: p below and above 0.05
SEEDS = (0, 1, 2)


def spread(mean, by):
    return [mean - by, mean, mean + by]


@pytest.fixture
def pruned_run(make_run, row_of):
    """A dense flow of NLL 0.6, its control and one pruned stage of each method a seed, of NLLs above the control's."""

    def make(changes, control=0.5, seeds=SEEDS, protocol="cascade", steps=(1500, 1500), **extra):
        changes = changes if isinstance(changes, dict) else {"structured": changes}
        rows = []
        for place, seed in enumerate(seeds):
            noise = 0.1 * seed  # what seeds share drops out
            rows.append(row_of("dense", seed, 0, 1000, 0.6 + noise, nll_val=0.6, **extra))
            for method, by in changes.items():
                nll = (0.6 if control is None else control) + noise + by[place]
                rows.append(row_of(method, seed, 1, 500, nll, nll_val=0.5, protocol=protocol, **extra))
            if control is not None:
                rows.append(row_of("dense", seed, 1, 1000, control + noise, protocol="control", **extra))
        run = read_run(make_run(rows))
        behind = {True: steps[1], False: steps[0]}
        stages = [replace(one, steps_total=behind[one.protocol == "control"]) for one in run.stages]
        return replace(run, stages=tuple(stages))

    return make


def one_of(run, letter, hessian=None, modes=None, method="structured", subject=None):
    (found,) = [
        one
        for one in claims(run, hessian, modes)
        if (one.letter, one.method) == (letter, method) and subject in (None, one.subject)
    ]
    return found


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (spread(-0.01 * ABOVE, 0.01), HOLDS),
        (spread(-0.01 * BELOW, 0.01), NO_DIFFERENCE),
        (spread(0.01 * BELOW, 0.01), NO_DIFFERENCE),
        (spread(0.01 * ABOVE, 0.01), FAILS),
    ],
)
def test_lower_nll_by_a_hair(pruned_run, changes, verdict):
    claim = one_of(pruned_run(changes), "a")
    assert (claim.verdict, claim.reason, claim.remedy) == (verdict, None, None)
    control, dense = claim.sides
    assert (control.against, dense.against) == ("control", "dense")
    assert (control.p_holm <= 0.05) == (verdict in (HOLDS, FAILS))
    assert claim.numbers.index("against the control, the dense flow trained on for as long") < claim.numbers.index(
        "against the dense flow as it was, which trained less"
    )


def test_the_control_decides_and_not_the_dense_flow(pruned_run):
    # 0.3 nats below dense, and 0.019 ± 0.010 above the control
    claim = one_of(pruned_run(spread(0.019, 0.01 * math.sqrt(3)), control=0.281), "a")
    assert claim.verdict == NO_DIFFERENCE
    control, dense = claim.sides
    assert control.change.startswith("+0.019 nats (-0.024 to +0.062; 95 % interval over 3 seeds, p = 0.20")
    assert dense.change.startswith("-0.300 nats")
    assert dense.verdict == HOLDS


def test_without_a_control_there_are_numbers_and_no_word(pruned_run):
    run = pruned_run(spread(-0.3, 0.001), control=None)
    claim = one_of(run, "a")
    assert (claim.verdict, claim.reason) == (UNTESTABLE, "no control in this run")
    folder, out = shlex.quote(f"{run.folder}/spec.yaml"), shlex.quote(run.folder.rpartition("/")[0])
    assert claim.remedy == f"sparseflows run {folder} --out {out} --set 'prune.protocols=[cascade,control]'"
    (dense,) = claim.sides
    assert (dense.against, dense.verdict) == ("dense", None)
    assert "-0.300 nats (-0.302 to -0.298; 95 % interval over 3 seeds, p < 0.0001)" in claim.numbers
    assert not any(word in claim.numbers for word in (HOLDS, FAILS, NO_DIFFERENCE))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_hold_no_verdict(pruned_run, seeds):
    claim = one_of(pruned_run(spread(-0.3, 0.001), seeds=seeds), "a")
    assert claim.verdict == UNTESTABLE
    assert claim.reason == f"{len(seeds)} seed{'s' * (len(seeds) > 1)} of both, and a verdict needs 3"
    assert claim.remedy.endswith(" --set 'seeds=[0,1,2]'")
    assert {side.verdict for side in claim.sides} == {None}


def test_seeds_that_failed_are_not_asked_for_again(pruned_run):
    run = pruned_run(spread(-0.3, 0.001))
    left = tuple(one for one in run.stages if one.seed == 0 or one.series == "dense")
    claim = one_of(replace(run, stages=left), "a")
    assert (claim.reason, claim.remedy) == ("1 seed of both, and a verdict needs 3", None)


def test_a_control_that_trained_for_another_time_is_none(pruned_run):
    claim = one_of(pruned_run(spread(-0.3, 0.001), steps=(1500, 1000)), "a")
    assert claim.verdict == UNTESTABLE
    assert claim.reason == "the control did not train for as long (1,000 steps, the pruned flow 1,500)"
    assert [side.against for side in claim.sides] == ["dense"]


def test_one_shot_flows_have_their_dense_flow_for_a_control(pruned_run):
    run = pruned_run(spread(-0.01 * ABOVE, 0.01), control=None, protocol="one_shot", steps=(1000, 1000))
    claim = one_of(run, "a", method="one_shot.structured")
    assert claim.verdict == HOLDS
    assert [side.against for side in claim.sides] == ["control"]
    assert "which trained as long, for nothing was retrained" in claim.numbers


def test_two_methods_are_two_tests(pruned_run):
    claim = one_of(pruned_run({"structured": spread(-0.01 * ABOVE, 0.01), "pfp": spread(0.5, 1.0)}), "a")
    (control, _) = claim.sides
    assert control.p_holm == pytest.approx(2 * control.p)
    assert claim.verdict == NO_DIFFERENCE
    assert "after Holm's correction over 2 tests" in claim.numbers


def test_the_stage_is_chosen_by_validation_among_those_of_most_seeds(make_run, row_of):
    rows = []
    for seed in SEEDS:
        rows += [row_of("dense", seed, 0, 1000, 0.6), row_of("structured", seed, 1, 500, 0.7, nll_val=0.5)]
        rows += [row_of("dense", seed, stage, 1000, 0.6, protocol="control") for stage in (1, 2, 3)]
        rows += [row_of("structured", seed, 2, 250, 0.3 + 0.01 * seed, nll_val=0.9)]
    rows += [row_of("structured", 0, 3, 100, 0.3, nll_val=0.1)]  # the other seeds failed
    claim = one_of(read_run(make_run(rows)), "a")
    assert claim.verdict == FAILS
    assert "50 % pruned" in claim.numbers


def curvature(log_ratios, of_dense=1.0, **own):
    """λ_max of 10 for the control, and pruned flows at `log_ratios` to it."""
    stages = {}
    for seed, change in zip(SEEDS, log_ratios, strict=False):
        stages["dense", seed, 0] = {"prune_ratio": 0.0, "lambda_max": 10.0 * of_dense, "trace": 10.0, **own}
        stages["control.dense", seed, 1] = {"prune_ratio": 0.0, "lambda_max": 10.0, "trace": 10.0, **own}
        pruned = 10.0 * math.exp(change)
        stages["structured", seed, 1] = {"prune_ratio": 0.5, "lambda_max": pruned, "trace": pruned, **own}
    return stages


@pytest.mark.parametrize(
    ("log_ratios", "verdict"),
    [
        (spread(-0.5, 0.5 / (3 * ABOVE)), HOLDS),
        (spread(0.5, 0.5 / (3 * ABOVE)), FAILS),
        (spread(-0.5, 0.5 / BELOW), NO_DIFFERENCE),
        (spread(-0.10, 0.001), NO_DIFFERENCE),  # steady over the seeds, but less than the subset moves it
    ],
)
def test_curvature(pruned_run, log_ratios, verdict):
    claim = one_of(pruned_run([0.0] * 3), "b", curvature(log_ratios), subject="lower largest eigenvalue")
    assert claim.verdict == verdict
    assert claim.numbers.endswith("over the params that are left, so deletion alone can lower it")


def test_the_curvatures_are_one_family(pruned_run):
    # λ_max and the trace are two tests, κ is not known: p just below 0.05 of either is not enough
    claim = one_of(pruned_run([0.0] * 3), "b", curvature(spread(-0.5, 0.5 / ABOVE)), subject="lower trace")
    side = claim.sides[0]
    assert side.p <= 0.05 < side.p_holm
    assert side.p_holm == pytest.approx(2 * side.p)
    assert claim.verdict == NO_DIFFERENCE


def test_curvature_without_a_controls_hessian_has_no_word(pruned_run):
    stages = {key: values for key, values in curvature(spread(-0.5, 0.001)).items() if key[0] != "control.dense"}
    run = pruned_run([0.0] * 3)
    claim = one_of(run, "b", stages, subject="lower trace")
    assert (claim.verdict, claim.reason) == (UNTESTABLE, "no Hessian of both a pruned stage and its control")
    assert claim.remedy == f"sparseflows hessian {shlex.quote(run.folder)}"
    assert [side.verdict for side in claim.sides] == [None]
    assert "0.61 × (0.61 to 0.61; 95 % interval over 3 seeds, p < 0.0001" in claim.numbers
    assert one_of(run, "b", None, subject="lower trace").numbers == "no Hessian of this run is known"


def test_curvature_is_about_moderate_ratios_and_says_its_interval(pruned_run):
    stages = curvature([math.log(0.4), math.log(0.5), math.log(0.625)])
    claim = one_of(pruned_run([0.0] * 3), "b", stages, subject="lower trace")
    # log ratios about log 0.5: ± log 1.25, so s.e. = log 1.25 / √3
    half = T2 * math.log(1.25) / math.sqrt(3)
    interval = f"{0.5 * math.exp(-half):.2f} to {0.5 * math.exp(half):.2f}"
    assert f"at 50 % pruned: against the control, the dense flow trained on for as long: 0.50 × ({interval};" in (
        claim.numbers
    )


def samples(changes, captured=10, control=10, key="good_within_3"):
    stages = {}
    for seed, change in zip(SEEDS, changes, strict=False):
        both = {"modes_total": 10, "prune_ratio": 0.0}
        stages["dense", seed, 0] = both | {key: 0.7, "modes_captured": 8}
        stages["control.dense", seed, 1] = both | {key: 0.8, "modes_captured": control}
        stages["structured", seed, 1] = both | {"prune_ratio": 0.5, key: 0.8 + change, "modes_captured": captured}
    return stages


@pytest.mark.parametrize(
    ("modes", "verdict"),
    [
        (samples(spread(0.01 * ABOVE, 0.01)), HOLDS),
        (samples(spread(0.01 * BELOW, 0.01)), NO_DIFFERENCE),
        (samples(spread(-0.01 * ABOVE, 0.01)), FAILS),
        (samples((0.002, 0.002, 0.0021)), NO_DIFFERENCE),  # steady, but less than a percentage point
        (samples((0.0, 0.0, 0.001), captured=9), NO_DIFFERENCE),  # a count of one seed is no test
        (samples(spread(0.01 * ABOVE, 0.01), captured=9), MIXED),
        (samples(spread(0.01 * ABOVE, 0.01), key="coverage"), HOLDS),
        (samples([0.1]), UNTESTABLE),
        (None, UNTESTABLE),
    ],
)
def test_modes_kept(pruned_run, modes, verdict):
    claim = one_of(pruned_run([0.0] * 3), "c", modes=modes)
    assert claim.verdict == verdict
    assert ("modes captured: at least" in claim.numbers) == (modes is not None)


def test_summary_has_words_against_the_control_alone(make_run, row_of):
    rows = []
    for seed in SEEDS:
        rows.append(row_of("dense", seed, 0, 1000, 0.9, train_steps=900))
        for stage, (params, change) in enumerate([(750, -0.1), (500, 0.005), (100, 0.3)], start=1):
            nll = 0.6 + change + 0.01 * seed
            rows.append(row_of("structured", seed, stage, params, nll, train_steps=300))
            rows.append(row_of("dense", seed, stage, 1000, 0.6 - 0.001 * seed, protocol="control", train_steps=300))
    run = read_run(make_run(rows))
    beside, before = summary(run, "structured")
    assert beside.startswith("Pruned by structured, test NLL against the control, the dense flow trained on for as")
    assert "lower, -0.089 ± 0.006 nats at 25 % pruned" in beside
    assert "no difference shown, +0.016 ± 0.006 nats at 50 % pruned" in beside
    assert "higher, +0.311 ± 0.006 nats at 90 % pruned" in beside
    assert before.startswith(
        "Pruned by structured, test NLL against the dense flow as it was, which trained less: -0.3"
    )
    assert not any(word in before for word in ("lower", "higher", "no difference"))
    assert "is what the verdicts are against" in training_caveat(run)

    alone = replace(run, stages=tuple(one for one in run.stages if one.protocol != "control"))
    (said,) = summary(alone, "structured")
    assert "(not testable here: no control in this run): -0.390 ± 0.006 nats at 25 %" in said
    assert not any(word in said for word in ("lower", "higher", "no difference"))
    assert "up to 1,800 steps, the dense flow 900" in training_caveat(alone)
    assert "no control" in training_caveat(alone)

    single = replace(run, seeds=(0,), stages=tuple(one for one in run.stages if one.seed == 0))
    assert (
        "not testable here (a verdict needs 3 seeds of both), -0.100 ± 0.006 nats at 25 %"
        in (summary(single, "structured")[0])
    )


def test_the_page_and_the_json_give_the_reason_and_the_command(make_run, rows_of, capsys):
    run = make_run(rows_of())
    assert run_app(app, "analysis", ["report", str(run), "--only-cached", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=refuse)["claims"]
    assert len(found) == 10  # five for each of two methods
    keys = {"run", "claim", "about", "method", "verdict", "numbers", "reason", "remedy", "sides"}
    assert {frozenset(one) for one in found} == {frozenset(keys)}
    assert {one["verdict"] for one in found} == {UNTESTABLE}
    (remedy,) = {one["remedy"] for one in found}
    text = (run / "analysis" / "report.html").read_text()
    assert remedy.replace("'", "&#39;") in text
    assert text.count("No verdict: no control in this run.") == 10
    assert 'class="verdict open">not testable here' in text
    assert not any(word in text for word in (HOLDS, FAILS, "lowers the test NLL", "improves", "cannot be told"))
