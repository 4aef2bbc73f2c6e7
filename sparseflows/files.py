"""Files: outputs that are there whole or not at all, folders, digests, and locks that end with their process."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparseflows.errors import DiskError, InputError

if TYPE_CHECKING:
    import sqlite3

# None on Windows.
fcntl = importlib.import_module("fcntl") if importlib.util.find_spec("fcntl") else None
DIGEST = "digest"  # the key of a sealed document
ASK_EVERY = 0.05  # seconds, for a lock that another holds


def output_folder(folder: Path, remedy: str) -> Path:
    """`folder`, made where it is missing; `remedy` ends the message where it cannot be written to.

    Raises:
        InputError: it cannot be made, is not a folder, or takes no files.
    """
    # A trial file, not os.access: that says yes on a read-only mount.
    trial = folder / f".trial-{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise InputError(f"{folder}: cannot write here ({error.strerror}); {remedy}") from error
    return folder


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `path` so that no reader ever sees part of it; what was there before stays until the end.

    Raises:
        DiskError: the disk is full, or the folder went away.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    # Not the process number: processes of several machines may share the disk.
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise DiskError(f"{path}: could not be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def make_folder(path: Path, within: Path | None = None) -> None:
    """Make `path` and what is missing above it; with `within`, a folder that has to be there, below that.

    Raises:
        DiskError: the disk is full, or not to be written to, or went away.
    """
    try:
        if within is not None:
            os.stat(within)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: could not be made ({error.strerror})") from error


def folder_at_once(path: Path, contents: Mapping[str, str]) -> None:
    """Make a folder that holds `contents`, by name of file, whole or not at all; nothing where `path` is there by then.

    Raises:
        InputError: nothing can be written there.
        DiskError: the disk is full.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        beside.mkdir(parents=True)
        for name, content in contents.items():
            write_whole(beside / name, content)
        os.rename(beside, path)
    except DiskError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not os.path.exists(path):  # else another process was quicker; whose it is, the caller looks up
            said = f"{path}: cannot write a folder here ({error.strerror}); give another with --out"
            raise InputError(said) from None


def sha256(path: Path) -> str:
    """The digest of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A JSON document with the digest of its content, so that a changed digit in its file is seen."""
    text = json.dumps({key: value for key, value in document.items() if key != DIGEST}, sort_keys=True)
    return document | {DIGEST: hashlib.sha256(text.encode()).hexdigest()}


def is_as_sealed(document: dict[str, Any]) -> bool:
    """Whether a document is as `sealed` made it; older ones, without a digest, are taken as they are."""
    return DIGEST not in document or sealed(document)[DIGEST] == document[DIGEST]


def move_aside(path: Path, pattern: str) -> Path:
    """Rename `path` to the first free name of a pattern with `{n}` (from 1) and `{name}`; gives the new path."""
    n = 1
    while (aside := path.with_name(pattern.format(n=n, name=path.name))).exists():
        n += 1
    path.rename(aside)
    return aside


class FileLock(contextlib.AbstractContextManager["FileLock"]):
    """A lock on a file that ends with the process that holds it, however that ends.

    It is the operating system's (flock). Where there is none (Windows), it is that of an SQLite file beside it, whose
    locks work on every system and end with their process too.

    Args:
        path: the file; made where it is missing.
        make: else it has to be there already, and is opened for reading only.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, make: bool = True) -> None:
        self.path, self._make = path, make
        self.file = os.open(path, os.O_RDWR | os.O_CREAT if make else os.O_RDONLY, 0o666)
        self._beside: sqlite3.Connection | None = None

    def take(self, *, shared: bool = False, wait: bool = False) -> bool:
        """Take it, or take it the other way; gives whether it is held.

        Args:
            shared: with others who share it; else alone.
            wait: until it is free; else False is given where it is not.

        Raises:
            DiskError: the file system knows no locks.
        """
        if fcntl is None:
            return self._take_beside(shared, wait)
        try:
            fcntl.flock(self.file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError as error:
            raise DiskError(f"{self.path}: cannot be locked ({error.strerror})") from error
        return True

    def _take_beside(self, shared: bool, wait: bool) -> bool:
        import sqlite3

        if self._beside is None:
            beside = f"{self.path}.sqlite"
            if not (self._make or os.path.exists(beside)):
                return True  # nobody has ever held it
            self._beside = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
        while True:
            if self._beside.in_transaction:
                self._beside.rollback()
            try:
                self._beside.execute("BEGIN" if shared else "BEGIN EXCLUSIVE")
                self._beside.execute("SELECT name FROM sqlite_master").fetchall()  # reading is what shares it
                return True
            except sqlite3.OperationalError:
                if not wait:
                    return False
                time.sleep(ASK_EVERY)

    def is_still_there(self) -> bool:
        """Whether the file has not been removed, or replaced by another, since it was opened."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.file))
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it."""
        os.close(self.file)
        if self._beside is not None:
            self._beside.close()

    def __exit__(self, *error: object) -> None:
        self.close()
