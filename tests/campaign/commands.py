"""Commands in processes that are forked off this one, all imports done: within milliseconds, and free to be killed.

This process computes nothing with PyTorch itself, so that every fork is as good as a fresh start.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG = 60.0  # seconds
MEMORY = 6 << 30  # bytes of address space; a mutated width may ask for more
UNCAUGHT = 99  # status of a process that ended by an exception
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
PARENT_DIES = 1  # prctl's PR_SET_PDEATHSIG

IMPORTED = (
    "encodings.utf_8_sig",  # a user without rights may not find Python's own modules
    "torch._dynamo",
    "torchdiffeq",
    "multiprocessing.forkserver",
    "joblib",
    "pandas",
    "analysis.runs.frame",
    "analysis.cli.app",
    "analysis.cli.table",
    "analysis.tables.nll",
    "sparseflows.cli.app",
    "sparseflows.cli.run",
    "sparseflows.experiment.inference",
    "sparseflows.experiment.loading",
    "sparseflows.experiment.scheduling.run",
    "sparseflows.experiment.status",
    "sparseflows.experiment.sweep.run",
    "sparseflows.data.recipes.power",
    "sparseflows.data.recipes.gas",
    "sparseflows.data.recipes.miniboone",
)

Before = Callable[[], None]


def preload() -> None:
    """Import what the commands import late, and load the compiled engine."""
    import matplotlib
    import torch

    from sparseflows.flow.compiled.build import why_not

    for name in IMPORTED:
        importlib.import_module(name)
    matplotlib.use("agg")
    torch.set_num_threads(1)
    why_not(torch.float32)
    why_not(torch.float64)
    _commands()
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (negative: a signal; None: it hung and was killed), and what it said."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return next(reversed(self.err.strip().splitlines()), "")


class Command:
    """A command at work, the leader of a process group of its own.

    Args:
        work: what the process does; gives its exit status.
        log: a folder for what it says.
        before: called in the process ahead of the work: what makes its world hostile.
    """

    def __init__(self, work: Callable[[], int], log: Path, before: Before | None = None) -> None:
        log.mkdir(parents=True, exist_ok=True)
        name = f"{time.monotonic_ns()}"
        self._files = log / f"{name}.out", log / f"{name}.err"
        for path in self._files:  # it may be killed before it could
            path.touch()
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)  # until the command begins
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, self._files, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        self._descriptor = os.pidfd_open(self.pid)
        self._status: int | None = None
        self._ended = False

    def wait(self, seconds: float = HANG) -> bool:
        """Whether it has ended within so many seconds."""
        if not self._ended:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            if poll.poll(max(0.0, seconds) * 1000):
                _, status = os.waitpid(self.pid, 0)
                self._status, self._ended = os.waitstatus_to_exitcode(status), True
                os.close(self._descriptor)
        return self._ended

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.wait(0):
            os.kill(self.pid, number)

    def end(self, seconds: float = HANG) -> Ended:
        """Wait for its end; what hangs is killed. Seconds are those of a machine that does nothing else."""
        hung = not self.wait(seconds) and not self.wait(seconds * (slowdown() - 1))
        if hung:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.wait(10)
        out, err = (path.read_text(errors="replace") for path in self._files)
        for path in self._files:
            path.unlink()
        return Ended(None if hung else self._status, out, err, time.monotonic() - self.began)


def slowdown() -> float:
    """How many times as long as on a quiet machine work takes now, 1 at least: where others work, a process may starve.

    Wall over processor time of a tenth of a second's work.
    """
    wall, processor = time.monotonic(), time.process_time()
    while time.process_time() - processor < 0.1:
        pass
    return max(1.0, (time.monotonic() - wall) / 0.1)


@functools.cache
def _commands() -> Any:
    """The command line; made out of its functions once, which takes as long as a refusal."""
    import typer

    from sparseflows.cli.app import app

    return typer.main.get_command(app)


def command(*args: object) -> Callable[[], int]:
    """The work of `sparseflows ARGS…`."""

    def work() -> int:
        from sparseflows.cli.console import INTERRUPTED, run_app

        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
        except KeyboardInterrupt:  # it came before the command began
            return INTERRUPTED
        try:
            return run_app(_commands(), "sparseflows", [str(arg) for arg in args])
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)

    return work


def say(log: Path, *args: object, before: Before | None = None) -> Ended:
    """`sparseflows ARGS…` from start to end."""
    return Command(command(*args), log, before).end()


def _live(work: Callable[[], int], files: tuple[Path, Path], before: Before | None) -> None:
    """The whole life of a forked process; never returns."""
    status = UNCAUGHT
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
        for number, path in enumerate(files, 1):
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, most))
        from sparseflows.__main__ import _as_ctrl_c

        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _as_ctrl_c)
        if before is not None:
            before()
        status = work()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
