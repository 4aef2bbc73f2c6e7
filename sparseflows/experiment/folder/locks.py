"""One cascade, one worker: a lock that goes with its holder, and says who that is and how far it has come.

The lock proper is the operating system's (flock), so that it ends with the process, however that ends. Network file
systems may keep it on one machine only; therefore its holder also signs the file every few seconds, and whoever finds
the signature of another machine first watches whether it still changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparseflows.errors import DiskError
from sparseflows.files import make_folder

NAME = "cascade.lock"
SIGN_EVERY = 2.0  # seconds
SILENT_AFTER = 4 * SIGN_EVERY  # a holder on another machine that has not signed for so long is gone
LOOK_EVERY = 0.05

Signature = dict[str, Any]


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
    while (file := _take(folder / NAME)) is None:
        if not wait:
            yield False
            return
        time.sleep(LOOK_EVERY)
    ended = threading.Event()
    signer = threading.Thread(target=_sign, args=(file, describe, ended), daemon=True)
    signer.start()
    try:
        yield True
    finally:
        ended.set()
        signer.join()
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()  # while it is held, so that it is not the next holder's
        os.close(file)


def read_signature(folder: Path) -> Signature | None:
    """Who works at a cascade, and how far it has come; None where nobody does (or did until it was killed)."""
    try:
        file = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        text = _read(file)
        free = _try_lock(file, fcntl.LOCK_SH)
        return None if free and not _is_elsewhere(text) else _parse(text)
    finally:
        os.close(file)


def _take(path: Path) -> int | None:
    """The file, held; None where another holds it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DiskError(f"{path}: could not be written ({error.strerror})") from error
    # The holder before may have removed the file between our opening and our holding it.
    if _try_lock(file, fcntl.LOCK_EX) and _is_still(path, file) and not _is_signed_elsewhere(file):
        return file
    os.close(file)
    return None


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError:
        return False


def _try_lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))


def _read(file: int) -> str:
    return os.pread(file, 4096, 0).decode(errors="replace")


def _parse(text: str) -> Signature | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
