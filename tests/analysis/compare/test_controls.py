"""Which flow is a control, why there may be none, and a command that can be copied into a shell."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from support.compare_rows import failed_of, run_of, series, stage_of

from analysis.compare.controls import alike, controls_of, remedy_of, with_control, with_seeds

GAPS = [0.1, 0.2, 0.3]
SNIP = [series("cascade", "snip", stage, GAPS, steps_total=1000 + 500 * stage) for stage in (1, 2)]
DENSE = series("cascade", "dense", 0, GAPS, steps_total=1000)


def settings_of(command):
    """The settings of a command as a shell would pass them on."""
    words = shlex.split(command)
    assert words[:2] == ["sparseflows", "run"]
    assert words[3] == "--out"
    assert set(words[5::2]) == {"--set"}
    return words[2], words[4], words[6::2]


def test_the_control_is_that_of_the_same_seed_and_stage():
    control = [series("control", "dense", stage, GAPS, steps_total=1000 + 500 * stage) for stage in (1, 2)]
    found = controls_of(run_of(DENSE, *SNIP, *control), "snip")
    assert found.reason is None
    assert {place: (one.protocol, one.seed, one.stage) for place, one in found.of.items()} == {
        (seed, stage): ("control", seed, stage) for seed in (0, 1, 2) for stage in (1, 2)
    }


def test_why_there_is_none():
    assert controls_of(run_of(DENSE, *SNIP), "snip").reason == "no control in this run"
    failed = [failed_of("control", "dense", seed, stage) for seed in (0, 1, 2) for stage in (1, 2)]
    assert controls_of(run_of(DENSE, *SNIP, failed), "snip").reason == "the control of no pruned stage is done"
    shorter = series("control", "dense", 2, GAPS, steps_total=1500)
    found = controls_of(run_of(DENSE, *SNIP, shorter), "snip")
    assert found.reason == "the control did not train for as long (1,500 steps, the pruned flow 2,000)"
    assert (dict(found.of), found.remedy) == ({}, None)
    lost = [failed_of("cascade", "snip", 0, 1)]
    assert controls_of(run_of(DENSE, lost, shorter), "snip").reason == "no pruned stage is done"


def test_the_control_of_one_shot_is_the_dense_flow():
    found = controls_of(run_of(DENSE, series("one_shot", "snip", 2, GAPS), *SNIP), "one_shot.snip")
    assert found.is_dense
    assert {place: one.series for place, one in found.of.items()} == {(seed, 2): "dense" for seed in (0, 1, 2)}
    alone = controls_of(run_of(series("one_shot", "snip", 2, GAPS)), "one_shot.snip")
    assert alone.reason == "the dense flow is not done"


@pytest.mark.parametrize(("one", "two", "same"), [(1000, 990, True), (990, 1000, True), (1000, 989, False)])
def test_one_per_cent_of_the_steps_is_alike(one, two, same):
    assert alike(one, two) is same


def test_the_command_keeps_the_protocols_and_adds_seeds_up_to_three():
    assert settings_of(with_control(run_of(DENSE, *SNIP))) == (
        *("runs/rings/spec.yaml", "runs"),
        ["prune.protocols=[cascade,control]"],
    )
    lonely = [stage_of("one_shot", "snip", 5, 1, 0.1), stage_of("scratch", "snip", 5, 1, 0.1)]
    assert settings_of(with_control(run_of(lonely)))[2] == [
        "prune.protocols=[one_shot,scratch,control]",
        "seeds=[0,1,5]",
    ]
    assert with_seeds(run_of(DENSE)) is None
    assert settings_of(with_seeds(run_of(DENSE[:2])))[2] == ["seeds=[0,1,2]"]


def test_a_path_with_blanks_stays_one_word(tmp_path, monkeypatch):
    run = replace(run_of(DENSE, *SNIP), folder="my runs/a 'b'")
    assert settings_of(with_control(run))[:2] == ("my runs/a 'b'/spec.yaml", "my runs")
    monkeypatch.chdir(tmp_path)
    assert settings_of(with_control(replace(run, folder=".")))[1] == str(tmp_path.resolve().parent)


def test_what_a_run_lacks_for_a_verdict():
    control = series("control", "dense", 1, GAPS)
    assert remedy_of(run_of(DENSE, *SNIP)) == with_control(run_of(DENSE, *SNIP))
    assert remedy_of(run_of(DENSE, SNIP[0], control)) is None
    assert settings_of(remedy_of(run_of(DENSE[:1], SNIP[0][:1], control[:1])))[2] == ["seeds=[0,1,2]"]
    assert remedy_of(run_of(DENSE, series("one_shot", "snip", 1, GAPS))) is None  # its control is the dense flow
