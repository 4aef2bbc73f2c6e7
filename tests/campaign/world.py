"""What all cases start from: tiny experiments, finished and half-way, good files, and what commands say of them."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaign.commands import Ended, say
from tests.campaign.disturbances import count_changes, die_at
from tests.campaign.numbers import numbers

TINY = """\
name: tiny
seeds: [0]
data: {name: gaussian_spiral, n_train: 64}
flow: {hidden: [8], activation: silu, time: concat}
train: {objective: flow_matching, steps: 40, batch: 32, lr: 0.02}
prune: {methods: [unstructured, structured], keep_ratios: [0.7], retrain: {steps: 20}}
evaluate: {max_rows: 16}
"""
LIKELIHOOD = """\
name: likelihood
seeds: [0]
data: {name: table, path: TABLE}
flow: {hidden: [6]}
train: {objective: nll, steps: 20, batch: 16, lr: 0.02, select: best_val, selections: 2, selection_rows: 8}
prune: {methods: [structured], keep_ratios: [0.6], retrain: {steps: 10}}
evaluate: {max_rows: 8}
"""
SWEEP = """\
name: swept
seeds: [0]
data: {name: gaussian_spiral, n_train: 64}
flow: {hidden: [4], time: concat}
train: {objective: flow_matching, steps: 10, batch: 32}
prune: {methods: [structured], keep_ratios: [0.5], retrain: {steps: 5}}
evaluate: {max_rows: 8}
sweep: {flow.activation: [tanh, silu]}
"""
COLUMNS = 3
STAGE = "dense-s0/0"


@dataclass(frozen=True)
class Experiment:
    """A tiny experiment and its undisturbed run.

    Attributes:
        param: its param file.
        run: the finished folder, not to be written to.
        seconds: what the run took.
        changes: how often it opened, renamed, flushed or removed a file.
        numbers: what it computed.
        half_way: folders of runs that were killed on the way.
    """

    param: Path
    run: Path
    seconds: float
    changes: int
    numbers: dict[str, Any]
    half_way: tuple[Path, ...] = ()


@dataclass
class World:
    """The good things that the cases damage copies of."""

    folder: Path
    experiments: dict[str, Experiment] = field(default_factory=dict)
    tables: dict[str, bytes] = field(default_factory=dict)
    points: Path = Path()
    said: dict[str, Any] = field(default_factory=dict)  # what commands say of the undisturbed run

    @property
    def tiny(self) -> Experiment:
        """Flow matching on a toy set."""
        return self.experiments["tiny"]

    @property
    def read(self) -> Path:
        """A copy of the undisturbed tiny run, for commands that write what they find into it."""
        return self.folder / "read" / "tiny"

    @property
    def likelihood(self) -> Experiment:
        """Maximum likelihood on a table."""
        return self.experiments["likelihood"]


def make_world(folder: Path) -> World:
    """Run the experiments, undisturbed and half-way; about a quarter of a minute."""
    world = World(folder)
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(40, COLUMNS)) @ generator.normal(size=(COLUMNS, COLUMNS)) + 5
    text = "".join(",".join(f"{x:.6g}" for x in row) + "\n" for row in rows)
    np.save(folder / "rows.npy", rows)
    np.save(folder / "rows32.npy", np.asfortranarray(rows.astype(np.float32)))
    world.tables = {
        "plain.csv": text.encode(),
        "header.csv": ("a,b,c\n" + text).encode(),
        "quoted.csv": ('"a","b, with comma","c"\r\n' + text.replace(",", ', "', 1).replace(",", '",', 1)).encode(),
        "rows.npy": (folder / "rows.npy").read_bytes(),
        "rows32.npy": (folder / "rows32.npy").read_bytes(),
    }
    (folder / "rows.csv").write_bytes(world.tables["header.csv"])
    world.points = folder / "points.npy"
    np.save(world.points, generator.normal(size=(6, 2)))
    for name, text in (("tiny", TINY), ("likelihood", LIKELIHOOD.replace("TABLE", str(folder / "rows.csv")))):
        param = folder / f"{name}.yaml"
        param.write_text(text)
        world.experiments[name] = _undisturbed(folder, name, param)
    shutil.copytree(world.tiny.run, folder / "read" / "tiny")
    (folder / "swept.yaml").write_text(SWEEP)
    _right(say(folder, "run", folder / "swept.yaml", "--out", folder / "good"))
    return world


def copied(source: Path, folder: Path) -> Path:
    """A copy of a run folder below `folder`, to be damaged."""
    return Path(shutil.copytree(source, folder / source.name))


def _undisturbed(folder: Path, name: str, param: Path) -> Experiment:
    run = folder / "good" / name
    began = time.monotonic()
    _right(say(folder, "run", param, "--out", run.parent))
    seconds = time.monotonic() - began
    counted = folder / "counted"
    counted.unlink(missing_ok=True)
    _right(say(folder, "run", param, "--out", folder / "again", before=count_changes(folder / "again", counted)))
    changes, found = int(counted.read_text()), numbers(run)
    if numbers(folder / "again" / name) != found:
        raise RuntimeError(f"{name}: two undisturbed runs differ")
    half_way = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        out = folder / f"half-{share}"
        say(folder, "run", param, "--out", out, before=die_at(int(share * changes), below=out))
        half_way.append(out / name)
    return Experiment(param, run, seconds, changes, found, tuple(one for one in half_way if os.path.isdir(one)))


def _right(ended: Ended) -> None:
    if ended.status != 0:
        raise RuntimeError(f"an undisturbed command failed: {ended.err}")
