"""Workers of this machine: what they give back, what becomes of them, and what they are started with."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from support.processes.failing import Unpicklable, fail

from sparseflows.experiment.scheduling.pool import side_by_side
from sparseflows.experiment.scheduling.sharing import read_shared, write_shared
from sparseflows.flow.solvers.ode import SolveFailed, Status

# A script that anybody might write: it does not ask whether it is run or imported.
UNGUARDED = """
import os
from pathlib import Path
from sparseflows.experiment.scheduling.pool import side_by_side
with open("begun", "a") as file:
    file.write("x")
print(side_by_side(abs, [-1, -2, -3], 2), Path("begun").read_text())
"""

# What is there when the first line is said, and at the end of a run whose training is done by workers.
LOOKING = """
import sys
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
class Looking:
    def __init__(self, stream):
        self.stream, self.lines = stream, []
    def write(self, text):
        self.lines += [(text, "torch" in sys.modules)] if text.strip() else []
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)
sys.stderr = Looking(sys.stderr)
status = run_app(app, "sparseflows", sys.argv[1:])
first = sys.stderr.lines[0]
print(status, "results go to" in first[0], first[1], "torch._dynamo" in sys.modules)
"""


def test_results_come_in_the_order_of_the_items() -> None:
    assert side_by_side(operator.neg, list(range(20)), 3) == [-n for n in range(20)]


def test_the_first_error_is_raised_and_the_others_are_ended() -> None:
    began = time.monotonic()
    with pytest.raises(TypeError, match="NoneType"):
        side_by_side(time.sleep, [60, None], 2)
    assert time.monotonic() - began < 50
    assert multiprocessing.active_children() == []


def test_an_error_that_cannot_be_pickled_is_told_all_the_same() -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Unpicklable(1, 2)))
    with pytest.raises(RuntimeError, match="Unpicklable: 1 and 2"):
        side_by_side(fail, [1], 2)


def test_a_solve_that_failed_comes_back_as_itself() -> None:
    found = pickle.loads(pickle.dumps(SolveFailed(Status.UNDERFLOW, 7, "log p")))
    assert (found.status, found.nfe) == (Status.UNDERFLOW, 7)
    assert str(found).startswith("log p cannot be solved: ")


def test_a_worker_that_is_killed_breaks_the_pool() -> None:
    with pytest.raises(BrokenProcessPool):
        side_by_side(os._exit, [1, 1], 2)
    assert side_by_side(abs, [-1], 2) == [1]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, though a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal to oneself alone")
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_workers() -> None:
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side_by_side(time.sleep, [60, 60], 2)
    assert time.monotonic() - began < 50
    assert multiprocessing.active_children() == []


def test_workers_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    side_by_side(abs, [-1], 2)  # the fork server is there
    monkeypatch.setenv("SPARSEFLOWS_SEEN", "now")
    assert side_by_side(os.getenv, ["SPARSEFLOWS_SEEN"], 2) == ["now"]


def test_the_program_is_not_run_again_in_every_worker(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[1, 2, 3] x\n"


def test_the_first_line_does_not_wait_for_pytorch(param: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOOKING, "run", str(param), "--out", str(tmp_path), "--jobs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 True False False", done.stderr


# --- what they are handed


def handed(items: list[object], folder: Path) -> list[object]:
    write_shared(items, folder)
    return read_shared(folder)


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = [np.arange(5.0), np.zeros((0, 2)), np.arange(12).reshape(3, 4).T, np.array(3.5), np.arange(9)[::2]]
    found = handed(arrays, tmp_path)
    for one, other in zip(arrays, found, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_things_without_arrays_come_back(tmp_path: Path) -> None:
    assert handed(["a", 1, None], tmp_path) == ["a", 1, None]


def test_one_array_of_many_items_is_written_once(tmp_path: Path) -> None:
    rows = np.zeros(100_000)
    found = handed([{"rows": rows, "seed": seed} for seed in range(50)], tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1.1 * rows.nbytes
    assert all(one["rows"] is found[0]["rows"] for one in found)


def test_what_is_written_to_nobody_else_sees(tmp_path: Path) -> None:
    mine = handed([np.zeros(4)], tmp_path)[0]
    mine += 1
    assert read_shared(tmp_path)[0].tolist() == [0.0] * 4
    for file in tmp_path.iterdir():
        file.unlink()
    assert mine.tolist() == [1.0] * 4
