"""A .npy or .csv file becomes an array, or one line says what is wrong with it and where.

What the array holds is judged in `sparseflows.data.tables.tabular`.
"""

import csv
import hashlib
import os
import tokenize
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparseflows.errors import InputError

FilePath = str | os.PathLike[str]
PIECE = 1 << 20  # bytes read at once

# Written in place of a number: such a cell makes no header of the line it stands in.
MISSING_MARKS = frozenset({"", "na", "n/a", "null", "none", "?", "-", "."})


def read_array(path: FilePath) -> np.ndarray:
    """The array in a .npy file, or the numbers (N, D) in a comma-separated .csv file.

    The first line of a .csv file is skipped as a header when a cell of it is text; a cell that is empty or
    holds a mark such as `NA` or `?` counts as a missing number and is refused. Pickled objects are never
    loaded.

    Raises:
        InputError: no such file, a folder, an unknown suffix, an unreadable or cut-off file, a ragged
            line, a cell that is no number.
    """
    file = existing_file(path)
    readers: dict[str, Callable[[Path], np.ndarray]] = {".npy": _read_npy, ".csv": _read_csv}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError(f"{file}: the suffix '{file.suffix}' is not known; give a .npy or a .csv file")
    try:
        return reader(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or one_line(error)})") from error


def fingerprint(path: FilePath, advance: Callable[[int], None] = lambda count: None) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; read in pieces, so of any size.

    Args:
        path: of the file.
        advance: told how many bytes more have been read.

    Raises:
        InputError: no such file, a folder, or it cannot be read.
    """
    file, digest = existing_file(path), hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
                advance(len(piece))
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error


def mapped_array(file: Path, remedy: str = "") -> np.ndarray:
    """The array in a .npy file, of any shape, by a read-only memory map; `remedy` ends the message.

    Raises:
        InputError: it cannot be read.
    """
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: cannot be read, perhaps cut off ({one_line(error)}){remedy}") from error
    return array


def existing_file(path: FilePath) -> Path:
    """`path` as a Path.

    Raises:
        InputError: there is nothing there, or something other than a file.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise InputError(f"{file}: is a folder; give a .npy or .csv file in it")
        if not file.exists():
            raise InputError(f"{file}: no such file (looked in {file.absolute().parent})")
        if not file.is_file():
            raise InputError(f"{file}: is not a regular file; give a .npy or .csv file")
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a folder closed to us
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(file)!r}: cannot be looked up ({one_line(error)})") from error
    return file


def counted(number: int, noun: str) -> str:
    """`"1 row"`, `"2 rows"`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def one_line(error: Exception) -> str:
    """The message of an error."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_number(cell: str) -> bool:
    """Whether a cell of text is a number, infinities and NaN among them."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python's own digit separator


def _read_npy(file: Path) -> np.ndarray:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        if "Object arrays" in str(error):
            raise InputError(f"{file}: holds Python objects; save an array of numbers") from error
        if "pickled" in str(error):  # NumPy's word for whatever lacks the magic bytes
            raise InputError(f"{file}: is not in the .npy format; write it with numpy.save") from error
        raise InputError(f"{file}: cannot be read, perhaps cut off ({one_line(error)})") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{file}: is an archive of arrays (.npz); save one array with numpy.save")
    return array


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING_MARKS


def _read_csv(file: Path) -> np.ndarray:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            first = next((row for row in rows if row), [])
            header_lines = rows.line_num  # blank lines above the header included
        header = any(not is_number(cell) and not _is_missing(cell) for cell in first)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data")  # judged later
            array = np.loadtxt(
                file,
                delimiter=",",
                skiprows=header_lines if header else 0,
                ndmin=2,
                quotechar='"',
                comments=None,
                encoding="utf-8-sig",
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not text in UTF-8; give comma-separated numbers") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"{file}: {_first_fault(file) or one_line(error)}") from error
    if header and array.size and array.shape[1] != len(first):
        raise InputError(f"{file}: {_first_fault(file)}")
    return array


def _first_fault(file: Path) -> str:
    """Where the first ragged line or bad cell is; a second, slow reading, since NumPy's message lacks it."""
    width = 0
    with file.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        try:
            for row in rows:
                if not row:
                    continue
                bad = [k for k, cell in enumerate(row) if not is_number(cell)]
                if width and len(row) != width:
                    return f"line {rows.line_num} has {counted(len(row), 'cell')}, the first line has {width}"
                is_header = not width and any(not _is_missing(row[k]) for k in bad)
                width = width or len(row)
                if not bad or is_header:
                    continue
                place, cell = f"line {rows.line_num}, column {bad[0] + 1}", row[bad[0]]
                if _is_missing(cell):
                    return f"{place}: a value is missing ({cell!r}); drop the row or fill it in"
                return f"{place}: {cell[:40]!r} is not a number; give comma-separated numbers"
        except csv.Error as error:
            return f"line {rows.line_num}: {one_line(error)}"
    return ""
