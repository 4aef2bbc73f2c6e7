"""Loggers: whoever else is to hear how a run goes. One has three methods, and cannot harm the run.

What a logger is told follows what the run keeps. A training that is taken up again begins with the lines that its
checkpoint holds (`StageStart.history`), and what was logged beyond them is void. A stage that was there before the
logger was (it is asked for later, or the process died between the stage and its logger) is told afterwards, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from sparseflows.experiment.folder.records import Record, place_of
from sparseflows.experiment.folder.sequences import StageName

if TYPE_CHECKING:
    from torch import nn

    from sparseflows.data.tables.mapped import Rows

Values = Mapping[str, float]
LOGGED = "logged"  # folder of a run: which logger has been told of which stage
METHODS = ("begin", "step", "end")


@dataclass(frozen=True, kw_only=True)
class StageStart(StageName):
    """What a logger is told when a stage begins, or is taken up again.

    Attributes:
        protocol, method, seed, stage: which stage; `cascade` and `label` name it in one word.
        keep_ratio: the share of the dense network's params that it is to keep; None for the dense stage.
        run: the run folder.
        attempt: 0, or how often its training diverged before.
        step: of the training that it goes on from; 0 at the start.
        steps: of the whole training; 0 where the stage is not trained.
        history: the lines up to `step`, as `step` received them. What was logged beyond is void.
        validation: standardised validation rows (N, D), for figures.
    """

    run: Path
    attempt: int
    step: int
    steps: int
    history: tuple[Values, ...]
    validation: Rows

    @property
    def place(self) -> dict[str, Any]:
        """What every line of metrics.jsonl says of its stage."""
        return place_of(vars(self))


class Logger(Protocol):
    """What a logger of your own has to have. It is made with the run folder, in the process that trains.

    With `--jobs N` several processes have one each, and each hears of its own stages only.
    """

    def begin(self, stage: StageStart) -> None:
        """A stage begins, is taken up again from a checkpoint, or is tried again at a lower rate."""

    def step(self, values: Values) -> None:
        """A line along the training, when it is written: `step`, and what was measured there.

        Every 1/40 of a training `loss` (mean since the last), `lr`, `nfe`; with `select: best_val` also `val`, a
        flow's NLL on validation rows or a classifier's loss there (nats).
        """

    def end(self, record: Record, network: nn.Module | None) -> None:
        """The stage is in its place: its row of results.csv, and its network; None where the stage failed.

        A stage that has nothing to begin with fails without a `begin`.
        """


class Live:
    """The lines of the stage in progress, until metrics.jsonl has them, in `cascades/<name>/live.jsonl`.

    They have the form of metrics.jsonl. The file is begun anew with the lines of the checkpoint when a stage is taken
    up again, and removed when the stage is whole. It never raises, and nothing is synchronised to the disk: progress
    is not results, what matters is in the checkpoints. Without a run folder nothing is written.
    """

    NAME = "live.jsonl"

    def __init__(self, run: Path | None) -> None:
        self._run = run
        self._path: Path | None = None
        self._place: dict[str, Any] = {}

    def begin(self, stage: StageStart) -> None:
        """Start the file with the lines of the checkpoint; every line says which stage it is of."""
        self._path, self._place = self._file(stage.cascade), stage.place
        self._write("w", stage.history)

    def step(self, values: Values) -> None:
        """One line more."""
        self._write("a", [values])

    def end(self, record: Record, network: nn.Module | None = None) -> None:
        """The stage is whole."""
        if path := self._file(record.cascade):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _file(self, cascade: str) -> Path | None:
        return None if self._run is None else self._run / "cascades" / cascade / self.NAME

    def _write(self, mode: str, lines: Iterable[Values]) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8") as stream:
                stream.write("".join(json.dumps(self._place | dict(line)) + "\n" for line in lines))
        except OSError:
            self._path = None  # a full disk is the checkpoint's to report


class Loggers:
    """All loggers of a process. One that raises is named once and told nothing more; the run goes on.

    What they print goes to standard error: standard output holds the run's result. Without a run folder there are
    none, and nothing is written.
    """

    def __init__(
        self,
        run: Path | None = None,
        named: Mapping[str, Logger] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._run, self._named, self._say = run, dict(named or {}), say
        self._live = Live(run)

    def begin(self, stage: StageStart) -> None:
        """A stage begins or is taken up again."""
        self._live.begin(stage)
        for name in list(self._named):
            self._tell(name, "begin", stage)

    def step(self, values: Values) -> None:
        """A line of the history."""
        self._live.step(values)
        for name in list(self._named):
            self._tell(name, "step", dict(values))  # what a logger changes there stays its own

    def end(self, record: Record, network: nn.Module | None) -> None:
        """A stage is in its place."""
        self._live.end(record)
        for name in list(self._named):
            self._end(name, record, network)

    def catch_up(
        self, record: Record, story: Callable[[], tuple[StageStart, Iterable[Values], nn.Module | None]]
    ) -> None:
        """A whole stage was found: tell those that have not heard of it.

        Args:
            record: its row.
            story: gives how it began, the lines of its training, and its network; asked for each that has not heard.
        """
        self._live.end(record)  # whoever wrote the stage may have been killed before doing so
        for name in [name for name in self._named if not self._has_heard(name, record)]:
            stage, lines, network = story()
            self._tell(name, "begin", stage)
            for line in lines:
                self._tell(name, "step", dict(line))
            self._end(name, record, network)

    def _end(self, name: str, record: Record, network: nn.Module | None) -> None:
        if self._tell(name, "end", record, network):
            with contextlib.suppress(OSError):  # it will be told again
                note = self._note(name, record)
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(_digest(record), encoding="utf-8")

    def _has_heard(self, name: str, record: Record) -> bool:
        try:
            return self._note(name, record).read_bytes() == _digest(record).encode()
        except OSError:
            return False

    def _note(self, name: str, record: Record) -> Path:
        assert self._run is not None
        return self._run / LOGGED / quote(name, safe="") / record.cascade / str(record.stage)

    def _tell(self, name: str, method: str, *arguments: Any) -> bool:
        """Whether the logger took it."""
        if name not in self._named:  # it raised a moment ago
            return False
        try:
            with contextlib.redirect_stdout(sys.stderr):
                getattr(self._named[name], method)(*arguments)
        except (Exception, SystemExit) as error:
            del self._named[name]
            self._say(f"logger {name}: {method} raised {told(error)}; it is told nothing more, the run goes on")
            return False
        return True


def told(error: BaseException) -> str:
    """An exception in one line: its type, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _digest(record: Record) -> str:
    return hashlib.sha256(repr(record).encode()).hexdigest()
