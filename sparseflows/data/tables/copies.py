"""Rows that are there more than once: found by a hash of their bits, kept in one part of a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import counted
from sparseflows.errors import InputError

Hashes = NDArray[np.uint64]
BLOCK_CELLS = 1 << 17  # hashed at once, within the caches

# The finaliser of MurmurHash3 (Appleby 2008), and an odd number for each column, from the golden ratio.
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_GOLDEN, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(33)


def cell_hashes(rows: np.ndarray) -> Hashes:
    """A hash of every cell (N, D), of its bits and its column; 0 and −0 have the same."""
    bits: Any = (np.asarray(rows, dtype=np.float64) + 0.0).view(np.uint64)
    with np.errstate(over="ignore"):
        mixed: Hashes = bits + np.arange(1, rows.shape[1] + 1, dtype=np.uint64) * _GOLDEN
        for factor in _MIX:
            mixed = (mixed ^ (mixed >> _SHIFT)) * factor
        return mixed ^ (mixed >> _SHIFT)


def row_hashes(rows: np.ndarray) -> Hashes:
    """A hash of every row (N, D), (N,): the sum of its cells' hashes, so that one without a column is a difference.

    Two of N different rows have the same with a probability of N²/2⁶⁵, 3·10⁻⁸ of a million; they would share a part.
    """
    found = np.empty(len(rows), dtype=np.uint64)
    several = max(1, BLOCK_CELLS // rows.shape[1])
    with np.errstate(over="ignore"):
        for first in range(0, len(rows), several):
            block = np.ascontiguousarray(rows[first : first + several])
            found[first : first + several] = np.add.reduce(cell_hashes(block), axis=1)
    return found


def any_copies(hashes: Hashes) -> bool:
    """Whether two of the hashes (N,) are the same; a sixteenth of them is sorted at a time, to spare memory."""
    for sixteenth in range(16):
        some = np.sort(hashes[hashes >> np.uint64(60) == sixteenth])
        if (some[1:] == some[:-1]).any():
            return True
    return False


def groups_of(blocks: Iterable[Hashes]) -> NDArray[np.int64]:
    """For every row the number of its group (N,): copies of one another share one. Groups are numbered as they first
    occur, so without copies row k is group k."""
    hashes = np.concatenate(list(blocks))
    if not any_copies(hashes):
        return np.arange(len(hashes))
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


def split_groups(
    groups: NDArray[np.int64], val_fraction: float, test_fraction: float, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers to train on, to validate and to test with, shuffled by groups (N,); no group is in two parts.

    Without copies these are the parts of `tabular.split`, to the row. With copies the parts are as near to the
    fractions as whole groups allow.

    Raises:
        InputError: a part would be without rows.
    """
    rows, count = len(groups), int(groups.max()) + 1
    shuffled, ends = shuffle_groups(groups, generator)
    n_val, n_test = round(rows * val_fraction), round(rows * test_fraction)
    cuts = [end_at(ends, rows - n_val - n_test), end_at(ends, rows - n_test)]
    parts = shuffled[: cuts[0]], shuffled[cuts[0] : cuts[1]], shuffled[cuts[1] :]
    if min(map(len, parts)) < 1:
        train, validation, test = map(len, parts)
        different = "" if count == rows else f", {count} of them different,"
        raise InputError(
            f"{counted(rows, 'row')}{different} split into {train} to train, {validation} to validate (val_fraction "
            f"{val_fraction:g}) and {test} to test (test_fraction {test_fraction:g}); each needs at least 1"
        )
    return parts


def shuffle_groups(
    groups: NDArray[np.int64], generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers (N,) with the rows of each group together, the groups in random order, and where each ends (groups,).

    Without copies the rows are in the order of one permutation.
    """
    count = int(groups.max()) + 1
    order = generator.permutation(count)
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    return np.argsort(place[groups], kind="stable"), np.cumsum(np.bincount(groups, minlength=count)[order])


def end_at(ends: NDArray[np.int64], wanted: int) -> int:
    """The first of the ends (groups,) at `wanted` rows or beyond; 0 where none are wanted."""
    return 0 if wanted < 1 else int(ends[np.searchsorted(ends, wanted, side="left")])
