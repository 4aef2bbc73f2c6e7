"""More than two columns: which pairs to show, and means over a pair's cells. Pure."""

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from sparseflows.errors import InputError
from sparseflows.plot.windows import Array

Pair = tuple[int, int]  # two columns, counted from 0 here; from 1 wherever a user sees them

PAIRS = 3
MAX_PAIRS = 6  # a figure of more rows than that is not read
EXAMPLE = "give pairs of columns counted from 1, such as 1-2 or 1-2,5-7"


def parse_columns(text: str) -> list[Pair]:
    """`1-2,5-7` as pairs counted from 0, in the order given.

    Raises:
        InputError: anything else; a column paired with itself, a pair given twice, too many pairs.
    """
    pairs: list[Pair] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*-\s*([0-9]{1,9})\s*", part, re.ASCII)
        if match is None:
            raise InputError(f"--columns '{text}': '{part.strip()}' is not a pair; {EXAMPLE}")
        first, second = int(match[1]), int(match[2])
        if first == second:
            raise InputError(f"--columns '{text}': column {first} is paired with itself; {EXAMPLE}")
        if first == 0 or second == 0:
            raise InputError(f"--columns '{text}': there is no column 0; {EXAMPLE}")
        if {first - 1, second - 1} in [set(pair) for pair in pairs]:
            raise InputError(f"--columns '{text}': the pair {first}-{second} is there twice; give each once")
        pairs.append((first - 1, second - 1))
    if len(pairs) > MAX_PAIRS:
        raise InputError(f"--columns: {len(pairs)} pairs; at most {MAX_PAIRS} fit one figure")
    return pairs


def check_columns(pairs: Sequence[Pair], dim: int, source: str) -> None:
    """Raise InputError where data of `dim` columns, named `source`, have not these pairs to show."""
    if dim == 2:
        raise InputError(f"{source}: the data have two columns, which are shown as they are; leave --columns out")
    for pair in pairs:
        if max(pair) >= dim:
            raise InputError(f"{source}: --columns {pair_name(pair)}, but the data have {dim} columns")


def pair_name(pair: Pair) -> str:
    """`1-2`, counted from 1, as --columns takes it."""
    return f"{pair[0] + 1}-{pair[1] + 1}"


def choose_pairs(train: Array, count: int = PAIRS) -> list[Pair]:
    """The pairs of columns with the largest |correlation| in the rows (N, D), no column twice; up to `count`.

    Strongly dependent columns are where a flow that has lost something shows it; without the last rule, one
    group of near copies would fill all the panels.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        strength = np.nan_to_num(np.abs(np.corrcoef(train, rowvar=False)))
    order = sorted(combinations(range(train.shape[1]), 2), key=lambda pair: (-strength[pair], pair))
    chosen: list[Pair] = []
    for pair in order:
        if len(chosen) < count and not any(set(pair) & set(other) for other in chosen):
            chosen.append(pair)
    return chosen


def cell_means(
    points: Array, values: Array, extent: tuple[float, float, float, float], cells: int, at_least: int = 1
) -> tuple[Array, Array]:
    """Means (cells, cells, K) of `values` (N, K) over the points (N, 2) in each cell of a window, and counts of them.

    Points outside `extent` (left, right, bottom, top) are left out; a cell with fewer than `at_least` has NaN for a
    mean; rows rise with y.
    """
    left, right, bottom, top = extent
    column = np.floor((points[:, 0] - left) / (right - left) * cells)
    row = np.floor((points[:, 1] - bottom) / (top - bottom) * cells)
    inside = (column >= 0) & (column < cells) & (row >= 0) & (row < cells)
    index = (row[inside] * cells + column[inside]).astype(np.int64)
    counts = np.bincount(index, minlength=cells**2)
    sums = np.stack([np.bincount(index, kept, minlength=cells**2) for kept in values[inside].T], axis=-1)
    enough = counts >= max(1, at_least)
    means = np.full(sums.shape, np.nan)
    means[enough] = sums[enough] / counts[enough, None]
    return means.reshape(cells, cells, -1), counts.reshape(cells, cells).astype(np.float64)
