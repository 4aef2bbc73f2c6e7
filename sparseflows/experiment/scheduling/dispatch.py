"""Give tasks to workers, watch them, and go on when one is lost."""

import contextlib
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseflows.errors import RunError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.scheduling.tasks import BUSY, FAILED, Leash, Outcome, Task, carry_out, work
from sparseflows.experiment.scheduling.watch import Watch
from sparseflows.experiment.scheduling.workers import HERE, Errors, Workers

LOSSES = 3  # in a row, without a stage finished in between


@dataclass(frozen=True)
class Tally:
    """What came of the tasks.

    Attributes:
        failed: those that failed, with the reason.
        seconds: of work, summed over the workers; what a lost one had done is not in it.
    """

    failed: list[tuple[Task, str]]
    seconds: float


def run_tasks(
    tasks: Sequence[Task],
    workers: Workers,
    progress: Progress,
    folder: Path,
    lost: Errors = (),
    *,
    collect: bool = False,
    run: RunFolder | None = None,
) -> Tally:
    """Carry all tasks out.

    The numbers depend neither on the workers nor on the order. A worker that is killed loses the stage it was at,
    back to its last checkpoint; another one goes on there.

    Args:
        tasks, workers, progress: what is to be done, who works, who is told.
        folder: of the run or sweep.
        lost: errors that say that a worker was lost, as `workers.connected()` gives them.
        collect: go on when a task fails; else its error is raised.
        run: the folder of all tasks where they have one in common, its data described; for work in this process.

    Raises:
        RunError: workers are lost again and again, or the disk is full.
    """
    failed: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        watch = None
        if workers != HERE:
            watch = stack.enter_context(Watch(tasks, progress, folder, heard=not workers.share_memory))
        left, wait, losses, seconds = _order(tasks), watch is None and len(tasks) == 1, 0, 0.0
        finished = watch.finished if watch else 0
        while left:
            try:
                if watch is None:
                    outcomes = [carry_out(tasks[i], progress, wait, collect, run) for i in left]
                else:
                    outcomes = _side_by_side([tasks[i] for i in left], workers, watch, wait, collect)
            except lost:
                assert watch is not None
                watch.look()
                losses = 1 if watch.finished > finished else losses + 1
                if losses == LOSSES:
                    raise RunError(
                        f"{folder}: a worker process was killed (out of memory? try a smaller --jobs); "
                        "the same command goes on from the last checkpoint"
                    ) from None
                progress.say("a worker was lost; another one goes on from the last checkpoint of its cascade")
                left, finished = [index for index in left if not tasks[index].is_whole()], watch.finished
                continue
            except ImportError as error:
                if watch is None:
                    raise
                raise RunError(f"{folder}: a worker cannot import {error.name}; install it where it runs") from None
            found = list(zip(left, outcomes, strict=True))
            failed |= {index: one.message for index, one in found if one.status == FAILED}
            seconds += sum(one.seconds for one in outcomes)
            left = [index for index, one in found if one.status == BUSY]
            if left and not wait:
                progress.say(f"{len(left)} cascades are another run's at the moment; waiting for them")
            wait = True
    return Tally([(tasks[index], message) for index, message in sorted(failed.items())], seconds)


def _order(tasks: Sequence[Task]) -> list[int]:
    """Places of the tasks: the first of every seed, then the second …, so that few wait for the same dense network."""
    ranks: Counter[tuple[Path, int]] = Counter()
    ranked = []
    for index, task in enumerate(tasks):
        ranked.append((ranks[task.folder, task.seed], index))
        ranks[task.folder, task.seed] += 1
    return [index for _, index in sorted(ranked)]


def _side_by_side(tasks: Sequence[Task], workers: Workers, watch: Watch, wait: bool, collect: bool) -> list[Outcome]:
    # Workers of this machine end with this process; others would outlive it, and listen.
    check = None if workers.share_memory else Leash(watch.beat).check
    return workers.each(functools.partial(work, check=check, wait=wait, collect=collect), tasks)
