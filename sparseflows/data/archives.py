"""Where a set's files are, and their streams: in a folder, a tar or zip archive, gzipped, or plain.

Nothing is unpacked to disk here. Only the members that a recipe wants are streamed out, one at a time.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from sparseflows.data.reading import existing_file
from sparseflows.data.sources import MIB, Metered, damaged, guarded, one_line, safe_name
from sparseflows.errors import InputError

TAR = (".tar", ".tar.gz", ".tgz")
DEPTH = 4  # folders below the one given that are searched
WHOLE_ARCHIVE = 64 << 30  # bytes unpacked, members of no interest included
BLOCK = 512  # of a tar archive


@dataclass(frozen=True)
class Wanted:
    """A file that a recipe reads.

    Attributes:
        key: what the recipe calls it; files of one key are alternatives.
        tail: its path below any leading folder.
        limit: bytes that it may unpack to.
        raw: the public raw text, which may be compressed by itself.
        pickled: executable content, read only where that is allowed.
    """

    key: str
    tail: str
    limit: int
    raw: bool = False
    pickled: bool = False

    @property
    def file(self) -> str:
        """The last part of `tail`."""
        return self.tail.rpartition("/")[2]


@dataclass(frozen=True)
class Member:
    """A wanted file, open: `stream` is read once, forwards. `local` is its path where it lies on disk as it is."""

    wanted: Wanted
    name: str
    stream: BinaryIO
    local: Path | None = None


@dataclass(frozen=True)
class Located:
    """What `path` is, and the files in it to read; with None for an archive, whose members are not known yet."""

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
    """What would be right."""
    by_key: dict[str, list[str]] = {}
    for one in wanted:
        by_key.setdefault(one.key, []).append(one.tail)
    return "looked for " + " and ".join(" or ".join(tails) for tails in by_key.values())


def _search(folder: Path, wanted: Sequence[Wanted]) -> tuple[tuple[Path, Wanted | None], ...]:
    found: dict[str, tuple[Path, Wanted | None]] = {}
    root = Path(os.path.realpath(folder))
    for path in _walk(folder, DEPTH):
        relative = f"{root.name}/{path.relative_to(folder).as_posix()}"
        one = _match(relative, wanted, path.parent == folder)
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
    """Whatever is no folder, linked folders included: what is behind them is not looked at."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield folder / entry.name
        elif depth and not entry.name.startswith("."):
            yield from _walk(folder / entry.name, depth - 1)


def _match(name: str, wanted: Sequence[Wanted], direct: bool = False, zipped: bool = True) -> Wanted | None:
    """Which one the path `name` is; `direct`: it lies in the very folder that was given, so its name is enough."""
    for one in wanted:
        tails = {one.tail, one.file} if direct else {one.tail}
        if one.raw:
            tails |= {f"{one.tail}.gz"}
            tails |= {f"{one.tail}.zip", f"{Path(one.tail).stem}.zip"} if zipped else set()
        if any(f"/{name}".endswith(f"/{tail}") for tail in tails):
            return one
    return None


def _opened(
    path: Path, one: Wanted | None, wanted: Sequence[Wanted], advance: Callable[[int], None]
) -> Iterator[Member]:
    try:
        raw = Metered(path, advance)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    lower, size = path.name.lower(), path.stat().st_size

    def spent() -> int:
        return min(raw.spent, size)  # a zip archive is read here and there, and more than once

    with io.BufferedReader(raw, MIB >> 4) as stream:  # small, so that what is spent is known closely
        if one is None and lower.endswith(".zip"):
            yield from _zip_members(path, cast(BinaryIO, stream), wanted, spent)
        elif one is None:
            inner = cast(BinaryIO, stream if lower.endswith(".tar") else gzip.GzipFile(fileobj=stream))
            yield from _tar_members(path, guarded(inner, str(path), WHOLE_ARCHIVE, spent), wanted)
        elif lower.endswith(".gz"):
            unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
            yield Member(one, str(path), guarded(unpacked, str(path), one.limit, spent))
        else:
            plain = guarded(cast(BinaryIO, stream), str(path), float("inf"), None)
            yield Member(one, str(path), plain, path)


