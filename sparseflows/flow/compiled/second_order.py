"""Products of a loss's Hessian with many directions of the params at once, by the C engine: forward over reverse."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseflows.flow.compiled.engine import NO_MEMORY, TILE, engine_of, require_memory
from sparseflows.flow.compiled.structures import BlockStructure, TableauStructure, pointer
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.tableaus import Tableau


@dataclass(frozen=True)
class Curved:
    """A mean loss, its gradient (P,) and its Hessian's products with K directions (K, P), all in float64."""

    loss: float
    gradient: Tensor
    products: Tensor


def likelihood_products(
    fields: Sequence[MLPField],
    end_times: Sequence[float],
    grids: Sequence[Sequence[float]],
    tableau: Tableau,
    points: Tensor,
    directions: Tensor,
    threads: int = 1,
) -> Curved:
    """The mean of −log p of points (B, D), carried from data to noise on given steps, to the second order.

    Params stand in a row: block by block, a field's `tensors()` in their order, then the block's T.

    Args:
        fields: of the blocks.
        end_times: T of the blocks.
        grids: lengths of the steps over τ, block by block.
        tableau: of the Runge-Kutta method.
        points: in the precision of the fields.
        directions: (K, P), in that precision.
        threads: that each take a share of the rows.
    """
    start, towards = points.detach().contiguous(), directions.contiguous()
    count, size = towards.shape
    share = -(-len(start) // threads)

    def one(first: int) -> tuple[float, Tensor, Tensor]:
        blocks = [BlockStructure.of(*block) for block in zip(fields, end_times, grids, strict=True)]
        gradient, products = torch.zeros(size, dtype=torch.float64), torch.zeros(count, size, dtype=torch.float64)
        loss = ctypes.c_double()
        refused = engine_of(start.dtype).likelihood_products(
            (BlockStructure * len(blocks))(*blocks), len(blocks), ctypes.byref(TableauStructure.of(tableau)),
            pointer(start), ctypes.c_long(len(start)), ctypes.c_long(first),
            ctypes.c_long(min(first + share, len(start))), TILE, count, pointer(towards), pointer(products),
            pointer(gradient), ctypes.byref(loss), None,
        )  # fmt: skip
        require_memory(refused == NO_MEMORY)
        return loss.value, gradient, products

    firsts = range(0, len(start), share)
    if len(firsts) == 1:
        parts = [one(0)]
    else:
        with ThreadPoolExecutor(len(firsts)) as pool:
            parts = list(pool.map(one, firsts))
    losses, gradients, products = zip(*parts, strict=True)
    return Curved(sum(losses), torch.stack(gradients).sum(0), torch.stack(products).sum(0))
