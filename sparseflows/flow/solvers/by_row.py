"""A torchdiffeq solve in which a row that fails is set aside, and all others are carried to their end.

torchdiffeq takes one step for all rows, so one stiff row makes all others pay, and one that becomes infinite ends the
solve. Here the norm of the error looks at every row: one that is not finite, or that asks for a step far shorter than
the others need, no longer counts, and its rates are zero from then on. What becomes of it is `flow.rows`' business.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

State = tuple[Tensor, ...]

TRIES = 6  # of shorter and shorter steps past a row that is not finite; a fifth each time
FEW = 100  # a hundredth of the rows, and one at least, may be the slow ones
# The error of a slow row over that of all others, at one step, from which on it is set aside: with an error of order
# five it asks for a step 16 times shorter.
SLOW = 1e6
SHORT = 0.01  # of all the time there is: a longer step costs the others next to nothing
LEAST_STEP = {torch.float32: 1e-7, torch.float64: 1e-14}  # as the engine's


class RowWatch:
    """Which rows of a solve still count.

    Args:
        rows: B.
        like: a tensor of the state, for its precision and device.
        over_batch: take the root mean square over the rows that count, instead of the worst of them.

    Attributes:
        failed: (B,) bool, the rows that were set aside.
        infinite: whether one of them was because it, or its rates, were not finite.
    """

    def __init__(self, rows: int, like: Tensor, over_batch: bool) -> None:
        self.failed = torch.zeros(rows, dtype=torch.bool, device=like.device)
        self.over_batch, self.infinite = over_batch, False
        self._any, self._begun, self._tries, self._step = False, False, 0, 1.0
        self._least = LEAST_STEP.get(like.dtype, 1e-7)

    def rates(self, function: Callable[[Tensor, State], State], t: Tensor, state: State) -> State:
        """The rates at t () of a state in its shapes, zero in the rows that were set aside."""
        found = function(t, state)
        if not self._begun:
            self._drop(~finite_rows(found), infinite=True)
        if not self._any:
            return found
        return tuple(rate.masked_fill(self.failed.view(-1, *[1] * (rate.ndim - 1)), 0.0) for rate in found)

    def begin_step(self, step: float) -> None:
        """A step of that length is tried next."""
        self._begun, self._step = True, abs(step)

    def accept_step(self) -> None:
        """It was kept."""
        self._tries = 0

    def norm(self, state: State) -> Tensor:
        """The norm () of a state, an error over its tolerance, of the rows that count; rows may be set aside by it."""
        squares = torch.cat([tensor.reshape(len(tensor), -1) for tensor in state], dim=1).square().mean(1)
        if self._any:
            squares = squares.masked_fill(self.failed, 0.0)
        worst, whole = float(squares.max()), not self._any
        if not math.isfinite(worst):
            finite = torch.isfinite(squares)
            if self._begun:
                self._tries += 1
                if self._tries >= TRIES or self._step < self._least:
                    self._drop(~finite, infinite=True)
                    self._tries = 0
                return squares.new_tensor(torch.inf)  # once more, with a shorter step
            squares, whole = squares.masked_fill(~finite, 0.0), False
        elif self._begun and worst > 1:
            slow = squares > self._bound(squares)
            self._drop(slow)
            squares, whole = squares.masked_fill(slow, 0.0), whole and not self._any
        if not self.over_batch:
            return squares.max().sqrt()
        return _over_batch(state if whole else self._counting(state))

    def _counting(self, state: State) -> State:
        rows = ~self.failed & finite_rows(state)
        return tuple(tensor[rows] for tensor in state)

    def _bound(self, squares: Tensor) -> float:
        if self._step < self._least:
            return 1.0
        if len(squares) == 1:
            return torch.inf
        few = max(1, len(squares) // FEW)
        others = float(squares.kthvalue(len(squares) - few).values)
        if self._step > SHORT:
            others = max(others, 1.0)  # all others may stand still: that makes no row slow
        return max(1.0, SLOW**2 * others)

    def _drop(self, rows: Tensor, infinite: bool = False) -> None:
        self.infinite |= infinite and bool(rows.any())
        self.failed |= rows
        self._any = bool(self.failed.any())


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor (…) is finite throughout, by its sum, in one pass; False, too, where the sum overflows."""
    return math.isfinite(float(tensor.sum()))


def finite_rows(state: State) -> Tensor:
    """Rows (B,) all of whose tensors (B, ...) are finite."""
    return torch.stack([torch.isfinite(tensor.reshape(len(tensor), -1)).all(1) for tensor in state]).all(0)


def _over_batch(state: State) -> Tensor:
    """torchdiffeq's own norm () of a batch: the largest root mean square of a tensor."""
    if not len(state[0]):
        return state[0].new_zeros(())
    return torch.stack([tensor.square().mean() for tensor in state]).max().sqrt()
