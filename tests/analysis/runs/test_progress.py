"""What the user sees of an analysis: one line a stage, with the time left."""

from __future__ import annotations

import io

import pytest

from analysis.runs import progress as module
from analysis.runs.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the time, seconds."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_of_a_log(clock):
    stream = io.StringIO()
    progress = Progress("hessian", stream)  # no terminal, so no bars
    assert not progress.bars
    progress.start(4)
    progress.done("dense-s0/0", None, cached=True)  # known already: nothing to say
    progress.begin("a-s0/1")
    for step, seconds in ((1, 5), (2, 16), (3, 20), (4, 31), (5, 40)):
        clock[0] = 1000 + seconds
        progress.step(step, 8)
    clock[0] = 1060
    progress.done("a-s0/1", None, cached=False)
    progress.begin("a-s0/2")
    clock[0] = 1070
    progress.done("a-s0/2", "the loss is not deterministic", cached=False)
    progress.begin("a-s0/3")
    clock[0] = 1090
    progress.done("a-s0/3", None, cached=False)
    progress.close()
    assert stream.getvalue().splitlines() == [
        "  hessian of a-s0/1: 25 %, 48 s left in this stage",  # every 15 seconds at most
        "  hessian of a-s0/1: 50 %, 31 s left in this stage",
        "[2/4] a-s0/1  hessian in 1 min 00 s; about 2 min 00 s left",
        "[3/4] a-s0/2  no hessian: the loss is not deterministic",
        "[4/4] a-s0/3  hessian in 20 s",
    ]


def test_the_end_of_a_stage_is_no_line_of_its_own(clock):
    stream = io.StringIO()
    progress = Progress("modes", stream, bars=False)
    progress.start(1)
    progress.begin("a-s0/1")
    clock[0] += 100
    progress.step(0, 8)
    progress.step(8, 8)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal():
    stream = io.StringIO()
    progress = Progress("hessian", stream, bars=True)
    progress.start(2)
    progress.begin("a-s0/1")
    progress.step(3, 10)
    assert "[1/2] hessian of a-s0/1" in stream.getvalue()
    assert (progress._bar.n, progress._bar.total) == (3, 10)
    progress.step(7, 12)  # the estimate of the total may change
    assert (progress._bar.n, progress._bar.total) == (7, 12)
    progress.done("a-s0/1", None, cached=False)
    assert progress._bar is None
    assert stream.getvalue().splitlines()[-1].startswith("[1/2] a-s0/1  hessian in 0 s; about")
    progress.begin("a-s0/2")
    progress.step(1, 10)
    progress.close()
    progress.close()
    assert progress._bar is None


def test_it_can_be_started_again(clock):
    stream = io.StringIO()
    progress = Progress("cost", stream, bars=False)
    for _ in range(2):
        progress.start(1)
        progress.begin("a")
        clock[0] += 7
        progress.done("a", None, cached=False)
    assert stream.getvalue() == "[1/1] a  cost in 7 s\n" * 2


def test_stages_that_are_unlike(clock):
    stream = io.StringIO()
    progress = Progress("hessian", stream)
    progress.weigh({"a": 6.0, "b": 1.0, "c": 3.0})  # and one that is known already
    progress.start(4)
    progress.done("known", None, cached=True)
    for label, now, reason in (("a", 1012, None), ("b", 1014, "no luck"), ("c", 1020, None)):
        progress.begin(label)
        clock[0] = now
        progress.done(label, reason, cached=False)
    assert stream.getvalue().splitlines() == [
        "[2/4] a  hessian in 12 s; about 8 s left",
        "[3/4] b  no hessian: no luck",
        "[4/4] c  hessian in 6 s",
    ]