def _zip_members(path: Path, stream: BinaryIO, wanted: Sequence[Wanted], spent: Callable[[], int]) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise damaged(str(path), error) from None
    with archive:
        names: set[str] = set()
        for info in archive.infolist():
            name, mode = safe_name(info.filename, path), stat.S_IFMT(info.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{path}: holds {name[:80]!r}, a link or device; give the published archive")
            if name in names and not info.is_dir():
                raise InputError(f"{path}: holds {name[:80]!r} twice; give the published archive")
            names.add(name)
        for info in archive.infolist():
            one = None if info.is_dir() else _match(safe_name(info.filename, path), wanted, zipped=False)
            if one is None:
                continue
            inside = f"{path}: {info.filename}"
            if info.flag_bits & 1:
                raise InputError(f"{inside}: encrypted; give the published archive")
            _check_size(inside, info.file_size, one)
            try:
                inner = cast(BinaryIO, archive.open(info))
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
                raise damaged(inside, error) from None
            unpacked = guarded(inner, inside, one.limit, spent)
            if info.filename.endswith(".gz"):
                unpacked = guarded(cast(BinaryIO, gzip.GzipFile(fileobj=unpacked)), inside, one.limit, spent)
            yield Member(one, inside, unpacked)


def _tar_members(path: Path, stream: BinaryIO, wanted: Sequence[Wanted]) -> Iterator[Member]:
    forward = _Forward(stream, path)
    names: set[str] = set()
    try:
        archive: Any = tarfile.TarFile(fileobj=cast(BinaryIO, forward))
        while (info := archive.next()) is not None:
            archive.members.clear()  # else a million empty members stay in memory
            name = safe_name(info.name, path)
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise InputError(f"{path}: holds {name[:80]!r}, a link or device; give the published archive")
            if info.isdir():
                continue
            if name in names:
                raise InputError(f"{path}: holds {name[:80]!r} twice; give the published archive")
            names.add(name)
            one = _match(name, wanted, zipped=False)
            if one is None:
                continue
            inside = f"{path}: {name}"
            _check_size(inside, info.size, one)
            inner = cast(BinaryIO, archive.extractfile(info))
            unpacked = guarded(inner, inside, one.limit, None)
            if name.endswith(".gz"):
                unpacked = guarded(cast(BinaryIO, gzip.GzipFile(fileobj=unpacked)), inside, one.limit, forward.tell)
            yield Member(one, inside, unpacked)
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InputError(f"{path}: not a tar archive, or damaged ({one_line(error)}); fetch it again") from None
    if forward.last != bytes(BLOCK):  # tarfile takes any unreadable header for the end
        raise InputError(f"{path}: damaged or cut off (no end mark); fetch it again")
    while stream.read(MIB):  # to the end, where gzip keeps its checksum
        pass


def _check_size(name: str, size: int, one: Wanted) -> None:
    if size > one.limit:
        raise InputError(f"{name}: unpacks to {size:,} bytes; at most {one.limit:,} are taken")


class _Forward:
    """A stream as tarfile wants it: it seeks forwards by reading, and one block back."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._place, self._back, self._tail = 0, 0, b""
        self.last = b""

    def tell(self) -> int:
        return self._place - self._back

    def seek(self, place: int) -> int:
        if not 0 <= self._place - place <= len(self._tail):
            self._back = 0
            while self._place < place and self._take(min(MIB, place - self._place)):
                pass
            return self._place
        self._back = self._place - place
        return place

    def read(self, size: int) -> bytes:
        if size > 4 * MIB:  # members are read by the MiB: this is a header's doing
            raise InputError(f"{self._path}: a header of {size:,} bytes; give the published archive")
        again = self._tail[len(self._tail) - self._back :][:size] if self._back else b""
        self._back -= len(again)
        self.last = again + self._take(size - len(again)) if size > len(again) else again
        return self.last

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._place += len(data)
        self._tail = (data if len(data) >= BLOCK else self._tail + data)[-BLOCK:]
        return data
