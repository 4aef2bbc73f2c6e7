"""Files: looked up, known by their bytes, and the arrays in those of NumPy's own format.

What an array holds is judged in `sparseflows.data.tables.tabular`; text is read in `sparseflows.data.text`.
"""

import hashlib
import os
import re
import tokenize
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparseflows.errors import InputError

FilePath = str | os.PathLike[str]
PIECE = 1 << 20  # bytes read at once
_OF_ARRAYS = re.compile(r"'descr':\s*('[<>|=]?[(\d][^']*')")  # as 8f4, (2,)f8


def read_npy(file: Path) -> np.ndarray:
    """The array in a .npy file, of any shape; pickled objects are never loaded.

    Raises:
        InputError: another format, or cut off.
    """
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
    _check_length(file, array)
    return array


def _check_length(file: Path, array: np.ndarray, remedy: str = "; write it with numpy.save again") -> None:
    """Check that the .npy file ends where its header says: NumPy reads what that says and drops the rest in silence.

    Raises:
        InputError: it goes on, or its numbers are arrays of numbers (`8f4`), which NumPy takes for numbers.
    """
    with file.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
        header = stream.read(length).decode("latin1")
        wanted = stream.tell() + array.nbytes
    if found := _OF_ARRAYS.search(header):
        raise InputError(f"{file}: is of the type {found[1]}, arrays within an array; save one of numbers")
    there = file.stat().st_size
    if there != wanted:
        raise InputError(
            f"{file}: holds {there:,} bytes, but its header says {array.shape} of {array.dtype}, {wanted:,}{remedy}"
        )


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
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{file}: cannot be read, perhaps cut off ({one_line(error)}){remedy}") from error
    _check_length(file, array, remedy)
    return array


def existing_file(path: FilePath) -> Path:
    """`path` as a Path.

    Raises:
        InputError: there is nothing there, or something other than a file.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise InputError(f"{file}: is a folder; give a file in it")
        if not file.exists():
            raise InputError(f"{file}: no such file (looked in {file.absolute().parent})")
        if not file.is_file():
            raise InputError(f"{file}: is not a regular file; give a table, such as a .npy or .csv file")
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a folder closed to us
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(file)!r}: cannot be looked up ({one_line(error)})") from error
    return file


def counted(number: int, noun: str) -> str:
    """`"1 row"`, `"2 rows"`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
