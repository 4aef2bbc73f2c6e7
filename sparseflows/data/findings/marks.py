"""Numbers that stand for a value that is not there, such as −999."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.findings.columns import Found
from sparseflows.data.tables.choosing import called
from sparseflows.data.tables.tabular import Names

Array = NDArray[np.float64]

# What instruments, surveys and formats write, of either sign.
_NINES = (99.0, 999.0, 9999.0, 99999.0, 999999.0, 9999999.0, 99.9, 999.9, 9999.9, 99.99, 999.99, 9999.99)
_LARGEST = (32767.0, 32768.0, 2147483647.0, 2147483648.0, 1e20, 1e30, 1e35, 1e36, 9.969209968386869e36)
MARKS = np.array([*_NINES, *_LARGEST])
MOST = 0.5  # of the rows: what is more is the column
LEAST_ROWS = 20


def marks_of_missing(rows: Array, names: Names) -> tuple[list[Found], NDArray[np.bool_]]:
    """The columns of rows (N, D) whose outermost value is such a mark, and the rows (N,) that hold one.

    It is one if it is farther from the other values than these are from each other.
    """
    marked = np.zeros(len(rows), dtype=bool)
    if len(rows) < LEAST_ROWS:
        return [], marked
    found = []
    for place in range(rows.shape[1]):
        column = rows[:, place]
        for mark in _outermost(column):
            at = column == mark
            others = column[~at]
            if not 0 < at.mean() <= MOST or len(others) == 0:
                continue
            lowest, highest = float(others.min()), float(others.max())
            if min(abs(mark - lowest), abs(mark - highest)) <= highest - lowest:
                continue
            marked |= at
            said = f"{called(place, names)}: {mark:g} in {int(at.sum()):,} of {len(rows):,} rows, far from all others"
            found.append(Found(place, f"{said}, reads as a mark of a value that is missing"))
    return found, marked


def _outermost(column: Array) -> Iterator[float]:
    """The least and the largest value of a column (N,), where it is a mark."""
    for value in (float(column.min()), float(column.max())):
        if np.isclose(abs(value), MARKS, rtol=1e-6, atol=0).any():
            yield value
