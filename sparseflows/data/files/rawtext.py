"""Streams become numbers: lines of text in blocks, and the .npy format, neither ever read whole."""

import math
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparseflows.data.files.reading import counted, is_number
from sparseflows.errors import InputError

TEXT_BLOCK = 4 << 20
LONGEST_LINE = 64 << 10
SHOWN = 30  # characters of a bad cell in a message


def text_blocks(stream: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Blocks of whole lines, without their ends, each with the number of its first line (from 1).

    Raises:
        InputError: bytes that are no ASCII text, or a line without end.
    """
    rest, number = b"", 1
    while piece := stream.read(TEXT_BLOCK):
        cut = piece.rfind(b"\n") + 1
        if len(rest) + (len(piece) if cut == 0 else piece.find(b"\n")) > LONGEST_LINE:
            raise InputError(f"{name}: line {number} is longer than {LONGEST_LINE:,} bytes; give the published text")
        if cut:
            lines = _decoded(rest + piece[:cut], name, number).split("\n")
            lines.pop()
            yield number, lines
            number += len(lines)
        rest = piece[cut:] if cut else rest + piece
    if rest:
        yield number, [_decoded(rest, name, number)]


def numbers(
    lines: Sequence[str],
    where: Sequence[int],
    widths: Collection[int],
    delimiter: str | None,
    name: str,
    columns: Sequence[int] | None = None,
) -> np.ndarray:
    """The numbers in `lines`, (N, D) float64 with one D of `widths` for all; blank lines are skipped.

    `where` and `columns` are the numbers, in the file, of each line and of each cell's column (by default 1, 2, …).
    `delimiter` None is white space.

    Raises:
        InputError: a cell that is no finite number, or lines of other widths; the first is named.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*input contained no data")
            array = np.loadtxt(lines, delimiter=delimiter, comments=None, ndmin=2)
    except ValueError:
        raise InputError(f"{name}: {_fault(lines, where, widths, delimiter, columns)}") from None
    if array.size == 0:
        return np.empty((0, max(widths)))
    if array.shape[1] not in widths or not np.isfinite(array).all():
        raise InputError(f"{name}: {_fault(lines, where, widths, delimiter, columns)}")
    return array


def after_header(
    stream: BinaryIO, name: str, judge: Callable[[str, str], None]
) -> Iterator[tuple[Sequence[int], list[str]]]:
    """The `text_blocks` without the first line: the number of each line in its file, and the lines.

    `judge` is given the first line and the name, and raises InputError where that is no header of the file.
    """
    for number, lines in text_blocks(stream, name):
        if number == 1:
            judge(lines[0], name)
            number, lines = 2, lines[1:]
        yield range(number, number + len(lines)), lines


def column_names(line: str, name: str, delimiter: str | None = None) -> None:
    """Judge a header that should hold the columns' names.

    Raises:
        InputError: it holds numbers only.
    """
    if all(is_number(cell) for cell in line.split(delimiter)):
        raise InputError(f"{name}: line 1 should be a header with the columns' names; give the published text")


def copy_npy(stream: BinaryIO, name: str, columns: int, scratch: Path, limit: float) -> np.ndarray:
    """Copy the payload of a .npy stream to the file `scratch`; the array in it, (N, columns), by memory map.

    Python objects are never loaded.

    Raises:
        InputError: not the .npy format, not real numbers, another shape, or cut off.
    """
    shape, fortran, kind = _npy_header(stream, name)
    if kind.kind not in "fiu":
        what = "Python objects" if kind.hasobject else f"entries of type {kind}"
        raise InputError(f"{name}: holds {what}; an array of real numbers is wanted")
    if len(shape) != 2 or shape[1] != columns:
        raise InputError(f"{name}: has the shape {shape}; (N, {columns}) is wanted")
    size = math.prod(shape) * kind.itemsize
    if size > limit:
        raise InputError(f"{name}: says that it holds {size:,} bytes; at most {limit:,.0f} are taken")
    if size == 0:
        raise InputError(f"{name}: has no rows; (N, {columns}) is wanted")
    with scratch.open("wb") as out:
        shutil.copyfileobj(stream, out, TEXT_BLOCK)
        done = out.tell()
    if done < size:
        raise InputError(f"{name}: cut off after {done:,} of {size:,} bytes; fetch it again")
    if done > size:
        raise InputError(f"{name}: goes on after its {shape[0]:,} rows; fetch it again")
    return np.memmap(scratch, kind, mode="r", shape=shape, order="F" if fortran else "C")


def _npy_header(stream: BinaryIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        if version not in readers:
            raise InputError(f"{name}: of .npy version {version}; 1.0 and 2.0 are read")
        shape, fortran, kind = readers[version](stream)
    except InputError:
        raise
    except Exception as error:  # a header is Python text: whatever its parser may raise
        raise InputError(f"{name}: is not in the .npy format, or cut off; fetch it again") from error
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise InputError(f"{name}: has the shape {shape}; fetch it again")
    return shape, fortran, kind


def _decoded(data: bytes, name: str, number: int) -> str:
    if number == 1:
        data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        line = number + data.count(b"\n", 0, error.start)
        raise InputError(f"{name}: line {line} is not plain text; give the published text") from None


def _fault(
    lines: Sequence[str],
    where: Sequence[int],
    widths: Collection[int],
    delimiter: str | None,
    columns: Sequence[int] | None,
) -> str:
    """The first fault in the lines and its place: a second, slow reading, since NumPy's message lacks it."""
    wanted, width = " or ".join(map(str, sorted(widths))), 0
    for number, line in zip(where, lines, strict=True):
        cells = line.split(delimiter)
        if not line.strip("\r"):
            continue
        width = width or len(cells)
        if len(cells) not in widths or len(cells) != width:
            return f"line {number} has {counted(len(cells), 'column')}, {wanted} are wanted; is the file cut off?"
        for k, cell in enumerate(cells):
            if not (is_number(cell) and math.isfinite(float(cell))):
                what = "is not finite" if is_number(cell) else "is no number"
                column = columns[k] if columns else k + 1
                return f"line {number}, column {column}: {cell.strip()[:SHOWN]!r} {what}; give the published text"
    return f"lines {where[0]} to {where[-1]} cannot be read as numbers; give the published text"
