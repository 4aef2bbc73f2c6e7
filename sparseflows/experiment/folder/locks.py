"""Who is at work: a run folder is one `sparseflows run`'s (or several have joined), a cascade is one worker's.

The locks proper are `files.FileLock`: they end with the process, however that ends. Network file systems may keep them
on one machine only; therefore the holder of a cascade also signs its file every few seconds, with how far it has come,
and whoever finds the signature of another machine first watches whether it still changes.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparseflows.errors import DiskError, InputError
from sparseflows.files import FileLock, make_folder

LOCK, NAME = "run.lock", "cascade.lock"
SIGN_EVERY = 2.0  # seconds
SILENT_AFTER = 4 * SIGN_EVERY  # a holder on another machine that has not signed for so long is gone
LOOK_EVERY = 0.05

Signature = dict[str, Any]


@contextlib.contextmanager
def hold_folder(path: Path, when_alone: Callable[[], None], join: bool = False) -> Iterator[None]:
    """Hold `path` against others who ask for the same, for as long as this process lives.

    Args:
        path: the folder.
        when_alone: called where nobody else holds it.
        join: share it with others who join; what keeps them apart are the locks of the cascades.

    Raises:
        InputError: another holds it, or it cannot be written to.
    """
    try:
        lock = FileLock(path / LOCK)
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror}); give another folder with --out") from None
    with lock:
        if lock.take():
            when_alone()
        elif not join:
            raise InputError(f"{path}: another `sparseflows run` is at work in this folder; wait for it")
        lock.take(shared=True, wait=True)  # our own workers share it
        yield


@contextlib.contextmanager
def share_folder(path: Path) -> Iterator[None]:
    """Hold a folder as a worker of the process that holds it, so that it stays held should that be killed.

    Raises:
        DiskError: it cannot be written to.
    """
    with _opened(path / LOCK) as lock:
        lock.take(shared=True, wait=True)
        yield


def is_held(path: Path) -> bool:
    """Whether a `sparseflows run` of this machine holds the folder."""
    try:
        with FileLock(path / LOCK, make=False) as lock:
            return not lock.take()
    except (OSError, DiskError):
        return False


@contextlib.contextmanager
def hold_cascade(folder: Path, describe: Callable[[], Signature] = dict, wait: bool = True) -> Iterator[bool]:
    """Hold a cascade; gives whether it is held.

    Args:
        folder: of the cascade; made where it is missing.
        describe: what the signature is to say beside who holds it: stage, step, total.
        wait: until it is free; else False is given where it is not.

    Raises:
        DiskError: the folder cannot be written to.
    """
    make_folder(folder)
    while (lock := _take(folder / NAME)) is None:
        if not wait:
            yield False
            return
        time.sleep(LOOK_EVERY)
    ended = threading.Event()
    signer = threading.Thread(target=_sign, args=(lock.file, describe, ended), daemon=True)
    signer.start()
    try:
        yield True
    finally:
        ended.set()
        signer.join()
        with contextlib.suppress(OSError):  # where open files cannot be removed, it stays
            lock.path.unlink()  # while it is held, so that it is not the next holder's
        lock.close()


def read_signature(folder: Path) -> Signature | None:
    """Who works at a cascade, and how far it has come; None where nobody does (or did until it was killed)."""
    try:
        lock = FileLock(folder / NAME, make=False)
    except OSError:
        return None
    with lock:
        text = _read(lock.file)
        free = lock.take(shared=True)
        return None if free and not _is_elsewhere(text) else _parse(text)


def _opened(path: Path) -> FileLock:
    try:
        return FileLock(path)
    except OSError as error:
        raise DiskError(f"{path}: could not be written ({error.strerror})") from error


def _take(path: Path) -> FileLock | None:
    """The lock, held; None where another holds it."""
    lock = _opened(path)
    # The holder before may have removed the file between our opening and our holding it.
    if lock.take() and lock.is_still_there() and not _is_signed_elsewhere(lock.file):
        return lock
    lock.close()
    return None


def _is_signed_elsewhere(file: int) -> bool:
    """Whether another machine goes on signing the file, as its lock may be unknown to this one."""
    seen = _read(file)
    end = time.monotonic() + SILENT_AFTER
    while _is_elsewhere(seen) and time.monotonic() < end:
        time.sleep(SIGN_EVERY / 2)
        if (now := _read(file)) != seen:
            return _is_elsewhere(now)
    return False


def _is_elsewhere(signed: str) -> bool:
    """Whether that is another machine's signature, or one that was caught half written."""
    found = _parse(signed)
    return bool(signed) and (found is None or found.get("host") != socket.gethostname())


def _sign(file: int, describe: Callable[[], Signature], ended: threading.Event) -> None:
    count = 0
    while True:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "count": count}
        _write(file, json.dumps(who | describe()))
        count += 1
        if ended.wait(SIGN_EVERY):
            return


def _write(file: int, text: str) -> None:
    """In place: a rename would leave the lock behind with the old file. (A full disk is told by who writes results.)"""
    data = text.encode()
    with contextlib.suppress(OSError):
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, data)
        os.ftruncate(file, len(data))


def _read(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, 4096).decode(errors="replace")


def _parse(text: str) -> Signature | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
