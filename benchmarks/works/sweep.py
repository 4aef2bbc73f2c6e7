"""sweep, scheduling: what a second process gains on 24 cascades, and what a task costs beside its work, on 2,000."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.context import PARAM, Context
from benchmarks.measure import Goal, Measurement

POINTS, FEW = 2000, 200


def sweep(context: Context) -> list[Measurement]:
    """24 cascades of two stages by one process and by two, in turns; their numbers must agree to the bit."""
    document = yaml.safe_load((PARAM / "quick.yaml").read_text()) | {"name": "sweep"}
    document["train"]["steps"] = 300 if context.settings.quick else 1200
    document["prune"] |= {"keep_ratios": [0.7, 0.5], "retrain": {"steps": document["train"]["steps"]}}
    document["sweep"] = {"flow.activation": ["silu", "tanh", "softplus"], "train.lr": [0.01, 0.005, 0.002, 0.001]}
    alone: list[float] = []
    two: list[float] = []
    results, machine = [], [_two_against_one()]
    repeats = 1 if context.settings.quick else context.settings.repeats
    for number in range(repeats):
        for jobs in (1, 2) if number % 2 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                found, rows, _ = _run(document, Path(folder), jobs)
            (alone if jobs == 1 else two).append(found["command_seconds"])
            results.append(rows)
            context.tell((len(alone) + len(two)) / (2 * repeats))
    machine.append(_two_against_one())
    same = all(rows == results[0] for rows in results)
    bare = " and ".join(f"{ratio:.2f}" for ratio in machine)
    note = (
        f"24 cascades, 60 stages; the peer is one job; numbers {'the same' if same else 'DIFFER'}; two bare processes "
        f"did {bare} times the work of one before and after: more than that cannot be had here"
    )
    case = "--jobs 2, whole command"
    goal, extra = Goal("at least", 1.7), {"bare_processes": machine}
    return [Measurement("sweep", case, two, alone, note, goal=goal, failures=int(not same), extra=extra)]


def scheduling(context: Context) -> list[Measurement]:
    """Milliseconds a task beyond its work: wall less work / 2, less the same of a few tasks; and peak memory."""
    few, some, many = (_tiny(n) for n in (2, FEW, POINTS))
    costs, peaks = [], []
    for number in range(1 if context.settings.quick else context.settings.repeats):
        with tempfile.TemporaryDirectory() as folder:
            idle = [_run(document, Path(folder) / str(i), 2) for i, document in enumerate((few, some, many))]
        beyond = [found["command_seconds"] - found["work_seconds"] / 2 for found, _, _ in idle]
        costs.append(1000 * (beyond[2] - beyond[0]) / (POINTS - 2))
        peaks.append(idle[2][2] - idle[1][2])
        context.tell((number + 1) / context.settings.repeats)
    note = f"{POINTS:,} cascades of one step; start-up (that of 2 cascades) taken off"
    cost = Measurement("scheduling", "a task, --jobs 2", costs, note=note, unit="ms", goal=Goal("at most", 5))
    grown = f"peak of the command with {POINTS:,} points less that with {FEW}"
    return [cost, Measurement("scheduling", "memory", peaks, note=grown, unit="MiB", goal=Goal("at most", 50))]


def _two_against_one() -> float:
    """Work that two processes do on this machine just now, as a multiple of what one does in the same time."""
    command = [sys.executable, "-c", "for i in range(20_000_000): pass"]

    def seconds(processes: int) -> float:
        started = time.perf_counter()
        running = [subprocess.Popen(command) for _ in range(processes)]
        for process in running:
            process.wait()
        return time.perf_counter() - started

    return 2 * seconds(1) / seconds(2)


def _tiny(points: int) -> dict[str, Any]:
    return {
        "name": "many",
        "data": {"name": "moons", "n_train": 32},
        "flow": {"hidden": [4], "activation": "tanh", "time": "concat"},
        "train": {"objective": "flow_matching", "steps": 1, "batch": 32},
        "evaluate": {"max_rows": 8},
        "sweep": {"data.seed": list(range(points))},
    }


def _run(document: dict[str, Any], folder: Path, jobs: int) -> tuple[dict[str, Any], list[list[str]], float]:
    """What the command says with `--json`, the rows of its results without their times, and its peak in MiB."""
    folder.mkdir(exist_ok=True)
    param = folder / "param.yaml"
    param.write_text(yaml.safe_dump(document, sort_keys=False))
    options = ["--out", str(folder), "--jobs", str(jobs), "--json"]
    command = [sys.executable, "-m", "sparseflows", "run", str(param), *options]
    started = time.perf_counter()
    with (folder / "out.json").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    found = json.loads((folder / "out.json").read_text()) | {"command_seconds": took}
    stages = [stage for run in found["runs"] for stage in run["stages"]]
    rows = [[str(value) for name, value in stage.items() if name != "train_seconds"] for stage in stages]
    return found, rows, usage.ru_maxrss / 1024
