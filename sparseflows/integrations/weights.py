"""What a `sample_weight` means: w copies of the row."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparseflows.errors import InputError

Array = NDArray[np.float64]

# Whole weights are counted out while the copies hold no more numbers than this, or than so many times those of X.
NUMBERS, TIMES = 2**24, 4


class Counted(NamedTuple):
    """The rows that stand for weighted ones.

    Attributes:
        places: of the rows (n,); one that counts several times is there several times, one after the other.
        weights: that are still left to these (n,), above 0, with the mean 1; None: they all weigh the same.
    """

    places: NDArray[np.int64]
    weights: Array | None


def checked(sample_weight: Any, rows: int) -> Array:
    """Weights (N,) for N = `rows` rows; a single number is that of every row.

    Raises:
        InputError: no real numbers, not one a row, NaN, infinite or below 0, or none above 0.
    """
    try:
        given = np.asarray(sample_weight)
        if given.dtype.kind not in "biufO":
            raise TypeError
        weights = given.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):  # the last one of a tensor with gradients
        raise InputError(
            "sample_weight: holds what is no real number; give one number, 0 or more, for each row"
        ) from None
    if weights.ndim == 0:
        weights = np.full(rows, float(weights))
    if weights.shape != (rows,):
        raise InputError(
            f"sample_weight: has shape {weights.shape}, but X has {rows:,} rows; give one weight a row, ({rows},)"
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"sample_weight: {weights[first]:g} in row {first + 1}; a weight is a finite number, 0 or more"
        )
    if not weights.any():
        raise InputError("sample_weight: all weights are zero, so no row is left; give at least one above 0")
    return weights


def counted_rows(sample_weight: Any, rows: int, columns: int) -> Counted:
    """The rows that stand for N = `rows` rows of D = `columns` columns with weights (N,).

    A row of weight 0 is absent. Whole numbers are counted out, each row w times in its place, as long as the copies
    hold at most 2²⁴ numbers, or four times those of X. Other weights are left to the rows, with the mean 1 over those
    that are there; where they are all the same they mean nothing.

    Raises:
        InputError: weights that are refused, or a single row with one above 0.

    >>> counted_rows([2, 0, 1], 3, 1)
    Counted(places=array([0, 0, 2]), weights=None)
    >>> counted_rows([0.25, 0.0, 0.75], 3, 1)
    Counted(places=array([0, 2]), weights=array([0.5, 1.5]))
    """
    weights = checked(sample_weight, rows)
    shares = weights / weights.max()
    places = np.flatnonzero(shares)  # one of 1e-320 beside 1e300 is absent, too
    if len(places) < 2:
        raise InputError(f"sample_weight: 1 of {rows:,} rows has a weight above 0; at least 2 are needed")
    whole = bool((weights == np.round(weights)).all())
    if whole and float(shares.sum()) * float(weights.max()) * columns <= max(NUMBERS, TIMES * rows * columns):
        return Counted(np.repeat(np.arange(rows), weights.astype(np.int64)), None)
    shares = shares[places]
    return Counted(places, None if shares.min() == shares.max() else shares / shares.mean())
