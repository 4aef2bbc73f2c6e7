"""Where a set's files are, and their streams: in a folder, a tar or zip archive, gzipped, or plain.

Nothing is unpacked to disk here. Only the members that a recipe wants are streamed out, one at a time.
"""

import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from sparseflows.data.files.containers import Member, Wanted, match, tar_members, zip_members
from sparseflows.data.files.reading import existing_file
from sparseflows.data.files.sources import guarded, opened
from sparseflows.errors import InputError

TAR = (".tar", ".tar.gz", ".tgz")
DEPTH = 4  # folders below the one given that are searched
WHOLE_ARCHIVE = 64 << 30  # bytes unpacked, members of no interest included


@dataclass(frozen=True)
class Located:
    """The kind of a source, and its files to read; None stands for an archive, whose members are not known yet."""

    kind: str
    files: tuple[tuple[Path, Wanted | None], ...]


def locate(path: Path, wanted: Sequence[Wanted]) -> Located:
    """Find the files to read; nothing is unpacked.

    Raises:
        InputError: nothing there, nothing of this set there, two alternatives, a link that leads out of the folder.
    """
    if os.path.isdir(path):
        return Located("folder", _search(path, wanted))
    file = existing_file(path)
    name = file.name.lower()
    if name.endswith((*TAR, ".zip")):
        kind = "raw" if name.endswith(".zip") and any(w.raw for w in wanted) else "archive"
        return Located(kind, ((file, None),))
    if len({one.key for one in wanted}) > 1:
        files = " and ".join(one.file for one in wanted)
        raise InputError(f"{path}: one file of several; give the folder or the archive that holds {files}")
    suffix = Path(name.removesuffix(".gz")).suffix
    for one in wanted:
        if suffix == Path(one.tail).suffix or (suffix in (".h5", ".hdf") and one.tail.endswith(".hdf5")):
            return Located("raw" if one.raw else "archive", ((file, one),))
    raise InputError(f"{path}: not a file of this set; {looked_for(wanted)}")


def members(located: Located, wanted: Sequence[Wanted], advance: Callable[[int], None]) -> Iterator[Member]:
    """Every wanted file, open; read it before the next is asked for.

    Raises:
        InputError: a damaged, cut-off or unsafe archive; a file missing or there twice.
    """
    seen: dict[str, str] = {}
    for path, one in located.files:
        for member in _opened(path, one, wanted, advance):
            key = member.wanted.key
            if key in seen:
                raise InputError(f"{seen[key]} and {member.name}: either would do; give the path of one of them")
            seen[key] = member.name
            yield member
    missing = [one for one in wanted if one.key not in seen]
    if missing:
        raise InputError(f"{located.files[0][0]}: {looked_for(missing)}")


def looked_for(wanted: Sequence[Wanted]) -> str:
    """The end of a message: the files that would be right."""
    by_key: dict[str, list[str]] = {}
    for one in wanted:
        by_key.setdefault(one.key, []).append(one.tail)
    return "looked for " + " and ".join(" or ".join(tails) for tails in by_key.values())


def _search(folder: Path, wanted: Sequence[Wanted]) -> tuple[tuple[Path, Wanted | None], ...]:
    found: dict[str, tuple[Path, Wanted | None]] = {}
    root = Path(os.path.realpath(folder))
    for path in _walk(folder, DEPTH):
        relative = f"{root.name}/{path.relative_to(folder).as_posix()}"
        one = match(relative, wanted, path.parent == folder)
        if one is None:
            continue
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise InputError(f"{path}: a link that leads out of {folder}; give the path of the file itself")
        existing_file(path)
        if one.key in found:
            raise InputError(f"{found[one.key][0]} and {path}: either would do; give the path of one of them")
        found[one.key] = (path, None if path.suffix.lower() == ".zip" else one)
    missing = [one for one in wanted if one.key not in found]
    if missing:
        raise InputError(f"{folder}: {looked_for(missing)}")
    return tuple(found.values())


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """The entries that are no folder, linked folders included: what is behind a link is not looked at."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield folder / entry.name
        elif depth and not entry.name.startswith("."):
            yield from _walk(folder / entry.name, depth - 1)


def _opened(
    path: Path, one: Wanted | None, wanted: Sequence[Wanted], advance: Callable[[int], None]
) -> Iterator[Member]:
    lower = path.name.lower()
    stream, spent = opened(path, advance)
    with stream:
        if one is None and lower.endswith(".zip"):
            yield from zip_members(path, stream, wanted, spent)
        elif one is None:
            inner = cast(BinaryIO, stream if lower.endswith(".tar") else gzip.GzipFile(fileobj=stream))
            yield from tar_members(path, guarded(inner, str(path), WHOLE_ARCHIVE, spent), wanted)
        elif lower.endswith(".gz"):
            unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
            yield Member(one, str(path), guarded(unpacked, str(path), one.limit, spent))
        else:
            yield Member(one, str(path), guarded(stream, str(path), float("inf"), None), path)
