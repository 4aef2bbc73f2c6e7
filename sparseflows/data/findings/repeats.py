"""Rows that are there more than once, or nearly so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.tables.copies import cell_hashes
from sparseflows.rng import numpy_generator

Array = NDArray[np.float64]

NEARER, NEIGHBOURS = 0.01, 5  # the distance to the nearest row, in those to the fifth nearest
DIRECTIONS = 3
ASKED = 20_000  # rows whose neighbours are looked for
NEARLY = 0.08  # of the rows, that nearly repeat another before it is said
SHARE, COUNT = 0.001, 5  # of the rows, and how many, that are copies before it is said


def repeated_rows(rows: Array, spiked: Sequence[int], drop_copies: str, copies: tuple[int, int]) -> list[str]:
    """What is said of rows (N, D) that are there more than once, or nearly so: at most one line.

    Where every column recurs anyway, as of whole numbers, rows do too, and nothing is said.

    Args:
        rows: the different ones, or some of them.
        spiked: places of the columns whose values recur.
        drop_copies: how copies are left out.
        copies: how many rows are copies of others, and of how many.
    """
    n, columns = rows.shape
    if len(set(spiked)) == columns:
        return []
    count, total = copies
    if count > max(COUNT, SHARE * total):
        return [
            f"{count:,} of {total:,} rows are copies of others; copies stay in one part of the split, and weigh as "
            f"often as they are there; {drop_copies}"
        ]
    nearly = _near(rows)
    if nearly * n > 2 * COUNT and nearly > NEARLY:
        return [
            f"{nearly:.0%} of the rows nearly repeat another, a hundred times nearer than other neighbours, so rows to "
            "test with may have been trained on; keep one of each"
        ]
    but_one = _but_one(rows, spiked)
    if but_one > max(COUNT, 0.01 * n):
        return [
            f"{but_one:,} of {n:,} rows repeat another in all columns but one, so rows to test with have nearly been "
            "trained on; keep one of each, or drop the columns that stay the same"
        ]
    return []


def _near(rows: Array) -> float:
    """The share of the rows (N, D) that have another a hundred times nearer than the fifth nearest, which is seldom so
    unless one repeats the other.

    Of rows that fill a space of d dimensions a share of 5/100ᵈ has (Facco et al. 2017, on the ratio of such distances):
    5 % along a line, none that could be seen beyond. Distances are of at most three random directions, in which rows
    that are near stay near.
    """
    from scipy.spatial import KDTree

    deviation = rows.std(axis=0)
    if not (np.isfinite(deviation).all() and (deviation > 0).all()) or rows.shape[1] < 2 or len(rows) <= NEIGHBOURS:
        return 0.0
    # The interquartile range where that is less: the deviation of a heavy-tailed column says nothing of its bulk.
    low, high = np.quantile(rows, (0.25, 0.75), axis=0)
    unit = np.where((high > low) & (high - low < deviation), high - low, deviation)
    table = (rows - low) / unit
    if table.shape[1] > DIRECTIONS:
        table = table @ numpy_generator(0, "data/findings/line").normal(size=(table.shape[1], DIRECTIONS))
    some = table[:: max(1, -(-len(table) // ASKED))]
    distances, _ = KDTree(table).query(some, k=NEIGHBOURS + 1)
    return float((distances[:, 1] < NEARER * distances[:, NEIGHBOURS]).mean())


def _but_one(rows: Array, spiked: Sequence[int]) -> int:
    """The most rows, over the columns, that repeat another in all the other columns.

    At least two of these must be columns in which a value seldom comes again.
    """
    if rows.shape[1] - len(set(spiked)) < 3:
        return 0
    cells = cell_hashes(np.ascontiguousarray(rows))
    with np.errstate(over="ignore"):
        whole = np.add.reduce(cells, axis=1)
        return max(len(rows) - len(np.unique(whole - cells[:, place])) for place in range(rows.shape[1]))
