"""The experiment: a dense network a seed, then what every protocol makes of it with every method."""

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool

import torch

from sparseflows.data.splits import Splits
from sparseflows.errors import RunError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.rows import describe
from sparseflows.experiment.scheduling.dispatch import run_tasks
from sparseflows.experiment.scheduling.tasks import tasks_of
from sparseflows.experiment.scheduling.workers import HERE, Errors, Workers
from sparseflows.experiment.stages.context import check_device
from sparseflows.flow.compiled.build import PLAIN_PATH, say_no_more, why_not
from sparseflows.specs import Spec


def run_experiment(
    spec: Spec,
    run: RunFolder,
    splits: Mapping[int, Splits],
    progress: Progress,
    workers: Workers = HERE,
    lost: Errors = (BrokenProcessPool,),
    log: Sequence[str] = (),
) -> list[Record]:
    """Make every stage that is not there yet; gives the records of all. The caller holds the folder's lock.

    A stage that fails is recorded with its reason, and its cascade goes on from the stage before it. The
    numbers do not depend on the workers: every process computes with `spec.threads` threads.

    Args:
        spec, run: the experiment and its folder.
        splits: seed → its rows.
        progress: who is told.
        workers, lost: who works, and what `workers.connected()` gave; the call is made within.
        log: names of the loggers that every process is to have; see `logger_names`.

    Raises:
        RunError: workers are lost again and again, the disk is full, or somebody removes what was made.
    """
    if workers.share_memory:
        check_device(run.processes.device(spec.device))
    run.write_data(describe(splits))
    run.write_results()
    mention_engine(spec, progress)
    rows = splits if workers.share_memory else None
    tasks = tasks_of(spec, run.path, run.data_digest(), rows, log=tuple(log), apart=workers != HERE)
    try:
        run_tasks(tasks, workers, progress, run.path, lost, run=run)
    finally:
        progress.close()
    run.write_results()
    gone = [name.label for name in stages(spec) if not run.stage(name.cascade, name.stage).is_dir()]
    if gone:
        raise RunError(
            f"{run.path}: {gone[0]} and {len(gone) - 1} more stages were removed while the run was at work; the same "
            "command makes them again"
        )
    return run.records()


def mention_engine(spec: Spec, progress: Progress) -> None:
    """Compile the engine before the workers would, or say that there is none."""
    missing = why_not(getattr(torch, spec.dtype)) if spec.network is None and spec.device == "cpu" else None
    if missing is not None:
        say_no_more()
        progress.say(f"{missing}: {PLAIN_PATH}")
