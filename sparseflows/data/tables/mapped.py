"""Rows that stay on disk: read by memory map when they are asked for, so that a set may exceed the memory."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import mapped_array
from sparseflows.data.tables.choosing import Labels
from sparseflows.data.tables.copies import row_hashes
from sparseflows.data.tables.tabular import Standardiser, refuse_constant_columns, refuse_few_rows
from sparseflows.errors import InputError

Array = NDArray[np.float64]

IN_MEMORY_BYTES = 2**28  # of a file; a smaller one is loaded whole
BLOCK_BYTES = 2**20  # read at once; so little that it is standardised within the caches
TRAIN, VALIDATION, TEST, LEFT_OUT = 0, 1, 2, 3


class MappedRows:
    """Rows (N, D) of a .npy file, or the part of them that `labels` assigns, as a read-only sequence.

    Indexing with a slice or an array of row numbers gives a float64 array, standardised. `block` reads what
    lies together on disk.

    Args:
        file: the .npy file, two-dimensional.
        labels: (rows of the file,) uint8, which part each row belongs to; None: all rows are in.
        part: the one that is meant.
        standardiser: applied to what is read; None: nothing is.
        block_rows: rows of the file that are read at once; None: 1 MiB of them.
        columns: places of the columns that are in, from 0; None: all.
    """

    ndim = 2

    def __init__(
        self,
        file: Path,
        labels: NDArray[np.uint8] | None = None,
        part: int = TRAIN,
        standardiser: Standardiser | None = None,
        block_rows: int | None = None,
        columns: tuple[int, ...] | None = None,
    ) -> None:
        self.file, self.labels, self.part, self.standardiser, self.columns = file, labels, part, standardiser, columns
        self._map = _open(file)
        total, width = self._map.shape
        self.block_rows = block_rows or max(1, BLOCK_BYTES // (width * self._map.itemsize))
        edges = np.arange(0, total + self.block_rows, self.block_rows).clip(max=total)
        if labels is None:
            self._starts = edges
        else:
            counts = [np.count_nonzero(labels[a:b] == part) for a, b in pairwise(edges)]
            self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.shape = (int(self._starts[-1]), width if columns is None else len(columns))

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: getattr(self, name) for name in ("file", "labels", "part", "standardiser", "block_rows", "columns")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._starts) - 1

    def block_sizes(self) -> NDArray[np.int64]:
        """Rows of each block: (blocks,)."""
        return np.diff(self._starts)

    def block(self, number: int) -> Array:
        """The rows of one block, standardised."""
        return self._standardised(self._taken(self._in_block(number)))

    def read_block(self, number: int, into: np.ndarray) -> None:
        """Write the rows of one block, standardised, to `into` (rows of the block, D), of any precision."""
        rows = self._taken(self._in_block(number))
        into[:] = rows if self.standardiser is None else self.standardiser.apply(rows)

    def __getitem__(self, index: Any) -> Array:
        wanted = np.arange(len(self))[index] if isinstance(index, slice | int) else np.asarray(index)
        if wanted.ndim == 0:
            row: Array = self[wanted[None]][0]
            return row
        numbers = np.searchsorted(self._starts, wanted, side="right") - 1
        found = np.empty((len(wanted), self.shape[1]))
        for number in np.unique(numbers):
            mine = numbers == number
            place = self._in_block(number)
            inside = wanted[mine] - self._starts[number]
            found[mine] = self._taken(place.start + inside if isinstance(place, slice) else place[inside])
        return self._standardised(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float64, copy=False)

    def _in_block(self, number: int) -> slice | NDArray[np.int64]:
        first, last = number * self.block_rows, min((number + 1) * self.block_rows, len(self._map))
        if self.labels is None:
            return slice(first, last)
        return first + np.flatnonzero(self.labels[first:last] == self.part)

    def _taken(self, rows: slice | NDArray[np.int64]) -> np.ndarray:
        """The columns that are in, of some rows of the file."""
        found = self._map[rows]
        return found if self.columns is None else found[:, list(self.columns)]

    def _standardised(self, rows: np.ndarray) -> Array:
        own = rows.astype(np.float64)
        return own if self.standardiser is None else self.standardiser.apply(own)


Rows = np.ndarray | MappedRows


def is_large(file: Path) -> bool:
    """Is this a .npy file that is better left on disk?"""
    try:
        return file.suffix.lower() == ".npy" and file.stat().st_size > IN_MEMORY_BYTES
    except OSError:
        return False


def assign(rows: int, val_fraction: float, test_fraction: float, generator: np.random.Generator) -> NDArray[np.uint8]:
    """A part for every row (rows,): each share exact, each row as likely as any other; a block at a time.

    How many rows of a block go where is drawn from the multivariate hypergeometric distribution, then which.
    """
    left = np.array([0, round(rows * val_fraction), round(rows * test_fraction)])
    left[TRAIN] = rows - left.sum()
    labels = np.empty(rows, dtype=np.uint8)
    for first in range(0, rows, 2**20):
        block = labels[first : first + 2**20]
        counts = generator.multivariate_hypergeometric(left, len(block), method="marginals")
        block[:] = generator.permutation(np.repeat(np.arange(3, dtype=np.uint8), counts))
        left -= counts
    return labels


def shape_of(file: Path) -> tuple[int, int]:
    """Rows and columns of a .npy file.

    Raises:
        InputError: not a 2-D table of real numbers.
    """
    table = _open(file)
    if table.dtype.kind not in "biuf":
        raise InputError(f"{file}: holds dtype {table.dtype}; give real numbers")
    return int(table.shape[0]), int(table.shape[1])


def check_table(
    file: Path, columns: tuple[int, ...] | None = None, drop_missing: bool = False
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Refuse what `tabular.validate` refuses, in blocks; constant columns are seen to by `fit_columns`.

    Returns:
        A hash of every row (N,), and whether a value in it is missing (N,): never, unless such rows are to be dropped.

    Raises:
        InputError: not a 2-D table of real numbers, NaN or infinite values, fewer rows than columns.
    """
    shape_of(file)
    rows = MappedRows(file, columns=columns)
    hashes, missing = np.empty(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=bool)
    for number in range(rows.blocks):
        block = rows.block(number)
        first = number * rows.block_rows
        inside = slice(first, first + len(block))
        gone = np.isnan(block)
        missing[inside] = gone.any(axis=1) if drop_missing else False
        bad = ~np.isfinite(block) & ~(gone & drop_missing)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            place = column if columns is None else columns[column]
            raise InputError(
                f"{file}: a value is NaN or infinite, the first in row {first + row + 1}, column {place + 1}; drop the "
                "rows or fill them in (data.missing: drop leaves out those with NaN)"
            )
        hashes[inside] = row_hashes(block)
    refuse_few_rows((int((~missing).sum()), rows.shape[1]), str(file))
    return hashes, missing


def fit_columns(rows: MappedRows, source: str, names: Labels = None) -> Standardiser:
    """Mean and standard deviation (divisor N) of each column, in two passes over the blocks.

    Raises:
        InputError: a column is constant.
    """
    blocks = range(rows.blocks)
    lowest = np.min([rows.block(k).min(axis=0, initial=np.inf) for k in blocks], axis=0)
    highest = np.max([rows.block(k).max(axis=0, initial=-np.inf) for k in blocks], axis=0)
    refuse_constant_columns(np.stack([lowest, highest]), source, names)
    mean = np.sum([rows.block(k).sum(axis=0) for k in blocks], axis=0) / len(rows)
    variance = np.sum([((rows.block(k) - mean) ** 2).sum(axis=0) for k in blocks], axis=0) / len(rows)
    return Standardiser(mean, np.sqrt(variance))


def _open(file: Path) -> np.ndarray:
    array = mapped_array(file)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"{file}: has shape {array.shape}; give a 2-D table of rows and columns")
    return array
