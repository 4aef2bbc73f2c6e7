"""A text file, open: plain or packed, in UTF-8, UTF-16 or the one-byte code of Western Windows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from sparseflows.data.files.sources import damaged, guarded
from sparseflows.errors import InputError

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".tab")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zip")
HEAD = 1 << 18  # characters from which the layout of a file is read
# The longer marks first: UTF-32's begins as UTF-16's.
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
# What begins a file that is no text → what it is, and the suffix that says so.
_NO_TEXT = {
    b"\x1f\x8b": ("packed by gzip", ".csv.gz"),
    b"BZh": ("packed by bzip2", ".csv.bz2"),
    b"\xfd7zXZ": ("packed by xz", ".csv.xz"),
    b"PK\3\4": ("a zip archive or a workbook", ".zip or .xlsx"),
    b"PAR1": ("in the Parquet format", ".parquet"),
    b"ARROW1": ("in the Feather format", ".feather"),
    b"\x93NUMPY": ("in NumPy's format", ".npy"),
}


@contextmanager
def opened_text(file: Path) -> Iterator[TextIO]:
    """The text of a file, with its line ends as they are, unpacked where its name ends in .gz, .bz2, .xz or .zip.

    Raises:
        InputError: damaged, an archive of several files, or not text.
    """
    with _unpacked(file) as binary:
        start = binary.peek(1 << 16) if isinstance(binary, io.BufferedReader) else b""
        for mark, (what, suffix) in _NO_TEXT.items():
            if start.startswith(mark):
                raise InputError(f"{file}: is {what}, not text; give it a name that ends in {suffix}")
        with io.TextIOWrapper(binary, encoding=_encoding(start), newline="") as stream:
            try:
                yield stream
            except UnicodeDecodeError as error:
                raise InputError(f"{file}: is not text in UTF-8 ({error.reason}); save it as UTF-8") from error


def bare_suffix(file: Path) -> str:
    """The suffix of what is in a file: `.csv` of `rows.csv`, `rows.csv.gz` and of `rows.zip` with `rows.csv` in it."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if not suffixes or suffixes[-1] not in PACKED_SUFFIXES:
        return suffixes[-1] if suffixes else ""
    if len(suffixes) > 1 and suffixes[-2] in TEXT_SUFFIXES:
        return suffixes[-2]
    return Path(_only_member(file)).suffix.lower() if suffixes[-1] == ".zip" else ""


@contextmanager
def _unpacked(file: Path) -> Iterator[BinaryIO]:
    suffix = file.suffix.lower()
    if suffix == ".zip":
        member = _only_member(file)
        try:
            with zipfile.ZipFile(file) as archive, archive.open(member) as inner:
                yield guarded(cast(BinaryIO, inner), f"{file}: {member}", float("inf"), None)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise damaged(str(file), error) from None
        return
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if suffix in openers:
        with openers[suffix](file, "rb") as inner:
            yield guarded(cast(BinaryIO, inner), str(file), float("inf"), None)
        return
    with file.open("rb") as plain:
        yield plain


def _only_member(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            # What the Finder of macOS adds is no data.
            names = [one.filename for one in archive.infolist() if not one.filename.endswith("/")]
            names = [name for name in names if not name.startswith("__MACOSX/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise damaged(str(file), error) from None
    if len(names) != 1:
        raise InputError(f"{file}: holds {len(names)} files ({', '.join(names[:3])} …); give an archive of one")
    return names[0]


def _encoding(start: bytes) -> str:
    """How the text is written that begins with these bytes."""
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if len(start) > 3 and b"\0" in start[:2]:  # digits in two bytes each, without a mark
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    # Names from Western Windows, and beneath them nothing but plain characters.
    lines = start.splitlines()
    with_more = [k for k, line in enumerate(lines) if not line.isascii()]
    if with_more and all(lines[k].lstrip()[:1] == b"#" or k == _first_line(lines) for k in with_more):
        try:
            b"\n".join(lines[k] for k in with_more).decode("utf-8")
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _first_line(lines: list[bytes]) -> int:
    filled = (k for k, line in enumerate(lines) if line.strip() and line.lstrip()[:1] != b"#")
    return next(filled, -1)
