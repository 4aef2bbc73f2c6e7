"""The progress of work that others do, seen from the folders that they write."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from sparseflows.errors import RunError
from sparseflows.experiment.folder.locks import read_signature
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import StageName
from sparseflows.experiment.monitoring.meter import LINE_EVERY
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.scheduling.tasks import BEAT_EVERY, Task
from sparseflows.files import write_whole

LOOK_EVERY = 1.0  # seconds
LOOKED_AT = 256  # of the tasks that are not finished, for what is at work just now


class Watch:
    """Tells each stage when it appears, and keeps the file by which workers elsewhere know that the run lives.

    Args:
        tasks, folder: of the run or sweep.
        progress: who is told.
        heard: keep the file; the workers are not processes of this one.
    """

    def __init__(self, tasks: Sequence[Task], progress: Progress, folder: Path, heard: bool = False) -> None:
        self.progress, self.heard = progress, heard
        self.beat = folder.absolute() / f".coordinator-{secrets.token_hex(4)}"
        self.finished = 0
        self._open: list[tuple[Task, list[StageName]]] = []  # with the stages not seen yet, the next one last
        self._told = time.monotonic()
        self._beaten = -BEAT_EVERY
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        dense: set[tuple[Path, str]] = set()  # shared by the tasks of a seed, and counted once
        for task in tasks:
            first, *others = task.stages()
            own = others if (task.folder, first.cascade) in dense else [first, *others]
            dense.add((task.folder, first.cascade))
            self._open.append((task, own[::-1]))

    def __enter__(self) -> Watch:
        self.look(silent=True)
        self._write_beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.beat.unlink()
        if exception[0] is None:
            self.look()

    def look(self, silent: bool = False) -> None:
        """Tell the stages that have appeared since the last look; `silent`: count them as found."""
        with self._lock:
            for task, ahead in self._open:
                while ahead and (record := _record(task, ahead[-1])):
                    ahead.pop()
                    self.finished += 1
                    if silent:
                        self.progress.found(record)
                    else:
                        self.progress.where = task.where
                        self.progress.done(record)
                        self._told = time.monotonic()
            self._open = [(task, ahead) for task, ahead in self._open if ahead]

    def _go_on(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            self.look()
            self._write_beat()
            if time.monotonic() - self._told >= LINE_EVERY:
                self._tell_who_works()

    def _tell_who_works(self) -> None:
        self._told = time.monotonic()
        found = []
        for task, ahead in self._open[:LOOKED_AT]:
            signed = read_signature(task.run.cascade(ahead[-1].cascade))
            if signed and signed.get("total"):
                found.append(f"{task.where}{ahead[-1].label} step {signed['step']}/{signed['total']}")
        if found:
            more = f" and {len(found) - 4} more" if len(found) > 4 else ""
            self.progress.say(f"  at work: {', '.join(found[:4])}{more}")

    def _write_beat(self) -> None:
        if self.heard and time.monotonic() - self._beaten >= BEAT_EVERY:
            self._beaten = time.monotonic()
            with contextlib.suppress(RunError):  # a full disk is told by who writes results
                write_whole(self.beat, str(self._beaten))


def _record(task: Task, name: StageName) -> Record | None:
    with contextlib.suppress(RunError):  # damaged: it will be made again
        return task.run.peek(name.cascade, name.stage)
    return None
