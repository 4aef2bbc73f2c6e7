"""`sparseflows run` in several processes: the run folder is that of one, and they begin, stop and fail together."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pairs import free_port, launch_environment

SHORT = {"train.steps": 20, "train.select": "best_val", "prune.keep_ratios": [0.5], "prune.retrain": {"steps": 10}}
NUMBERS = ("nll_val", "nll_test", "nll_train", "kl_gap")


class Started:
    """Two processes of one run, as torchrun would start them, and what they say."""

    def __init__(self, start_process: Callable[..., Any], folder: Path, *arguments: object, before: str) -> None:
        port = free_port()
        self.texts = [folder / f"said-{port}-{rank}" for rank in range(2)]
        self.processes = [
            start_process(
                arguments, text, f"import os; os.environ.update({launch_environment(rank, 2, port)})\n{before}"
            )
            for rank, text in enumerate(self.texts)
        ]

    def wait(self, seconds: float = 120) -> list[int | None]:
        """Both exit statuses."""
        return [process.wait(seconds) for process in self.processes]

    @property
    def said(self) -> list[str]:
        """What each has said so far."""
        return [text.read_text() for text in self.texts]


@pytest.fixture
def start(tmp_path: Path, start_process: Callable[..., Any]) -> Iterator[Callable[..., Started]]:
    begun: list[Started] = []

    def begin(*arguments: object, before: str = "") -> Started:
        begun.append(Started(start_process, tmp_path, "run", *arguments, before=before))
        return begun[-1]

    yield begin
    for one in begun:
        for process in one.processes:
            process.kill()


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def same_table(one: Path, other: Path) -> None:
    """Float32 training: the order of a sum shows after some digits."""
    for ours, theirs in zip(table(one), table(other), strict=True):
        for name in ("method", "seed", "stage", "status", "params", "train_steps", "n_test", "prune_ratio"):
            assert ours[name] == theirs[name]
        for name in NUMBERS:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-4)


def test_the_folder_of_two_is_that_of_one(
    start: Callable[..., Started], changed: Callable[..., Path], call, stages, tmp_path: Path
) -> None:
    param = changed(SHORT)
    run = start(param, "--out", tmp_path / "two")
    assert run.wait() == [0, 0], run.said
    folder = tmp_path / "two" / "tiny"
    assert len(stages(folder)) == 3
    assert call("run", param, "--out", tmp_path / "one").status == 0
    same_table(folder, tmp_path / "one" / "tiny")
    first, second = run.said
    assert second == ""  # the first one speaks for both
    assert first.count("training rows/s, 2 processes") == 3
    assert "tiny: 2 processes; results go to" in first
    summaries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    with_rate = [one for one in summaries if "rows_per_second" in one]
    assert len(with_rate) == 3
    assert all(one["processes"] == 2 and one["rows_per_second"] > 0 for one in with_rate)
    assert not list(folder.rglob("*.pt"))
    assert not list(folder.rglob(".*.tmp"))


LONG = {"train.steps": 200, "prune.methods": ["unstructured"], "prune.keep_ratios": [0.5]}


SLOW = """
import time
import sparseflows.experiment.folder.checkpoints as checkpoints
write = checkpoints.write_whole
checkpoints.write_whole = lambda path, content: (write(path, content), time.sleep(0.2))
"""


def begun(folder: Path, run: Started) -> None:
    """Wait for a checkpoint."""
    last = time.monotonic() + 90
    while not list(folder.rglob("*.pt")):
        assert time.monotonic() < last, run.said
        assert all(process.wait(0) is None for process in run.processes), run.said
        time.sleep(0.02)


@pytest.mark.cluster
@pytest.mark.parametrize("killed", [0, 1])
def test_where_one_is_killed_the_other_ends_and_one_process_goes_on(
    killed: int, start: Callable[..., Started], changed: Callable[..., Path], call, tmp_path: Path
) -> None:
    param, folder = changed(LONG), tmp_path / "two" / "tiny"
    run = start(param, "--out", tmp_path / "two")
    begun(folder, run)
    run.processes[killed].kill()
    assert run.processes[1 - killed].wait(30) == 1
    lines = [line for line in run.said[1 - killed].splitlines() if "another process" in line]
    assert len(lines) == 1
    assert "goes on from the last checkpoint" in lines[0]
    assert "Traceback" not in run.said[1 - killed]
    if killed == 0:
        return
    checkpoints = list(folder.rglob("*.pt"))
    assert checkpoints
    for name, place in (("resumed", folder.parent), ("undisturbed", tmp_path / "one")):
        said = call("run", param, "--out", place)
        assert said.status == 0, (name, said.err)
    same_table(folder, tmp_path / "one" / "tiny")


@pytest.mark.cluster
def test_two_go_on_where_one_was_killed(
    start: Callable[..., Started], changed: Callable[..., Path], start_process, call, tmp_path: Path
) -> None:
    param, folder = changed(LONG), tmp_path / "one" / "tiny"
    alone = start_process(["run", param, "--out", tmp_path / "one"], tmp_path / "log", SLOW)
    last = time.monotonic() + 60
    while not list(folder.rglob("*.pt")):
        assert time.monotonic() < last
        time.sleep(0.01)
    alone.kill()
    assert list(folder.rglob("*.pt"))
    run = start(param, "--out", tmp_path / "one")
    assert run.wait() == [0, 0], run.said
    whole = call("run", param, "--out", tmp_path / "undisturbed")
    assert whole.status == 0
    same_table(folder, tmp_path / "undisturbed" / "tiny")


@pytest.mark.cluster
def test_ctrl_c_ends_both_with_one_line(
    start: Callable[..., Started], changed: Callable[..., Path], tmp_path: Path
) -> None:
    run = start(changed(LONG), "--out", tmp_path / "two")
    begun(tmp_path / "two" / "tiny", run)
    for process in run.processes:
        os.kill(process.pid, signal.SIGINT)
    assert set(run.wait(30)) <= {1, 130}
    together = "".join(run.said)
    assert "Traceback" not in together
    assert together.count("goes on from the last checkpoint") == 1


WRONG = {
    "an unknown key": (["--set", "train.no_such=1"], "no_such"),
    "jobs": (["--jobs", "2"], "--jobs 2 works on cascades side by side"),
    "a folder in use": ([], "another `sparseflows run` is at work"),
}


@pytest.mark.cluster
@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_line_and_status_2(
    what: str, start: Callable[..., Started], changed: Callable[..., Path], run: Path, param: Path
) -> None:
    options, wanted = WRONG[what]
    with contextlib.ExitStack() as held:
        if what == "a folder in use":
            from sparseflows.experiment.folder.folder import RunFolder

            held.enter_context(RunFolder.open(run).lock())
        both = start(param, "--out", run.parent, *options)
        assert both.wait(60) == [2, 2]
    together = "".join(both.said)
    assert together.count("\n") == 1, together
    assert wanted in together


FULL = """
import sparseflows.experiment.folder.checkpoints as checkpoints
from sparseflows.errors import RunError
def full(path, content):
    raise RunError(f"{path}: could not be written (No space left on device)")
checkpoints.write_whole = full
"""


@pytest.mark.cluster
def test_a_full_disk_ends_both_with_one_line(
    start: Callable[..., Started], changed: Callable[..., Path], tmp_path: Path
) -> None:
    run = start(changed(LONG), "--out", tmp_path / "two", before=FULL)
    assert run.wait(60) == [1, 1]
    together = "".join(run.said)
    assert "Traceback" not in together
    assert together.count("No space left on device") == 1


# Everything on 127.0.0.1: torchrun itself would keep its store open to the network (see docs/howto/torchrun.md).
LOOPBACK = ["--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file"]


@pytest.mark.cluster
@pytest.mark.slow
def test_torchrun(changed: Callable[..., Path], call, tmp_path: Path) -> None:
    param = changed(SHORT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *LOOPBACK]
    command += ["--rdzv-endpoint", str(tmp_path / "meet"), "-m", "sparseflows", "run", str(param)]
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "two"), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["stages"]) == 3  # one document on standard output
    assert call("run", param, "--out", tmp_path / "one").status == 0
    same_table(tmp_path / "two" / "tiny", tmp_path / "one" / "tiny")
