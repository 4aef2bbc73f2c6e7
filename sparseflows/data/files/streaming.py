"""Tables larger than memory: written and read in blocks of rows, with the moments of the whole.

What is kept in memory is one block, whatever the size of the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sparseflows.errors import InputError

BLOCK_BYTES = 8 << 20

# A way to go through the same rows again: each call gives blocks (B, D) float64, in order.
Blocks = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Moments:
    """Mean, deviation and extremes of each column, (D,) float64; `std` has the divisor that was asked for."""

    rows: int
    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray

    def of(self, columns: list[int]) -> Moments:
        """The moments of some of the columns, each array (len(columns),)."""
        kept = (array[columns] for array in (self.mean, self.std, self.minimum, self.maximum))
        return Moments(self.rows, *kept)


def on_disk(path: Path, made: Iterable[np.ndarray], name: str) -> np.ndarray:
    """Blocks of rows (B, D) as one table (N, D) float64 in the file `path`, by a read-only memory map.

    Written with `write`, not through a memory map: a full disk is then an error and not a signal that kills.

    Raises:
        InputError: there is not one row; `name` is for the message.
    """
    with path.open("wb") as stream:
        shape = _write_blocks(stream, made, np.dtype(np.float64))
    if not shape[0]:
        raise InputError(f"{name}: not one row that the recipe keeps; give the published file")
    return np.memmap(path, dtype=np.float64, mode="r", shape=shape)


def block_rows(columns: int) -> int:
    """Rows of a block of `columns` columns."""
    return max(1, BLOCK_BYTES // (8 * columns))


def blocks(table: np.ndarray, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Rows `start` to `stop` of anything that slices to an array, as blocks (B, D) float64 of their own."""
    stop = table.shape[0] if stop is None else stop
    step = block_rows(table.shape[1])
    for begin in range(start, stop, step):
        yield np.array(table[begin : min(begin + step, stop)], dtype=np.float64)


def finite_blocks(table: np.ndarray, name: str) -> Iterator[np.ndarray]:
    """The `blocks` (B, D) of a whole table (N, D).

    Raises:
        InputError: a row holds NaN or an infinite value.
    """
    row = 1
    for block in blocks(table):
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            raise InputError(f"{name}: row {row + bad[0]} holds NaN or an infinite value; give the published file")
        row += len(block)
        yield block


def gathered(table: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of `table` in `order`, as blocks (B, D) float64."""
    step = block_rows(table.shape[1])
    for begin in range(0, len(order), step):
        yield np.asarray(table[order[begin : begin + step]], dtype=np.float64)


def moments(rows: Blocks, ddof: int = 0) -> Moments:
    """Mean, standard deviation (divisor N − `ddof`) and extremes of each column, in two passes.

    Pairwise sums within a block, exact ones over blocks, and the second pass corrected by the sum of its
    deviations: as close as float64 gets, where one pass over squares would cancel.
    """
    sums, lowest, highest, count = [], [], [], 0
    squares, drifts = [], []
    with np.errstate(over="ignore", invalid="ignore"):  # not finite then; the caller judges
        for block in rows():
            sums.append(_column_sums(block))
            lowest.append(block.min(axis=0))
            highest.append(block.max(axis=0))
            count += len(block)
        mean = _total(sums) / count
        for block in rows():
            block -= mean
            drifts.append(_column_sums(block))
            np.square(block, out=block)
            squares.append(_column_sums(block))
        variance = (_total(squares) - _total(drifts) ** 2 / count) / max(1, count - ddof)
        std = np.sqrt(np.maximum(variance, 0.0))
    return Moments(count, mean, std, np.min(lowest, axis=0), np.max(highest, axis=0))


def correlation(rows: Blocks, mean: np.ndarray) -> np.ndarray:
    """Correlations (D, D) of the columns; `mean` (D,) is that of all rows."""
    products: list[np.ndarray] = []
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # NaN then, which is close to nothing
        for block in rows():
            block -= mean
            products.append(block.T @ block)
        covariance = _total(products)
        scale = np.sqrt(np.diag(covariance))
        return covariance / np.outer(scale, scale)


def write_npy(path: Path, rows: int, columns: int, dtype: str, made: Iterable[np.ndarray]) -> None:
    """Write blocks as a .npy file (rows, columns), C order, that a memory map can open.

    Raises:
        OSError: as the file system says.
    """
    kind = np.dtype(dtype)
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (rows, columns)}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        written = _write_blocks(stream, made, kind)
        stream.flush()
        os.fsync(stream.fileno())
    assert written == (rows, columns), (path, written, rows, columns)


def refuse_constant(found: Moments, columns: list[str], name: str) -> None:
    """Standardising divides by the deviation.

    Raises:
        InputError: a column never varies, or is so large that its deviation is not finite.
    """
    for k, column in enumerate(columns):
        if found.minimum[k] == found.maximum[k]:
            raise InputError(f"{name}: column '{column}' is {found.minimum[k]:g} in every row; give the published file")
        if not (math.isfinite(found.std[k]) and found.std[k] > 0):
            raise InputError(f"{name}: column '{column}' is too large or too small to standardise")


def _write_blocks(stream: BinaryIO, made: Iterable[np.ndarray], kind: np.dtype) -> tuple[int, int]:
    """Write blocks (B, D) in C order: the shape (N, D) of the whole."""
    rows, columns = 0, 0
    for block in made:
        stream.write(np.ascontiguousarray(block, dtype=kind).data)
        rows, columns = rows + len(block), block.shape[1]
    return rows, columns


def _column_sums(block: np.ndarray) -> np.ndarray:
    # By contiguous columns: NumPy sums pairwise along the fast axis only.
    total: np.ndarray = np.ascontiguousarray(block.T).sum(axis=1)
    return total


def _total(parts: list[np.ndarray]) -> np.ndarray:
    stacked = np.stack(parts)
    try:
        flat = [math.fsum(column) for column in stacked.reshape(len(parts), -1).T]
    except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
        return np.full(stacked.shape[1:], np.nan)
    return np.array(flat).reshape(stacked.shape[1:])
