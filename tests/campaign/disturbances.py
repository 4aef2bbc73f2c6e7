"""What makes the world of a command hostile; each is called in its process before it begins."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.campaign.commands import Before

WRITES = ("open", "fsync", "mkdir", "rename", "replace", "truncate")
CHANGES = (*WRITES, "unlink", "rmdir")
NOBODY = 65534


def die_at(operation: int, number: int = signal.SIGKILL, below: Path | None = None) -> Before:
    """The process sends itself a signal when it comes to its n-th change of a file."""

    def act(count: int) -> None:
        if count == operation:
            os.kill(os.getpid(), number)

    return lambda: _watch(act, CHANGES, below)


def fail_at(operation: int, code: int, for_good: bool, below: Path) -> Before:
    """Changes of files below a folder fail from the n-th on: with ENOSPC those that need room, else all."""

    def act(count: int) -> None:
        if count == operation or (for_good and count > operation):
            raise OSError(code, os.strerror(code))

    names = WRITES if code in (errno.ENOSPC, errno.EDQUOT) else CHANGES
    return lambda: _watch(act, names, below)


def small_files(limit: int) -> Before:
    """No file may grow beyond `limit` bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


def little_memory(more: int) -> Before:
    """The process may take so many bytes more than it has."""

    def act() -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        (size,) = (int(line.split()[1]) for line in lines if line.startswith("VmSize:"))
        resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + more, resource.RLIM_INFINITY))

    return act


def nobody() -> None:
    """The user `nobody`, who may write only where everybody may."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def turned_back(seconds: float) -> Before:
    """The clock of the wall is turned back (negative: forward) while the process works."""
    real, began = time.time, time.monotonic()

    def now() -> float:
        return real() - (seconds if time.monotonic() - began > 0.1 else 0.0)

    def act() -> None:
        time.time = now  # type: ignore[assignment]
        time.time_ns = lambda: int(now() * 1e9)  # type: ignore[assignment]

    return act


def dated(folder: Path, random: Random) -> None:
    """Files of a folder are of the future, or of 1970."""
    for path in folder.rglob("*"):
        if random.random() < 0.7:
            moment = random.choice((0, 1, 2**31 - 1, time.time() + 10**8))
            os.utime(path, (moment, moment))


def count_changes(below: Path, to: Path) -> Before:
    """Write to a file, at the end of the process, how many changes of files it made below a folder."""
    counted = [0]

    def act(count: int) -> None:
        counted[0] = count

    def start() -> None:
        _watch(act, CHANGES, below)
        leave = os._exit

        def exit_counted(status: int) -> None:
            descriptor = os.open(to, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, str(counted[0]).encode())
            leave(status)

        os._exit = exit_counted  # type: ignore[assignment]

    return start


def _watch(act: Callable[[int], None], names: tuple[str, ...], below: Path | None) -> None:
    """Call `act` with a rising count ahead of every change of a file, in this process."""
    count = 0

    def meet(place: object) -> None:
        nonlocal count
        if below is None or isinstance(place, int) or str(place).startswith(f"{below}/"):
            count += 1
            act(count)

    for name in names:
        if name != "open" and hasattr(os, name):
            setattr(os, name, _met(getattr(os, name), meet))
    if "open" in names:
        opens = io.open

        def watched(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not set(mode).isdisjoint("wax+"):
                meet(os.fspath(file) if isinstance(file, os.PathLike) else file)
            return opens(file, mode, *args, **options)

        io.open = builtins.open = watched  # type: ignore[assignment]


def _met(function: Any, meet: Callable[[object], None]) -> Any:
    def watched(place: Any, *args: Any, **options: Any) -> Any:
        meet(os.fspath(place) if isinstance(place, os.PathLike) else place)
        return function(place, *args, **options)

    return watched
