"""A sweep carried out: every point an experiment in a run folder of its own, all cascades shared out to workers."""

import time
from dataclasses import dataclass
from pathlib import Path

from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.plan import plan
from sparseflows.experiment.rows import notes_of, prepare
from sparseflows.experiment.scheduling.dispatch import run_tasks
from sparseflows.experiment.scheduling.run import mention_engine
from sparseflows.experiment.scheduling.tasks import Task, tasks_of
from sparseflows.experiment.scheduling.workers import HERE, Errors, Workers
from sparseflows.experiment.sweep.folder import SweepFolder
from sparseflows.experiment.sweep.points import Point, Sweep


@dataclass(frozen=True)
class SweepResults:
    """What a sweep came to.

    Attributes:
        places: the run folder of each point.
        records: their stages.
        failed: (cascade, reason) of what could not be carried out, and of stages that failed.
        stopped: how many could not be carried out.
        work: seconds that the workers were at work, summed.
        wall: seconds that it took.
    """

    places: tuple[Path, ...]
    records: tuple[tuple[Record, ...], ...]
    failed: tuple[tuple[str, str], ...]
    stopped: int
    work: float
    wall: float


def check_points(sweep: Sweep) -> tuple[list[str | None], list[str]]:
    """What the files of each point's data are known by, and what the user should know about the rows.

    Raises:
        InputError: data that are missing or not fit, keep ratios that would empty a layer; of the first such point.
    """
    known: dict[str, str | None] = {}
    notes: dict[str, None] = {}
    digests = []
    for point in sweep.points:
        data = point.spec.data
        key = data.model_dump_json()
        if data.path is None and data.name not in BENCHMARKS:
            known[key] = None
        elif key not in known:
            with point.named():
                splits, known[key] = prepare(point.spec)
            notes |= dict.fromkeys(notes_of(splits))
        digests.append(known[key])
    for point in _distinct(sweep):
        with point.named():
            plan(point.spec)
    return digests, list(notes)


def _distinct(sweep: Sweep) -> list[Point]:
    """Points that differ in what a plan looks at: of a thousand that differ in the rate, one."""
    found = {}
    for point in sweep.points:
        spec = point.spec
        data = spec.data.model_copy(update={"seed": 0})
        sections = (data, spec.flow, spec.network, spec.prune)
        found[spec.train.objective, *(s.model_dump_json() if s else "" for s in sections)] = point
    return list(found.values())


def run_sweep(
    sweep: Sweep,
    folder: SweepFolder,
    digests: list[str | None],
    workers: Workers,
    lost: Errors,
    progress: Progress,
    log: tuple[str, ...] = (),
) -> SweepResults:
    """Make every stage of every point that is not there yet; the caller holds the folder's lock.

    A cascade that cannot be carried out does not stop the others.
    """
    known = list(zip(sweep.points, digests, strict=True))
    places = tuple(RunFolder.place(folder.path, point.spec, digest) for point, digest in known)
    others = folder.write_index(sweep, places)
    if others:
        progress.say(f"{folder.path} has {others} more points, of earlier lists: they stay in its table")
    tasks: list[Task] = []
    for (point, digest), place in zip(known, places, strict=True):
        tasks += tasks_of(point.spec, place, digest, where=f"{place.name}/", log=log, apart=workers != HERE)
    started = time.monotonic()
    mention_engine(sweep.points[0].spec, progress)
    try:
        tally = run_tasks(tasks, workers, progress, folder.path, lost, collect=True)
    finally:
        progress.close()
        found = zip(sweep.points, places, strict=True)
        records = tuple(
            tuple(RunFolder(place, point.spec).settle()) if place.is_dir() else () for point, place in found
        )
        folder.write_results()
    told = [(f"{task.where}{task.stages()[-1].cascade}", reason) for task, reason in tally.failed]
    for place, made in zip(places, records, strict=True):
        told += [(f"{place.name}/{r.cascade}/{r.stage}", r.reason or "") for r in made if not r.done]
    return SweepResults(places, records, tuple(told), len(tally.failed), tally.seconds, time.monotonic() - started)


def count_sweep_stages(sweep: Sweep) -> int:
    """Stages of all points."""
    return sum(len(stages(point.spec)) for point in sweep.points)
