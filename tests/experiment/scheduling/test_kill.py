"""Processes that are killed: no stage is lost, nothing is half-written, and the numbers stay the same."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

import pytest

from sparseflows.experiment.folder.records import Record

COLUMNS = [field.name for field in fields(Record)]


# Files take their time, so that kills fall into the middle of writing one.
SLOW_DISK = """
import time
fsync = os.fsync
os.fsync = lambda descriptor: (fsync(descriptor), time.sleep(0.005))
"""


@dataclass
class Tally:
    """What a series of kills did."""

    kills: int = 0
    runs: int = 0  # completed in spite of them
    kills_in_training: int = 0  # of those, with a checkpoint or a stage to go on from
    kills_in_writing: int = 0  # of those, with a file begun that was not in its place yet


def check_whole(folder: Path, stages) -> dict[str, str]:
    """Stages that are there; each of them and each table must be whole."""
    if not folder.exists():
        return {}
    json.loads((folder / "run.json").read_text())
    results, metrics = folder / "results.csv", folder / "metrics.jsonl"
    if results.exists():
        with results.open(newline="") as stream:
            head, *rows = list(csv.reader(stream))
        assert head == COLUMNS
        assert all(len(row) == len(COLUMNS) for row in rows)
        assert results.read_bytes().endswith(b"\n")
    if metrics.exists():
        assert all(json.loads(line) for line in metrics.read_text().splitlines())
    return stages(folder)


def kill_until(kills: int, param: Path, finished: Path, tmp_path: Path, start_process, stages, numbers) -> Tally:
    """Kill the run of `param` again and again, and compare each one that comes to its end with `finished`."""
    random, tally = Random(20240), Tally()
    out, log = tmp_path / "0", tmp_path / "log"
    timed = start_process(["run", param, "--out", tmp_path / "timed"], log, SLOW_DISK)
    began = time.monotonic()
    assert timed.wait(120) == 0
    whole = time.monotonic() - began
    seen: dict[str, str] = {}
    for _ in range(20 * kills):
        process = start_process(["run", param, "--out", out], log, SLOW_DISK)
        status = process.wait(random.uniform(0.0, whole / 3))
        if status is None:
            process.kill()
            tally.kills += 1
            tally.kills_in_writing += any(path for name in (".*.tmp", ".writing*") for path in out.rglob(name))
            tally.kills_in_training += any((out / "tiny").glob("cascades/*/checkpoints/*.pt")) or bool(seen)
        else:
            assert status == 0, log.read_text()
        now = check_whole(out / "tiny", stages)
        assert seen.items() <= now.items()  # what was whole once stays as it is
        seen = now
        if status == 0:
            assert numbers(out / "tiny") == numbers(finished)
            assert not list(out.rglob(".*.tmp")), "litter"
            assert not list(out.rglob("*.pt")), "checkpoints of stages that are whole"
            assert not list(out.rglob(".damaged*"))
            tally.runs += 1
            if tally.kills >= kills:
                return tally
            out, seen = tmp_path / str(tally.runs), {}
    raise AssertionError(f"not through after {tally}")


def test_kills_at_random_moments(param, finished, tmp_path, start_process, stages, numbers):
    tally = kill_until(6, param, finished, tmp_path, start_process, stages, numbers)
    assert tally.kills_in_training >= 3


@pytest.mark.slow
def test_fifty_kills(param, finished, tmp_path, start_process, stages, numbers):
    tally = kill_until(50, param, finished, tmp_path, start_process, stages, numbers)
    print(tally)  # with -s
    assert tally.kills >= 50
    assert tally.kills_in_training >= 25


# Where a process kills itself: (the n-th time that) it comes to this point. Each goes on where the one before died.
MOMENTS = {
    "while the files of a stage are written": """
write = store.write_whole
def write_or_die(path, content):
    if path.name == "record.json":
        die()
    write(path, content)
store.write_whole = write_or_die
""",
    "before a stage is put in its place": """
def rename_or_die(old, new):
    die()
store.os = type("os", (), {**vars(os), "rename": staticmethod(rename_or_die)})
""",
    "between the stage and the tables": """
tables, times = store.StageFiles.write_results, []
def tables_or_die(self):
    times.append(0)
    if len(times) == 2:
        die()
    tables(self)
store.StageFiles.write_results = tables_or_die
""",
    "between the stage and the removal of its checkpoints": """
clear = checkpoints.Checkpoints.clear
checkpoints.Checkpoints.clear = lambda self: die() if self.stage == 1 else clear(self)
""",
    "between the two halves of a table's writing": """
replace, times = Path.replace, []
def replace_or_die(self, target):
    if target.name == "results.csv":
        times.append(0)
        if len(times) == 2:
            die()
    return replace(self, target)
Path.replace = replace_or_die
""",
    "between two checkpoints": """
save, times = checkpoints.Checkpoints.save, []
def save_or_die(self, checkpoint, attempt):
    times.append(0)
    if len(times) == 4:
        die()
    save(self, checkpoint, attempt)
checkpoints.Checkpoints.save = save_or_die
""",
}
BEFORE = """
import os
import signal
from pathlib import Path
from sparseflows.experiment.folder import checkpoints
from sparseflows.experiment.folder import stage_files as store

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kills_at_the_worst_moments(param, finished, tmp_path, start_process, stages, numbers):
    out, log, seen = tmp_path / "out", tmp_path / "log", {}
    for moment, code in MOMENTS.items():
        process = start_process(["run", param, "--out", out], log, BEFORE + code)
        assert process.wait(60) == -signal.SIGKILL, moment
        now = check_whole(out / "tiny", stages)
        assert seen.items() <= now.items(), moment
        seen = now
    assert len(seen) == 3  # the third, fourth and fifth process each finished one
    assert start_process(["run", param, "--out", out], log).wait(60) == 0
    assert numbers(out / "tiny") == numbers(finished)
    assert not [path for pattern in (".*.tmp", ".writing*", "*.pt") for path in out.rglob(pattern)]


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_ctrl_c_says_how_to_go_on(param, finished, tmp_path, start_process, call, stages, numbers):
    out, log = tmp_path / "out", tmp_path / "log"
    process = start_process(["run", param, "--out", out], log)
    wait_for(lambda: any(out.glob("tiny/cascades/*/checkpoints/*.pt")))
    before = (out / "tiny" / "run.json").stat().st_ino
    for options in ([], ["--force"]):
        said = call("run", param, "--out", out, *options)
        assert said.status == 2
        assert said.out == ""
        assert said.err == (
            f"sparseflows: {out / 'tiny'}: another `sparseflows run` is at work in this folder; wait for it\n"
        )
    assert (out / "tiny" / "run.json").stat().st_ino == before
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    *_, last = log.read_text().splitlines()
    assert last == "sparseflows: interrupted; the same command goes on from the last checkpoint"
    assert "Traceback" not in log.read_text()
    check_whole(out / "tiny", stages)
    assert call("run", param, "--out", out).status == 0
    assert numbers(out / "tiny") == numbers(finished)


def test_ctrl_c_after_force_does_not_advise_to_start_over_again(param, tmp_path, start_process):
    log = tmp_path / "log"
    process = start_process(["run", param, "--out", tmp_path, "--force"], log)
    wait_for(lambda: any(tmp_path.glob("tiny/cascades/*/checkpoints/*.pt")))
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert "the same command without --force goes on from the last checkpoint" in log.read_text()
