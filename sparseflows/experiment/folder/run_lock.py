"""A folder is one `sparseflows run`'s, or that of several which have joined; the lock ends with its holder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from sparseflows.errors import InputError

LOCK = "run.lock"


@contextlib.contextmanager
def hold_folder(path: Path, when_alone: Callable[[], None], join: bool = False) -> Iterator[None]:
    """Hold `path` against others who ask for the same, for as long as this process lives.

    Args:
        path: a folder.
        when_alone: called where nobody else holds it.
        join: share it with others who join.

    Raises:
        InputError: another holds it, or it cannot be written to.
    """
    try:
        stream = (path / LOCK).open("a+")
    except OSError as error:
        raise InputError(f"{path}: cannot write here ({error.strerror}); give another folder with --out") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            when_alone()
        except OSError:
            if not join:
                raise InputError(f"{path}: another `sparseflows run` is at work in this folder; wait for it") from None
        fcntl.flock(stream, fcntl.LOCK_SH)  # our own workers share it
        yield


def is_held(path: Path) -> bool:
    """Whether a `sparseflows run` of this machine holds the folder."""
    try:
        with (path / LOCK).open() as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
