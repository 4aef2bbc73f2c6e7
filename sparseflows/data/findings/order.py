"""Rows that come in an order which a shuffled split does not respect: time series, repeated measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.tables.choosing import called
from sparseflows.data.tables.tabular import Names

Array = NDArray[np.float64]

LEAST_ROWS, LEAST_VALUES = 100, 20  # fewer tell no order
LOOKED_AT = 5_000  # rows, the first so many
WINDOW = 31  # rows that are averaged: what changes more slowly, such as classes one after the other, is no matter
SORTED = 0.9  # of the steps, that go one way
FOLLOWS = 0.3  # correlation with the row before; in so many standard errors at least
ERRORS = 6.0


def rows_in_order(rows: Array, names: Names) -> list[str]:
    """What is said of rows (N, D) in the order of their file where each resembles the one before: at most one line.

    The figure is the correlation of ranks with those of the row before, the mean of the 31 rows around taken off. A
    column that mostly rises is what the file is sorted by, and tells nothing.

    Measured, 2,000 rows: a first-order autoregression with a coefficient of 0.9 has 0.76, with 0.5 0.42; independent
    rows have −0.03 ± 0.02, sorted by class or not.
    """
    rows = np.asfortranarray(rows[:LOOKED_AT])
    if len(rows) < LEAST_ROWS:
        return []
    least = max(FOLLOWS, ERRORS / np.sqrt(len(rows)))
    found = {place: _follows(rows[:, place]) for place in range(rows.shape[1])}
    places = [place for place, value in found.items() if value > least]
    if not places:
        return []
    most = max(places, key=found.__getitem__)
    return [
        f"rows resemble the one before, as in a time series or in repeated measurements ({called(most, names)} by "
        f"{found[most]:.2f}, the correlation of its ranks): shuffled, they are tested on neighbours of what was "
        "trained on; hold out a stretch of rows in a file of its own and score that"
    ]


def _follows(column: Array) -> float:
    """The correlation of a column (N,) with itself a row before, apart from slow changes."""
    steps = np.diff(column)
    if max((steps >= 0).mean(), (steps <= 0).mean()) > SORTED:
        return 0.0
    values, ranks = np.unique(column, return_inverse=True)
    if len(values) < LEAST_VALUES:
        return 0.0
    sums = np.cumsum(np.r_[0.0, ranks])
    around = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    rest = ranks[WINDOW // 2 : len(ranks) - WINDOW // 2] - around
    size = float(rest @ rest)
    return float(rest[1:] @ rest[:-1]) / size if size > 0 else 0.0
