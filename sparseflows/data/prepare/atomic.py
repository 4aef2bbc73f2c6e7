"""A folder that appears whole: made in a hidden folder beside its place, then renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sparseflows.data.benchmarks.facts import PARTS
from sparseflows.data.benchmarks.prepared import MANIFEST
from sparseflows.errors import InputError, RunError
from sparseflows.files import FileLock

PREPARED_FILES = frozenset({MANIFEST, *(f"{part}.npy" for part in PARTS)})
LOCK, NEW, OLD = "lock", "new", "old"


def check_target(folder: Path, force: bool) -> None:
    """Refuse to write over what nobody meant to lose.

    Raises:
        InputError: something is there that is no empty folder, nor, with `force`, a prepared set and nothing else.
    """
    try:
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"{folder}: is there and is no folder; give another --to")
        held = {entry.name for entry in os.scandir(folder)}
    except OSError as error:
        raise InputError(f"{folder}: cannot be looked up ({error.strerror}); give another --to") from None
    prepared = MANIFEST in held and held <= PREPARED_FILES
    if held and not prepared:
        raise InputError(f"{folder}: holds other files; give a new folder with --to")
    if held and not force:
        raise InputError(f"{folder}: holds a prepared set; --force replaces it, or give another --to")


@contextlib.contextmanager
def atomic_folder(folder: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside `folder`, held by this process alone and gone at the end.

    What stands in its sub-folder `new` becomes `folder` when the block ends well. What a killed process left
    in it is cleared first, and a set that was half replaced is put back.

    Raises:
        InputError: `check_target`, another process is at work there, or it cannot be written to.
        RunError: the last step failed; what was there before is there still.
    """
    target = Path(os.path.realpath(folder))
    parents = _make_parents(target.parent, folder)
    hidden = target.with_name(f".{target.name}.preparing")
    try:
        with _locked(hidden, folder):
            try:
                _recover(hidden, target)
                check_target(target, force)
                (hidden / NEW).mkdir()
                yield hidden
                _publish(hidden, target, folder)
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
    except BaseException:
        _remove_empty(parents)
        raise


def _make_parents(parent: Path, folder: Path) -> list[Path]:
    """Make the folders above; those that were missing, the deepest first."""
    missing = [one for one in (parent, *parent.parents) if not one.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise InputError(f"{folder}: cannot be made ({error.strerror}); give another --to") from None
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for one in folders:
        with contextlib.suppress(OSError):
            one.rmdir()


@contextlib.contextmanager
def _locked(hidden: Path, folder: Path) -> Iterator[None]:
    try:
        hidden.mkdir(exist_ok=True)
        lock = FileLock(hidden / LOCK)
    except OSError as error:
        raise InputError(f"{folder}: cannot write beside it ({error.strerror}); give another --to") from None
    with lock:
        if not (lock.take() and lock.is_still_there()):
            raise InputError(f"{folder}: another `sparseflows data prepare` is at work there; wait for it")
        yield


def _recover(hidden: Path, target: Path) -> None:
    if (hidden / OLD).is_dir() and not target.exists():
        (hidden / OLD).rename(target)
    for entry in os.scandir(hidden):
        if entry.name.startswith(LOCK):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def _publish(hidden: Path, target: Path, folder: Path) -> None:
    try:
        if target.exists():
            target.rename(hidden / OLD)
        try:
            (hidden / NEW).rename(target)
        except OSError:
            if (hidden / OLD).exists():
                (hidden / OLD).rename(target)
            raise
    except OSError as error:
        raise RunError(f"{folder}: could not be put in place ({error.strerror})") from error
