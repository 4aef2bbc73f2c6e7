"""One task of a run: sequences of one seed that stand on one another, carried out wherever the folder is seen."""

import itertools
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparseflows.data.splits import Splits
from sparseflows.errors import DiskError, RunError, SparseFlowsError
from sparseflows.experiment.folder.folder import DATA, RunFolder
from sparseflows.experiment.folder.records import Record, cascade_name
from sparseflows.experiment.folder.sequences import StageName, dense_stage, stages_of
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.rows import describe, load_splits
from sparseflows.experiment.stages.context import check_device, make_context
from sparseflows.experiment.stages.protocols import make_dense, run_sequence
from sparseflows.flow.compiled.build import say_no_more
from sparseflows.specs import Spec
from sparseflows.specs.choices import OF_DENSE, REWIND, SCRATCH

DONE, BUSY, FAILED = "done", "busy", "failed"
BEAT_EVERY = 2.0  # seconds
GONE_AFTER = 60.0  # the `run` that gave the work, when it has not been heard of for so long


@dataclass(frozen=True)
class Task:
    """A piece of work that can be sent to another process or machine.

    Attributes:
        folder: of the run; made, with its spec.yaml, where it is missing.
        spec: the experiment.
        data_digest: what the files of the data are known by.
        seed: of the dense network.
        sequences: (protocol, method), to be made one after the other once the dense network is there.
        where: put before the names of its stages, `<experiment>/` in a sweep; empty where there is one experiment only.
        here: the folder that relative paths in the settings start from.
        splits: the rows, where they are sent along; else the worker reads them.
        log: names of the loggers that the worker is to have.
    """

    folder: Path
    spec: Spec
    data_digest: str | None
    seed: int
    sequences: tuple[tuple[str, str], ...]
    where: str = ""
    here: Path = field(default_factory=Path.cwd)
    splits: Splits | None = None
    log: tuple[str, ...] = ()

    def stages(self) -> list[StageName]:
        """All that it makes, the dense network first."""
        each = (stages_of(self.spec, self.seed, *sequence) for sequence in self.sequences)
        return [dense_stage(self.seed), *itertools.chain(*each)]

    @property
    def run(self) -> RunFolder:
        """The run folder, to look into."""
        return RunFolder(self.folder, self.spec)

    def is_whole(self) -> bool:
        """Whether every stage has been put in its place, whether damaged since or not."""
        return all(self.run.stage(name.cascade, name.stage).is_dir() for name in self.stages())


@dataclass(frozen=True)
class Outcome:
    """How a task ended: DONE; BUSY, another run has its cascade; or FAILED with a message.

    `seconds`: what the work took, where it took place.
    """

    status: str
    message: str = ""
    seconds: float = 0.0


@dataclass
class Leash:
    """Whether the `run` that gave the work still lives, by a file that it goes on writing."""

    path: Path
    seen: str = ""
    heard: float = field(default_factory=time.monotonic)
    asked: float = -BEAT_EVERY

    def check(self) -> None:
        """Raise `Abandoned` where nobody waits for the result any more; costs nothing most of the time."""
        now = time.monotonic()
        if now - self.asked < BEAT_EVERY:
            return
        self.asked = now
        if not self.path.parent.is_dir():
            raise Abandoned(
                f"{self.path.parent}: no such folder on {platform.node()}; workers need it on a shared disk"
            )
        try:
            found = self.path.read_text()
        except OSError:
            raise Abandoned(f"{self.path.parent}: the `sparseflows run` that gave this work has ended") from None
        if found != self.seen:
            self.seen, self.heard = found, now
        elif now - self.heard > GONE_AFTER:
            raise Abandoned(f"{self.path.parent}: the `sparseflows run` that gave this work is silent")


class Abandoned(RunError):
    """A worker stops in the middle of a stage: its checkpoint is there for the next one."""


