"""Processes that are killed while loggers listen: in the end the loggers know what an undisturbed run's know."""

from __future__ import annotations

import time
from random import Random

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CHANGES = {
    "train.select": "best_val", "train.selections": 4, "train.steps": 120, "train.selection_rows": 20,
    "prune.methods": ["structured"], "prune.keep_ratios": [0.5], "evaluate.max_rows": 20,
}  # fmt: skip


def scalars(folder):
    found = {}
    for place in sorted({path.parent for path in folder.rglob("events.*")}):
        reader = EventAccumulator(str(place), size_guidance={"scalars": 0}).Reload()
        for tag in reader.Tags()["scalars"]:
            points = [(event.step, event.value) for event in reader.Scalars(tag)]
            found[str(place.relative_to(folder)), tag] = points
    return found


def kill_until(kills, changed, tmp_path, start_process, numbers):
    """Kill a run with TensorBoard again and again; every one that comes to its end is compared."""
    param, log = changed(CHANGES), tmp_path / "log"
    random, done, again, out = Random(7), 0, 0, tmp_path / "0"
    options = ["--log", "tensorboard"]
    whole = start_process(["run", param, "--out", tmp_path / "whole", *options], log)
    began = time.monotonic()
    assert whole.wait(120) == 0, log.read_text()
    whole_seconds = time.monotonic() - began
    expected = scalars(tmp_path / "whole"), numbers(tmp_path / "whole/tiny")
    for _ in range(20 * kills):
        process = start_process(["run", param, "--out", out, *options], log)
        status = process.wait(random.uniform(0.3, whole_seconds))
        if status is None:
            process.kill()
            done += 1
            for points in scalars(out).values():  # at any moment
                assert len({step for step, _ in points}) == len(points)
            continue
        assert status == 0, log.read_text()
        assert "raised" not in log.read_text()
        assert (scalars(out), numbers(out / "tiny")) == expected
        assert len(list(out.rglob("events.*"))) == len(list((tmp_path / "whole").rglob("events.*")))
        assert not list(out.rglob("live.jsonl"))
        again += 1
        if done >= kills:
            return done
        out = tmp_path / str(again)
    raise AssertionError(f"not through after {done} kills")


@pytest.mark.slow
def test_kills_at_random_moments_double_no_point(changed, tmp_path, start_process, numbers):
    assert kill_until(12, changed, tmp_path, start_process, numbers) >= 12
