"""Windows on the plane, and the middles of their cells. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Extent = tuple[float, float, float, float]  # left, right, bottom, top


def centres(low: float, high: float, cells: int) -> Array:
    """The middles (cells,) of equal cells from `low` to `high`."""
    middles: Array = low + (np.arange(cells) + 0.5) / cells * (high - low)
    return middles


def square_window(rows: Array, margin: float, reach: float = 0.0) -> Extent:
    """The smallest square that holds `rows` (N, 2) with a margin around them: left, right, bottom, top.

    `margin` is a share of the longer side of the rows' bounding box; [−reach, reach]² has to fit in as well.
    """
    low, high = rows.min(0), rows.max(0)
    around = margin * float((high - low).max())
    low, high = low - around, high + around
    if reach:
        low, high = np.minimum(low, -reach), np.maximum(high, reach)
    centre, half = (low + high) / 2, float((high - low).max()) / 2
    left, right, bottom, top = (float(edge) for c in centre for edge in (c - half, c + half))
    return left, right, bottom, top


def window(rows: Array, quantile: float, margin: float, reach: float = 0.0) -> Extent:
    """`square_window` of rows (N, 2) without their outermost: a share of `quantile` on either side of either axis."""
    low, high = np.quantile(rows, [quantile, 1 - quantile], axis=0)
    return square_window(np.stack([low, high]), margin, reach)
