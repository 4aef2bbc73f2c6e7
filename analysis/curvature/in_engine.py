"""Hessian-vector products by the compiled engine: forward over reverse on the held steps, many vectors at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from analysis.curvature.held_steps import DOPRI5
from analysis.curvature.losses import NLL, FlowMatchingLoss, MeanLoss
from sparseflows.flow.compiled import engine
from sparseflows.flow.compiled.second_order import Curved, likelihood_products, match_products, memory_of
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Block, Flow
from sparseflows.training.objectives import FlowMatching

TOGETHER = 16  # vectors of a passage: the evaluations themselves are then a tenth of the work
MEMORY_MIB = 32  # that a thread works in: vectors of wide flows go in more passages


class EngineProducts:
    """The products of a mean loss's Hessian over the surviving params of a flow.

    The engine knows all params of all fields in a row, and the T of every block; here is what lies where. T = s², so
    along ṡ: Ṫ = 2 s ṡ, and the gradient s̄ = 2 s T̄ has the derivative 2 s Ṫ̄ + 2 ṡ T̄.

    Args:
        flow: as `takes` has it.
        loss: NLL on held steps, or flow matching.
        index: (P,) the surviving ones among the flow's params that require a gradient, all in a row.
        threads: that each take a share of the rows.
        memory_mib: what a thread may work in; a single vector is multiplied whatever it takes.

    `together` vectors go in a passage.
    """

    def __init__(self, flow: Flow, loss: MeanLoss, index: Tensor, threads: int, memory_mib: float = MEMORY_MIB) -> None:
        self.flow, self.loss, self.threads = flow, loss, threads
        places, roots, length = _places(flow)
        own = [p for p in flow.parameters() if p.requires_grad]
        everything = torch.cat([places[id(p)] + torch.arange(p.numel()) for p in own])
        self._index, self._length = everything[index.cpu()], length
        self._factor = torch.ones(length, dtype=torch.float64)  # of a direction on its way in, of a gradient back
        self._ends = torch.zeros(length, dtype=torch.bool)
        for place, root in roots.items():
            self._factor[place], self._ends[place] = 2 * root, True
        self.together = self._fitting(memory_mib * 2**20)

    def value_and_gradient(self) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient (P,)."""
        found = self._at(torch.zeros(0, self._length, dtype=torch.float64))
        return found.loss, (found.gradient * self._factor)[self._index].numpy()

    def multiply(self, vectors: np.ndarray, done: Callable[[int], None]) -> np.ndarray:
        """The products (P, K) with vectors (P, K); `done` is told how many there are after each passage."""
        columns, count = [], 0
        for part in torch.as_tensor(vectors.T, dtype=torch.float64).split(self.together):
            along = torch.zeros(len(part), self._length, dtype=torch.float64)
            along[:, self._index] = part
            found = self._at(along * self._factor)
            products = found.products * self._factor + torch.where(self._ends, 2 * along * found.gradient, 0.0)
            columns.append(products[:, self._index])
            count += len(part)
            done(count)
        return np.ascontiguousarray(torch.cat(columns).numpy().T)

    def _fitting(self, limit: float) -> int:
        grids, tableau = (self.loss.steps.blocks, DOPRI5) if isinstance(self.loss, NLL) else (((),), None)
        tries = range(TOGETHER, 1, -1)
        return next((many for many in tries if memory_of(self._fields(), grids, tableau, many) <= limit), 1)

    def _fields(self) -> list[MLPField]:
        return cast(list[MLPField], [block.field for block in self.flow.chain()])

    def _at(self, directions: Tensor) -> Curved:
        loss, blocks, fields = self.loss, self.flow.chain(), self._fields()
        towards = directions.to(loss.rows.dtype)
        if isinstance(loss, NLL):
            start, log_det = self.flow.whiten(loss.rows)
            ends = [block.end_time(start).item() for block in blocks]
            found = likelihood_products(fields, ends, loss.steps.blocks, DOPRI5, start, towards, self.threads)
            return Curved(found.loss - float(log_det), found.gradient, found.products)
        assert isinstance(loss, FlowMatchingLoss)
        points, targets = FlowMatching.path(self.flow.whiten(loss.rows)[0], loss.noise, loss.times)
        return match_products(fields[0], loss.times, points, targets, towards, self.threads)


def takes(flow: Flow, loss: MeanLoss) -> bool:
    """Whether the engine has these products: plain fields with a hidden layer at least, and params of their own."""
    if type(loss) not in (NLL, FlowMatchingLoss):
        return False
    blocks = flow.chain()
    if isinstance(loss, FlowMatchingLoss) and (len(blocks) > 1 or blocks[0].sqrt_end_time is not None):
        return False
    exact = isinstance(loss, NLL)
    if not all(engine.takes(block.field, loss.rows, exact) and block.field.hidden for block in blocks):
        return False
    params = _of_blocks(blocks)
    return len({id(p) for p in params}) == len(params) and {id(p) for p in params} == {id(p) for p in flow.parameters()}


def _of_blocks(blocks: list[Block]) -> list[Tensor]:
    fields = cast(list[MLPField], [block.field for block in blocks])
    found = [tensor for field in fields for tensor in field.tensors()]
    return found + [block.sqrt_end_time for block in blocks if block.sqrt_end_time is not None]


def _places(flow: Flow) -> tuple[dict[int, int], dict[int, float], int]:
    """Where each param begins in the engine's row, by its id; each block's s, by the place of its T; its length."""
    places, roots, at = {}, {}, 0
    for block in flow.chain():
        assert isinstance(block.field, MLPField)
        for tensor in block.field.tensors():
            places[id(tensor)] = at
            at += tensor.numel()
        if block.sqrt_end_time is not None:
            places[id(block.sqrt_end_time)], roots[at] = at, block.sqrt_end_time.item()
        at += 1
    return places, roots, at
