"""Tar and zip archives of unknown origin: the wanted members, streamed out one at a time; anything odd is refused."""

import gzip
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from sparseflows.data.files.reading import one_line
from sparseflows.data.files.sources import MIB, damaged, guarded, safe_name
from sparseflows.errors import InputError

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


def match(name: str, wanted: Sequence[Wanted], direct: bool = False, zipped: bool = True) -> Wanted | None:
    """Which one the path `name` is; `direct`: it lies in the very folder that was given, so its name is enough."""
    for one in wanted:
        tails = {one.tail, one.file} if direct else {one.tail}
        if one.raw:
            tails |= {f"{one.tail}.gz"}
            tails |= {f"{one.tail}.zip", f"{Path(one.tail).stem}.zip"} if zipped else set()
        if any(f"/{name}".endswith(f"/{tail}") for tail in tails):
            return one
    return None


def zip_members(path: Path, stream: BinaryIO, wanted: Sequence[Wanted], spent: Callable[[], int]) -> Iterator[Member]:
    """The wanted members of a zip archive, gzipped ones unpacked; `spent` tells the bytes read from disk.

    Raises:
        InputError: damaged, cut off, encrypted; a member that is unsafe, too large or there twice.
    """
    try:
        archive = zipfile.ZipFile(stream)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise damaged(str(path), error) from None
    with archive:
        names: set[str] = set()
        for info in archive.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)
            _check_name(path, info.filename, mode in (0, stat.S_IFREG, stat.S_IFDIR), _is_folder(info), names)
        for info in archive.infolist():
            one = None if _is_folder(info) else match(safe_name(info.filename, path), wanted, zipped=False)
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
            yield _member(one, inside, guarded(inner, inside, one.limit, spent), spent)


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.filename.endswith("/")  # its own `is_dir` takes no name without letters


def tar_members(path: Path, stream: BinaryIO, wanted: Sequence[Wanted]) -> Iterator[Member]:
    """The wanted members of a tar stream, gzipped ones unpacked; it is read to its end.

    Raises:
        InputError: damaged or cut off; a member that is unsafe, too large or there twice.
    """
    forward = _Forward(stream, path)
    names: set[str] = set()
    try:
        archive: Any = tarfile.TarFile(fileobj=cast(BinaryIO, forward))
        while (info := archive.next()) is not None:
            archive.members.clear()  # else a million empty members stay in memory
            plain = (info.isreg() or info.isdir()) and not info.issparse()
            name = _check_name(path, info.name, plain, info.isdir(), names)
            one = None if info.isdir() else match(name, wanted, zipped=False)
            if one is None:
                continue
            inside = f"{path}: {name}"
            _check_size(inside, info.size, one)
            inner = cast(BinaryIO, archive.extractfile(info))
            yield _member(one, inside, guarded(inner, inside, one.limit, None), forward.tell)
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise InputError(f"{path}: not a tar archive, or damaged ({one_line(error)}); fetch it again") from None
    if forward.last != bytes(BLOCK):  # tarfile takes any unreadable header for the end
        raise InputError(f"{path}: damaged or cut off (no end mark); fetch it again")
    while stream.read(MIB):  # to the end, where gzip keeps its checksum
        pass


def _check_name(archive: Path, name: str, plain: bool, folder: bool, names: set[str]) -> str:
    """A member's safe name, added to `names`; refused where it is neither file nor folder, or a file there twice."""
    safe = safe_name(name, archive)
    if not plain:
        raise InputError(f"{archive}: holds {safe[:80]!r}, a link or device; give the published archive")
    if safe in names and not folder:
        raise InputError(f"{archive}: holds {safe[:80]!r} twice; give the published archive")
    names.add(safe)
    return safe


def _member(one: Wanted, name: str, stream: BinaryIO, spent: Callable[[], int]) -> Member:
    """An open member, unpacked where its name says that it is gzipped."""
    if name.endswith(".gz"):
        stream = guarded(cast(BinaryIO, gzip.GzipFile(fileobj=stream)), name, one.limit, spent)
    return Member(one, name, stream)


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
