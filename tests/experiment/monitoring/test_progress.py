"""What the user sees of a run: plain lines in a log, bars on a terminal, and how long it will take."""

from __future__ import annotations

import io
import json
import re

import pytest

from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.monitoring.meter import duration
from sparseflows.experiment.monitoring.progress import Progress, outcome


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    return clock


def record_of(stage=1, **changes):
    values = {"dataset": "rings", "objective": "nll", "protocol": "cascade", "method": "unstructured", "seed": 0}
    values |= {"status": "done", "params": 12345, "params_dense": 20000, "prune_ratio": 0.38275, "train_seconds": 75.2}
    return Record(**(values | {"stage": stage} | changes))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0 s"), (0.4, "0 s"), (8.2, "8 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s")],
        *[(3599, "59 min 59 s"), (3599.9, "1 h 00 min"), (7500, "2 h 05 min"), (360_000, "100 h 00 min")],
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_stage_in_half_a_line():
    assert outcome(record_of(nll_test=1.23456, kl_gap=0.0451)) == (
        "12,345 params, PR 38.3 %, NLL 1.235, KL gap 0.045 (1 min 15 s)"
    )
    assert outcome(record_of()) == "12,345 params, PR 38.3 % (1 min 15 s)"
    assert outcome(record_of(nll_test=-0.5, prune_ratio=0.0)) == "12,345 params, PR 0.0 %, NLL -0.500 (1 min 15 s)"
    assert outcome(record_of(status="failed", reason="it diverged")) == "failed: it diverged"


def test_finished_stages_and_the_time_left(clock):
    stream = io.StringIO()
    progress = Progress(4, stream)
    clock.now += 100
    progress.done(record_of(1))
    progress.found(record_of(2))  # was there already: takes no time
    clock.now += 50
    progress.done(record_of(3))
    clock.now += 50
    progress.done(record_of(4, status="failed", reason="why"))
    head = "12,345 params, PR 38.3 % (1 min 15 s)"
    assert stream.getvalue().splitlines() == [
        f"[1/4] unstructured-s0/1  {head}; about 5 min 00 s left",
        f"[3/4] unstructured-s0/3  {head}; about 1 min 15 s left",
        "[4/4] unstructured-s0/4  failed: why",
    ]


def test_a_worker_that_sees_only_a_part_does_not_count():
    stream = io.StringIO()
    Progress(stream=stream).done(record_of())
    assert stream.getvalue() == "unstructured-s0/1  12,345 params, PR 38.3 % (1 min 15 s)\n"


def test_lines_now_and_then_in_a_log(clock):
    stream = io.StringIO()
    progress = Progress(2, stream)
    progress.begin("dense-s0/0")
    for step in range(1, 101):
        clock.now += 1
        progress.step(step, 100, 2.0 / step)
    progress.close()
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "  dense-s0/0: step 15/100, loss 0.1333, 1 min 25 s left in this stage"
    assert lines[-1] == "  dense-s0/0: step 90/100, loss 0.02222, 10 s left in this stage"
    assert len(lines) == 6


def test_time_left_counts_from_where_a_training_went_on(clock):
    stream = io.StringIO()
    progress = Progress(2, stream)
    progress.begin("dense-s0/0")
    for step in range(81, 97):  # resumed at step 80, a second each
        clock.now += 1
        progress.step(step, 100, 1.0)
    assert stream.getvalue() == "  dense-s0/0: step 95/100, loss 1, 5 s left in this stage\n"


def test_short_stages_say_nothing_in_between(clock):
    stream = io.StringIO()
    progress = Progress(2, stream)
    progress.begin("dense-s0/0")
    for step in range(1, 15):
        clock.now += 1
        progress.step(step, 14, 1.0)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal():
    stream = Terminal()
    progress = Progress(2, stream)
    progress.begin("dense-s0/0")
    for step in range(1, 11):
        progress.step(step, 10, 1.5)
    progress.done(record_of())
    text = stream.getvalue()
    assert "\r[1/2] dense-s0/0:" in text
    assert "/10 [" in text  # and tqdm's own time left after it
    assert re.search(r"\d\d:\d\d<", text)
    *_, last = text.split("\r")
    assert last.startswith("[1/2] unstructured-s0/1  12,345 params")  # the bar is gone by then


def test_a_line_takes_the_bar_away_and_it_comes_back():
    stream = Terminal()
    progress = Progress(1, stream)
    progress.begin("dense-s0/0")
    progress.step(1, 10, 1.0)
    progress.say("  something happened")
    progress.step(2, 10, 1.0)
    progress.close()
    progress.close()
    lines = stream.getvalue().split("\r")
    (said,) = [k for k, line in enumerate(lines) if "something happened" in line]
    assert lines[said].startswith("  something happened\n")
    assert any(" 2/10 [" in line or " 1/10 [" in line for line in lines[said:])
    assert lines[-1].strip() == ""


def test_bars_follow_the_stream_unless_told():
    assert Progress(stream=Terminal()).bars
    assert not Progress(stream=io.StringIO()).bars
    assert not Progress(stream=Terminal(), bars=False).bars


def test_the_bar_is_taken_away_when_a_run_is_interrupted(param, tmp_path, monkeypatch):
    from sparseflows.experiment.folder.checkpoints import Checkpoints
    from sparseflows.experiment.folder.folder import RunFolder
    from sparseflows.experiment.rows import prepare
    from sparseflows.experiment.scheduling import run as cascade
    from sparseflows.specs.yaml import load_spec

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop)
    spec, stream = load_spec(param), Terminal()
    splits, digest = prepare(spec)
    with pytest.raises(KeyboardInterrupt):
        cascade.run_experiment(spec, RunFolder.claim(tmp_path, spec, digest), splits, Progress(7, stream))
    assert "dense-s0/0:" in stream.getvalue()
    assert stream.getvalue().endswith("\r")


# --- in a run


def test_what_a_run_says(undisturbed):
    folder, said = undisturbed
    first, *others = said.err.splitlines()
    assert first == f"tiny: results go to {folder}"
    labels = ["dense-s0/0", *(f"{method}-s0/{k}" for method in ("unstructured", "structured") for k in (1, 2, 3))]
    assert len(others) == 7
    for number, (label, line) in enumerate(zip(labels, others, strict=True), 1):
        pattern = rf"\[{number}/7\] {label}  \d+ params, PR \d+\.\d %, NLL \d\.\d+, KL gap \d\.\d+ \(\d+ s\)"
        left = "" if number == 7 else r"; about \d+ s left"
        assert re.fullmatch(pattern + left, line), line
    assert "\r" not in said.err


def test_json_is_the_only_thing_on_standard_output(run, run_again):
    said = run_again(run, "--json")
    document = json.loads(said.out)
    assert document["run"] == str(run)
    assert [stage["method"] for stage in document["stages"]] == ["dense"] + ["unstructured"] * 3 + ["structured"] * 3
    assert document["stages"][0]["reason"] is None
    assert isinstance(document["stages"][0]["nll_test"], float)
