"""Files of unknown origin, opened with care: streams that end where a bomb would go on, and safe names."""

import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from sparseflows.data.files.reading import one_line
from sparseflows.errors import InputError

MIB = 1 << 20
RATIO, RATIO_FROM = 100, 32 * MIB  # the published files shrink 3 to 10 times, a bomb of zeros 1,000 times
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile)


class Meter(Protocol):
    """Told how the work goes on."""

    def begin(self, label: str, total: int) -> None:
        """A part of the work begins: `total` bytes."""

    def advance(self, count: int) -> None:
        """So many bytes more."""


class Metered(io.FileIO):
    """A file on disk that counts what is read of it."""

    def __init__(self, path: Path, advance: Callable[[int], None]) -> None:
        super().__init__(path)
        self.spent, self._advance = 0, advance

    def readinto(self, buffer: object) -> int | None:
        """Fill the buffer, and count what was read."""
        count = super().readinto(buffer)  # type: ignore[arg-type]
        self.spent += count or 0
        self._advance(count or 0)
        return count


class Guarded(io.RawIOBase):
    """A stream that unpacks `inner`, read forwards, up to `limit` bytes and `RATIO` times those `spent` on disk so far.

    `name` is for messages.
    """

    def __init__(self, inner: BinaryIO, name: str, limit: float, spent: Callable[[], int] | None) -> None:
        super().__init__()
        self.name, self.given = name, 0
        self._inner, self._limit, self._spent = inner, limit, spent

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with what comes next: how many bytes that were.

        Raises:
            InputError: damaged, cut off, or larger than allowed.
        """
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        try:
            piece = self._inner.read(min(len(view), MIB))
        except DAMAGE as error:
            raise damaged(self.name, error) from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({error.strerror or one_line(error)})") from None
        view[: len(piece)] = piece
        self.given += len(piece)
        if self.given > self._limit:
            raise InputError(f"{self.name}: unpacks to more than {self._limit:,.0f} bytes; give the published file")
        if self._spent and self.given > RATIO_FROM and self.given > RATIO * self._spent():
            raise InputError(f"{self.name}: unpacks to more than {RATIO} times its size; give the published file")
        return len(piece)


def guarded(inner: BinaryIO, name: str, limit: float, spent: Callable[[], int] | None) -> BinaryIO:
    """`Guarded`, buffered: `read(n)` gives n bytes wherever there are as many."""
    return cast(BinaryIO, io.BufferedReader(Guarded(inner, name, limit, spent), MIB))


def opened(path: Path, advance: Callable[[int], None] = lambda count: None) -> tuple[BinaryIO, Callable[[], int]]:
    """A file on disk, open, and how many of its bytes have been spent; `advance` is told of each piece read.

    Raises:
        InputError: it cannot be read.
    """
    try:
        raw = Metered(path, advance)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    size = path.stat().st_size
    # A small buffer, so that what is spent is known closely. A zip archive is read here and there, and more than once.
    return cast(BinaryIO, io.BufferedReader(raw, MIB >> 4)), lambda: min(raw.spent, size)


def damaged(name: str, error: Exception) -> InputError:
    """The line for a file that does not unpack."""
    return InputError(f"{name}: damaged or cut off ({one_line(error)}); fetch it again")


def safe_name(name: str, archive: Path) -> str:
    """A member's path, without `./`.

    Raises:
        InputError: it leads out of the folder that the archive would be unpacked in.
    """
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        raise InputError(f"{archive}: holds a member outside of it, {name[:80]!r}; give the published archive")
    return str(PurePosixPath(name))
