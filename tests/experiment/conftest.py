"""A tiny experiment, run once a session; copies of its folder to damage; processes to kill."""

from __future__ import annotations

import contextlib
import copy
import csv
import hashlib
import io
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0],
    "data": {"name": "gaussian_spiral", "n_train": 200},
    "flow": {"hidden": [8, 8], "activation": "silu", "time": "concat"},
    "train": {"objective": "flow_matching", "steps": 60, "batch": 64, "lr": 0.02},
    "prune": {
        "methods": ["unstructured", "structured"],
        "keep_ratios": [0.7, 0.5, 0.3],
        "retrain": {"steps": 40},
    },
    "evaluate": {"max_rows": 50},
}


class Said(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


def command(*args: object) -> Said:
    """A `sparseflows` command in this process."""
    from sparseflows.cli.app import app
    from sparseflows.cli.console import run_app

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_app(app, "sparseflows", [str(arg) for arg in args])
    return Said(status, out.getvalue(), err.getvalue())


def params_text(changes: dict[str, Any]) -> str:
    """The tiny param file with `{"train.lr": 1.0}` and the like changed."""
    document = copy.deepcopy(SETTINGS)
    for key, value in changes.items():
        *sections, last = key.split(".")
        node = document
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return yaml.safe_dump(document)


@pytest.fixture(scope="session")
def tiny_params() -> Callable[[dict[str, Any]], str]:
    return params_text


@pytest.fixture(scope="session")
def call() -> Callable[..., Said]:
    return command


@pytest.fixture(scope="session")
def param(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The param file of the tiny experiment."""
    path = tmp_path_factory.mktemp("param") / "tiny.yaml"
    path.write_text(params_text({}))
    return path


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write a param file that differs from the tiny one."""

    def write(changes: dict[str, Any]) -> Path:
        path = tmp_path / f"{len(list(tmp_path.glob('*.yaml')))}.yaml"
        path.write_text(params_text(changes))
        return path

    return write


@pytest.fixture(scope="session")
def undisturbed(param: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """The run folder of the tiny experiment, and what the command said. Not to be written to."""
    out = tmp_path_factory.mktemp("runs")
    said = command("run", param, "--out", out)
    assert said.status == 0, said.err
    return out / "tiny", said


@pytest.fixture(scope="session")
def finished(undisturbed: tuple[Path, Said]) -> Path:
    return undisturbed[0]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run folder, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "tiny"))


@pytest.fixture
def run_again(param: Path) -> Callable[..., Said]:
    """The command that made the folder, once more."""
    return lambda folder, *options: command("run", param, "--out", folder.parent, *options)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def rows() -> Callable[[Path], list[dict[str, str]]]:
    """Rows of results.csv."""
    return read_rows


def numbers_of(folder: Path) -> dict[str, Any]:
    """All that a run computed, time apart: rows, metrics, and the bytes of models and masks."""
    tensors = sorted(folder.glob("cascades/*/stages/[0-9]*/*.safetensors"))
    return {
        "rows": [{k: v for k, v in row.items() if k != "train_seconds"} for row in read_rows(folder)],
        "metrics": (folder / "metrics.jsonl").read_text(),
        "tensors": {str(path.relative_to(folder)): digest(path) for path in tensors},
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def numbers() -> Callable[[Path], dict[str, Any]]:
    return numbers_of


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes | None]]:
    """Every file below a folder with its content, folders with None."""
    return lambda folder: {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def whole_stages(folder: Path) -> dict[str, str]:
    """`<cascade>/<k>` → digest of record.json, after a check that the stage is whole."""
    from safetensors.torch import load_file

    found = {}
    for stage in sorted(folder.glob("cascades/*/stages/[0-9]*")):
        record = json.loads((stage / "record.json").read_text())
        expected = {"model.safetensors", "masks.safetensors"} if record["status"] == "done" else set()
        assert set(record["sha256"]) == expected
        assert {path.name for path in stage.iterdir()} == expected | {"record.json"}
        for name, sha256 in record["sha256"].items():
            assert digest(stage / name) == sha256
            assert load_file(stage / name)
        found[f"{stage.parents[1].name}/{stage.name}"] = digest(stage / "record.json")
    return found


@pytest.fixture(scope="session")
def stages() -> Callable[[Path], dict[str, str]]:
    return whole_stages


# --- processes to kill


# The whole of such a process. As text, because it cannot import a file named conftest of its own accord.
CHILD = """
import os, signal
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app

# A suite that a shell started in the background has Ctrl-C ignored, and passes that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
exec(before)
with open(log, "a") as stream:
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
ready.send(None)
raise SystemExit(run_app(app, "sparseflows", args))
"""


class Process:
    """A command at work in a process of its own, its output in a file."""

    def __init__(self, start: Any, args: list[str], log: Path, before: str) -> None:
        self.log = log
        here, there = multiprocessing.Pipe()
        settings = {"args": args, "log": str(log), "ready": there, "before": before}
        self.process = start(target=exec, args=(CHILD, settings))
        self.process.start()
        assert here.poll(60), "the process did not start"

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def wait(self, seconds: float) -> int | None:
        """Exit status, negative for a signal; None where it is still at work after so many seconds."""
        self.process.join(seconds)
        return self.process.exitcode  # type: ignore[no-any-return]

    def kill(self) -> None:
        self.process.kill()
        self.process.join(30)


@pytest.fixture(scope="session")
def start_process() -> Iterator[Callable[..., Process]]:
    """Start a command in a process that is forked off a server with all imports done, so within milliseconds.

    It takes the arguments, the file for the output, and Python code to run `before`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "sparseflows.experiment.scheduling.run", "torch._dynamo"])
    started: list[Process] = []

    def start(args: list[object], log: Path, before: str = "") -> Process:
        started.append(Process(context.Process, [str(arg) for arg in args], log, before))
        return started[-1]

    yield start
    for one in started:
        one.kill()
