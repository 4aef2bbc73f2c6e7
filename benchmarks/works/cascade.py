"""cascade: a whole short cascade in a run folder, its wall seconds split into training and all the rest."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.context import Context
from benchmarks.measure import Measurement, Spread
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.rows import prepare
from sparseflows.experiment.scheduling.run import run_experiment
from sparseflows.specs import Spec

SHORT = ("prune.keep_ratios=[0.25]", "train.steps=400", "prune.retrain={steps: 200}")


class _Stages(Progress):
    """Notes what every stage takes, from its beginning to its being written."""

    def __init__(self, stages: int) -> None:
        super().__init__(stages, stream=io.StringIO(), bars=False)
        self.walls: dict[str, float] = {}
        self.begun = 0.0

    def begin(self, label: str) -> None:
        """A stage begins."""
        super().begin(label)
        self.begun = time.perf_counter()

    def done(self, record: Record) -> None:
        """A stage is written."""
        self.walls[f"{record.cascade}/{record.stage}"] = time.perf_counter() - self.begun
        super().done(record)


def run(context: Context) -> list[Measurement]:
    """Repeats of quick.yaml: shortened with --quick, else as it is; each in a fresh folder."""
    quick = context.settings.quick
    spec = context.spec("quick.yaml", *(SHORT if quick else ()))
    walls, trainings, stages = [], [], []
    for number in range(context.settings.repeats):
        wall, records, each = _once(spec)
        failed = [record for record in records if record.status != "done"]
        if failed:
            raise RuntimeError(f"stage {failed[0].cascade}/{failed[0].stage}: {failed[0].reason}")
        walls.append(wall)
        trainings.append(sum(record.train_seconds or 0.0 for record in records))
        stages.append({label: (took, train) for label, took, train in each})
        context.tell((number + 1) / context.settings.repeats)
    torch.set_num_threads(context.settings.threads)  # the experiment sets its own
    rest = [wall - training for wall, training in zip(walls, trainings, strict=True)]
    note = f"quick.yaml{', shortened' if quick else ''}: {len(stages[0])} stages, each with 3 × 1,500 exact likelihoods"
    found = [
        Measurement("cascade", "whole", walls, note=note, extra={"stages": stages}),
        Measurement("cascade", "training alone", trainings),
        Measurement("cascade", "evaluation, pruning, files", rest),
    ]
    for label in stages[0]:
        took = [one[label] for one in stages]
        train = Spread.of([training for _, training in took]).median
        found.append(Measurement("cascade", label, [wall for wall, _ in took], note=f"of it training {train:.2f} s"))
    return found


def _once(spec: Spec) -> tuple[float, list[Record], list[tuple[str, float, float]]]:
    """Wall seconds, records, and (stage, its wall seconds, its training's)."""
    with tempfile.TemporaryDirectory(prefix="sparseflows-benchmark-") as folder:
        splits, digest = prepare(spec)
        progress = _Stages(len(stages(spec)))
        started = time.perf_counter()
        run_folder = RunFolder.claim(Path(folder), spec, digest)
        with run_folder.lock():
            records = run_experiment(spec, run_folder, splits, progress)
        wall = time.perf_counter() - started
    each = []
    for record in records:
        label = f"{record.cascade}/{record.stage}"
        each.append((label, progress.walls[label], record.train_seconds or 0.0))
    return wall, records, each
