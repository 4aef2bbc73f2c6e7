"""Weights of rows: a weight of w counts as w copies of the row.

Whole weights are carried out literally, so that the fit is that to the repeated rows, to the bit. Others are carried
out epoch by epoch (`training.batches.Resampled`), and by weighted means wherever a mean is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.errors import InputError
from sparseflows.rng import numpy_generator
from sparseflows.training.batches import systematic

Array = NDArray[np.float64]
MOST_CELLS = 1 << 25  # of repeated rows, 256 MiB; beyond, whole weights are treated as all others


def checked_weights(weights: Any, rows: int) -> Array | None:
    """Weights as an array (N,) of N = `rows` numbers ≥ 0; None where none were given.

    Raises:
        InputError: another shape, no numbers, negative or not finite, or all zero.
    """
    if weights is None:
        return None
    try:
        found = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("sample_weight holds what is no number; give one weight a row") from None
    if found.ndim == 0:
        found = np.full(rows, float(found))
    if found.shape != (rows,):
        raise InputError(f"sample_weight has shape {found.shape}; X has {rows:,} rows, so give ({rows},)")
    wrong = ~(np.isfinite(found) & (found >= 0))
    if wrong.any():
        place = int(wrong.argmax())
        raise InputError(f"sample_weight[{place}] is {found[place]:g}; weights are finite and not negative")
    if not found.any():
        raise InputError("sample_weight is zero for every row; give one row at least a weight")
    return found


def carried_out(rows: Array, weights: Array) -> tuple[Array, Array | None]:
    """Rows (M, D) that stand for rows (N, D) of positive weights (N,), and their weights (M,) where these still count.

    Whole weights give repeated rows without weights; others the rows as they are, with weights of mean 1.
    """
    whole = bool((weights == np.round(weights)).all())
    if whole and float(weights.sum()) * rows.shape[1] <= MOST_CELLS:
        return np.repeat(rows, weights.astype(np.int64), axis=0), None
    return rows, weights / weights.mean()


def drawn_by_weight(rows: Array, weights: Array, at_most: int | None, seed: int, purpose: str) -> Array:
    """Rows (n, D), each about as often as its weight says, at most so many; systematic, and seeded."""
    n = len(rows) if at_most is None else min(at_most, len(rows))
    return rows[systematic(weights, n, float(numpy_generator(seed, purpose).random()))]