class WorkerProgress(Progress):
    """Keeps what the signature of a cascade's lock says; it tells trouble only, on the worker's standard error.

    `check` is called all the time; it does not return where the `run` that gave the work is gone.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__(bars=False)
        self.check = check

    def begin(self, label: str) -> None:
        """A stage begins."""
        super().begin(label)
        self.check()

    def step(self, step: int, total: int, loss: float) -> None:
        """A training step of the stage is done."""
        self.at = (step, total)
        self.check()

    def done(self, record: Record) -> None:
        """Nothing: the `run` that gave the work sees it by itself."""

    def failed(self, message: str) -> None:
        """Nothing: the `run` is told by the outcome."""


def tasks_of(
    spec: Spec,
    folder: Path,
    data_digest: str | None,
    splits: Mapping[int, Splits] | None = None,
    where: str = "",
    log: tuple[str, ...] = (),
    apart: bool = True,
) -> list[Task]:
    """The tasks of one experiment, seed by seed; what stands on one another is one task, or all that a seed has."""
    together: dict[str, list[tuple[str, str]]] = {}
    for protocol, method in spec.prune.sequences():
        key = f"{protocol}/{method}" if protocol in OF_DENSE else method
        together.setdefault(key, []).append((protocol, method))
    for sequences in together.values():
        sequences.sort(key=lambda one: one[0] in (SCRATCH, REWIND))
    place, groups = folder.absolute(), list(together.values())
    if not (apart and groups):
        groups = [list(itertools.chain(*groups))]
    return [
        Task(place, spec, data_digest, seed, tuple(group), where, splits=splits[seed] if splits else None, log=log)
        for seed in spec.seeds
        for group in groups
    ]


def work(task: Task, check: Callable[[], None] | None, wait: bool, collect: bool) -> Outcome:
    """What a worker calls: `carry_out`, told by a `WorkerProgress`.

    Args:
        task, wait, collect: as there.
        check: does not return where the `run` that gave the work is gone. None: the worker is a process of that run's
            machine and ends with it, and the run has said what this machine lacks.
    """
    if check is None:
        say_no_more()
    progress = WorkerProgress(check or (lambda: None))
    progress.begin("")
    return carry_out(task, progress, wait, collect)


def carry_out(
    task: Task, progress: Progress, wait: bool = True, collect: bool = False, run: RunFolder | None = None
) -> Outcome:
    """Make every stage of `task` that is not there yet, in this process.

    Args:
        task, progress: what to do, and who is told.
        wait: for a cascade that another run is at work on; else BUSY is given.
        collect: give errors back as FAILED, but those of a disk; else they are raised.
        run: the folder where the caller has it already, and has described its data there.
    """
    started = time.perf_counter()
    progress.where, message = task.where, ""
    try:
        status = DONE if _make_stages(task, progress, wait, run) else BUSY
    except (DiskError, Abandoned):
        raise
    except Exception as error:  # of one cascade out of many: the others go on, and this is told at the end
        if not collect:
            raise
        status, message = FAILED, str(error)
        if not isinstance(error, SparseFlowsError):
            import traceback

            where = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"
        progress.failed(message)
    return Outcome(status, message, time.perf_counter() - started)


def _make_stages(task: Task, progress: Progress, wait: bool, run: RunFolder | None) -> bool:
    """Whether all are there; False where another run has one of the cascades."""
    described, run = run is not None, run or RunFolder.at(task.folder, task.spec, task.data_digest)
    check_device(run.processes.device(task.spec.device))
    with run.share_lock():
        splits = task.splits or load_splits(task.spec, task.seed, task.here, task.data_digest)
        if not described and not (run.path / DATA).exists():
            seeds = task.spec.seeds if task.spec.data.split_by_seed else [task.seed]
            run.write_data(describe({s: load_splits(task.spec, s, task.here, task.data_digest) for s in seeds}))
        context = make_context(task.spec, run, splits, progress, task.seed, task.log)
        with run.hold(dense_stage(task.seed).cascade, progress.place):
            make_dense(context)
        for protocol, method in task.sequences:
            with run.hold(cascade_name(method, task.seed, protocol), progress.place, wait) as held:
                if not held:
                    return False
                run_sequence(context, protocol, method)
    return True
