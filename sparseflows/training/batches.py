"""Where the batches of a training come from: rows in memory, or rows on disk in shuffled blocks.

A batch is a function of (seed, purpose, step) alone, so a training that resumes draws what an undisturbed one draws.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sparseflows.data.tables.mapped import MappedRows, Rows
from sparseflows.rng import torch_generator
from sparseflows.training.resampling import draw_copies

BUFFER_BYTES = 2**28  # of rows that are shuffled among each other in memory
AHEAD_BYTES = 2**18  # of rows that are gathered together: small batches of an epoch, which one by one cost a call each


class Batches(Protocol):
    """What the training loop asks for."""

    dtype: torch.dtype
    device: torch.device
    dim: int

    def __len__(self) -> int: ...

    def batch(self, seed: int, purpose: str, epoch: int, first: int, size: int) -> Tensor:
        """Rows `first` to `first + size` (fewer at its end) of the order of an epoch: (B, D)."""
        ...


class InMemory:
    """Rows (N, D) in memory; every epoch is one shuffle of all of them, or of N that are drawn by their `weights` (N,),
    anew for each epoch.
    """

    def __init__(self, rows: Tensor, weights: Tensor | None = None) -> None:
        self.rows, self.dtype, self.device, self.dim = rows, rows.dtype, rows.device, rows.shape[1]
        self.weights = weights
        self._epoch: tuple[int, str, int] | None = None
        self._order = torch.empty(0, dtype=torch.long)
        self._ahead = max(1, AHEAD_BYTES // max(1, self.dim * rows.element_size()))  # rows
        self._gathered, self._start = rows[:0], 0  # rows of the order from `_start` on

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, seed: int, purpose: str, epoch: int, first: int, size: int) -> Tensor:
        """Rows (B, D) of an epoch's order; see `Batches`."""
        if self._epoch != (seed, purpose, epoch):
            self._epoch, self._gathered = (seed, purpose, epoch), self.rows[:0]
            self._order = _permutation(len(self.rows), seed, f"{purpose}/epoch/{epoch}")
            if self.weights is not None:
                drawn = draw_copies(self.weights, torch_generator(seed, f"{purpose}/epoch/{epoch}/copies"))
                self._order = drawn[self._order]
            self._order = self._order.to(self.device)  # drawn on the CPU, the same everywhere
        last, end = min(first + size, len(self._order)), self._start + len(self._gathered)
        if first < self._start or last > end:
            end = max(last, min(first + self._ahead, len(self._order)))
            self._gathered, self._start = self.rows.index_select(0, self._order[first:end]), first
        return self._gathered[first - self._start : last - self._start]


class OnDisk:
    """Rows on disk. An epoch takes the file's blocks in random order, as many at a time as the buffer holds, and
    shuffles their rows among each other: reading stays sequential within a block, memory stays bounded, and a
    sorted file is mixed well, because a buffer's blocks come from everywhere in it.
    """

    def __init__(self, rows: MappedRows, dtype: torch.dtype, device: torch.device) -> None:
        self.rows, self.dtype, self.device, self.dim = rows, dtype, device, rows.shape[1]
        self._sizes = rows.block_sizes()
        self._filled = np.flatnonzero(self._sizes)
        row_bytes = rows.shape[1] * dtype.itemsize
        self._together = max(1, BUFFER_BYTES // (row_bytes * int(self._sizes.max())))
        self._epoch: tuple[int, str, int] | None = None
        self._groups: list[np.ndarray] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self._loaded: int | None = None
        self._buffer, self._order = torch.empty(0), torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, seed: int, purpose: str, epoch: int, first: int, size: int) -> Tensor:
        """Rows (B, D) of an epoch's order; see `Batches`."""
        if self._epoch != (seed, purpose, epoch):
            self._begin(seed, purpose, epoch)
        last = min(first + size, len(self))
        parts = []
        while first < last:
            group = int(np.searchsorted(self._starts, first, side="right")) - 1
            self._load(group)
            start, end = self._starts[group], min(last, self._starts[group + 1])
            parts.append(self._buffer[self._order[first - start : end - start]])
            first = int(end)
        return torch.cat(parts).to(self.device)

    def _begin(self, seed: int, purpose: str, epoch: int) -> None:
        self._epoch, self._loaded = (seed, purpose, epoch), None
        order = self._filled[_permutation(len(self._filled), seed, f"{purpose}/epoch/{epoch}").numpy()]
        self._groups = [order[k : k + self._together] for k in range(0, len(order), self._together)]
        self._starts = np.concatenate([[0], np.cumsum([self._sizes[group].sum() for group in self._groups])])

    def _load(self, group: int) -> None:
        if self._loaded == group or self._epoch is None:
            return
        seed, purpose, epoch = self._epoch
        self._order = _permutation(int(np.diff(self._starts)[group]), seed, f"{purpose}/epoch/{epoch}/{group}")
        if len(self._buffer) != len(self._order):
            self._buffer = torch.empty(0)  # the old one goes before the new one comes
            self._buffer = torch.empty(len(self._order), self.dim, dtype=self.dtype)
        filled, first = self._buffer.numpy(), 0
        for number in self._groups[group]:
            last = first + int(self._sizes[number])
            self.rows.read_block(int(number), filled[first:last])
            first = last
        self._loaded = group


def batches_of(rows: Rows, dtype: torch.dtype, device: torch.device) -> Batches:
    """Rows in memory go to the device at once, those on disk batch by batch."""
    if isinstance(rows, MappedRows):
        return OnDisk(rows, dtype, device)
    return InMemory(torch.as_tensor(rows, dtype=dtype, device=device))


def _permutation(n: int, seed: int, purpose: str) -> Tensor:
    return torch.randperm(n, generator=torch_generator(seed, purpose))
