"""Output files that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from sparseflows.errors import DiskError, InputError


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


def make_folder(path: Path) -> None:
    """Make `path` and what is missing above it.

    Raises:
        DiskError: the disk is full, or not to be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: could not be made ({error.strerror})") from error
