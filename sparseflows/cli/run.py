"""What `sparseflows run` does once its options are read: one experiment, or those of a sweep."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseflows.cli.console import print_result
from sparseflows.errors import InputError, RunError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.summary import results_text
from sparseflows.experiment.rows import notes_of, prepare
from sparseflows.experiment.sweep.points import Sweep
from sparseflows.specs import Spec

if TYPE_CHECKING:
    from sparseflows.distributed.torchrun import Place
    from sparseflows.experiment.scheduling.workers import Workers


@dataclass(frozen=True)
class RunOptions:
    """The options of the command; see its help."""

    out: Path
    force: bool
    join: bool
    backend: str
    jobs: int | None
    address: str | None
    gpus: float | None
    log: tuple[str, ...]
    as_json: bool

    def workers(self, devices: Iterable[str]) -> Workers:
        """Who works on `devices`.

        Raises:
            InputError: options that do not go together, found before PyTorch is loaded.
        """
        from sparseflows.experiment.scheduling.workers import DaskWorkers, LocalWorkers, RayWorkers

        if self.force and self.join:
            raise InputError("--join takes part in what is there, --force starts over: give one of them")
        without = next((device for device in sorted(devices) if not device.startswith("cuda")), None)
        if self.gpus is not None and without is not None:
            raise InputError(f"--gpus-per-task goes with device: cuda; the settings say device: {without}")
        if self.backend == "local":
            for option, value in (("--address", self.address), ("--gpus-per-task", self.gpus)):
                if value is not None:
                    raise InputError(f"{option} goes with --backend dask or ray; the local one works on this machine")
            return LocalWorkers(self.jobs or 1)
        if self.jobs is not None:
            taken = f"--backend {self.backend} takes all workers of the cluster"
            raise InputError(f"--jobs goes with the local backend; {taken}")
        return (DaskWorkers if self.backend == "dask" else RayWorkers)(self.address, self.gpus)

    def check_devices(self, devices: Iterable[str]) -> None:
        """Raise InputError where one is not there; only PyTorch knows, and it is asked before a folder is made."""
        for device in sorted({*devices} - {"cpu"}):
            if self.backend == "local":
                from sparseflows.experiment.stages.context import check_device

                check_device(device)


def run_one(spec: Spec, options: RunOptions) -> None:
    """Carry one experiment out and print its table."""
    workers = options.workers([spec.device])
    workers.warm_up()
    splits, digest = prepare(spec)
    options.check_devices([spec.device])
    with workers.connected() as lost:
        folder = RunFolder.claim(options.out, spec, digest, force=options.force)
        with folder.lock(options.join):
            _note(notes_of(splits))
            print(f"{spec.name}: results go to {folder.path}", file=sys.stderr)
            from sparseflows.experiment.monitoring.progress import Progress
            from sparseflows.experiment.scheduling.run import run_experiment

            records = run_experiment(spec, folder, splits, Progress(len(stages(spec))), workers, lost, options.log)
    _print_records(folder.path, records, options.as_json)


def check_shared(found: Spec | Sweep, options: RunOptions) -> Spec:
    """What several processes train together.

    Raises:
        InputError: what does not go with torchrun.
    """
    if isinstance(found, Sweep):
        raise InputError(f"{found.name}: a sweep shares out cascades, torchrun the rows of one flow; run them apart")
    if (options.jobs or 1) > 1:
        jobs = f"--jobs {options.jobs}"
        raise InputError(f"{jobs} works on cascades side by side, torchrun on one flow; use one of the two")
    if options.backend != "local" or options.join:
        option = "--join" if options.join else f"--backend {options.backend}"
        raise InputError(f"{option} shares out cascades, torchrun the rows of one flow; use one of the two")
    return found


def run_shared(place: Place, spec: Spec, options: RunOptions) -> None:
    """Carry one experiment out in one of the processes that torchrun has started; the first prints the table."""
    from sparseflows.experiment.scheduling.torchrun import run_together

    done = run_together(place, spec, options.out, options.force, options.log)
    if done is not None:
        _print_records(*done, options.as_json)


def run_sweep_of(sweep: Sweep, options: RunOptions) -> None:
    """Carry a sweep out and print its table; what failed is listed at the end.

    Raises:
        RunError: some cascades could not be carried out.
    """
    from sparseflows.experiment.sweep.folder import SweepFolder
    from sparseflows.experiment.sweep.run import check_points, count_sweep_stages

    devices = {point.spec.device for point in sweep.points}
    workers = options.workers(devices)
    workers.warm_up()
    digests, notes = check_points(sweep)
    options.check_devices(devices)
    with workers.connected() as lost:
        folder = SweepFolder.claim(options.out, sweep, force=options.force)
        with folder.lock(options.join):
            _note(notes)
            points, stages = len(sweep.points), count_sweep_stages(sweep)
            print(f"{sweep.name}: {points:,} points, {stages:,} stages; results go to {folder.path}", file=sys.stderr)
            from sparseflows.experiment.monitoring.progress import Progress
            from sparseflows.experiment.sweep.run import run_sweep
            from sparseflows.experiment.sweep.summary import sweep_text

            results = run_sweep(sweep, folder, digests, workers, lost, Progress(stages), options.log)
    runs = [
        {"run": str(place), "point": place.name, "changes": point.changes, "stages": [_plain(one) for one in records]}
        for point, place, records in zip(sweep.points, results.places, results.records, strict=True)
    ]
    failed = [{"cascade": name, "reason": reason} for name, reason in results.failed]
    seconds = {"work_seconds": round(results.work, 3), "wall_seconds": round(results.wall, 3)}
    result = {"sweep": str(folder.path), "runs": runs, "failed": failed} | seconds
    print_result(result if options.as_json else sweep_text(sweep, results, folder.path))
    if not any(record.done for records in results.records for record in records):
        raise RunError(f"{folder.path}: no stage was done; the reasons are in each point's results.csv")
    if results.stopped:
        raise RunError(f"{folder.path}: {results.stopped} of the cascades could not be carried out; see the list above")


def _print_records(folder: Path, records: list[Record], as_json: bool) -> None:
    result = {"run": str(folder), "stages": [_plain(record) for record in records]}
    print_result(result if as_json else results_text(records, folder))
    if not any(record.done for record in records):
        raise RunError(f"{folder}: no stage was done; the reasons are in results.csv, the first: {records[0].reason}")


def _note(notes: Iterable[str]) -> None:
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)


def _plain(record: Record) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(record).items()
    }
