"""Products of a loss's Hessian with many directions of the params at once, by the C engine: forward over reverse."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseflows.flow.compiled.engine import EXACT, NO_MEMORY, TILE, VALUE, engine_of, require_memory
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
    start, method = points.detach().contiguous(), TableauStructure.of(tableau)

    def one(first: int, past: int, towards: Tensor, gradient: Tensor, products: Tensor) -> tuple[int, float]:
        blocks, loss = (
            [BlockStructure.of(*one) for one in zip(fields, end_times, grids, strict=True)],
            ctypes.c_double(),
        )
        refused = engine_of(start.dtype).likelihood_products(
            (BlockStructure * len(blocks))(*blocks), len(blocks), ctypes.byref(method), pointer(start),
            *map(ctypes.c_long, (len(start), first, past)), TILE, len(towards), pointer(towards), pointer(products),
            pointer(gradient), ctypes.byref(loss),
        )  # fmt: skip
        return refused, loss.value

    return _in_shares(one, len(start), directions, threads)


def match_products(
    field: MLPField, t: Tensor, points: Tensor, targets: Tensor, directions: Tensor, threads: int = 1
) -> Curved:
    """The mean of |f(t, z) − target|² over points and targets (B, D) at times (B, 1), to the second order.

    Params stand as in `likelihood_products`; T, the last of them, is none of this loss. `directions` is (K, P).
    """
    where, wanted, times = points.contiguous(), targets.contiguous(), t.contiguous()

    def one(first: int, past: int, towards: Tensor, gradient: Tensor, products: Tensor) -> tuple[int, float]:
        block, loss = BlockStructure.of(field), ctypes.c_double()
        refused = engine_of(where.dtype).match_products(
            ctypes.byref(block), pointer(where), pointer(wanted), pointer(times),
            *map(ctypes.c_long, (len(where), first, past)), TILE, len(towards), pointer(towards), pointer(products),
            pointer(gradient), ctypes.byref(loss),
        )  # fmt: skip
        return refused, loss.value

    return _in_shares(one, len(where), directions, threads)


def memory_of(
    fields: Sequence[MLPField], grids: Sequence[Sequence[float]], tableau: Tableau | None, directions: int
) -> int:
    """Bytes that a thread works in for products with so many directions, beside those that go in and out.

    Arguments as in `likelihood_products`; without a tableau it is `match_products`, and an upper bound.
    """
    blocks = [BlockStructure.of(field, 1.0, grid) for field, grid in zip(fields, grids, strict=True)]
    measure = engine_of(fields[0].tensors()[0].dtype).products_memory
    measure.restype = ctypes.c_long
    kind, stages = (VALUE, 0) if tableau is None else (EXACT, len(tableau.b))
    return int(measure((BlockStructure * len(blocks))(*blocks), len(blocks), kind, stages, TILE, directions))


def _in_shares(
    one: Callable[[int, int, Tensor, Tensor, Tensor], tuple[int, float]], rows: int, directions: Tensor, threads: int
) -> Curved:
    """What `one` adds up over all rows, of which each thread takes a share."""
    towards = directions.contiguous()
    count, size = towards.shape
    share = -(-rows // max(1, threads))

    def part(first: int) -> Curved:
        gradient, products = torch.zeros(size, dtype=torch.float64), torch.zeros(count, size, dtype=torch.float64)
        refused, loss = one(first, min(first + share, rows), towards, gradient, products)
        require_memory(refused == NO_MEMORY)
        return Curved(loss, gradient, products)

    firsts = range(0, rows, share)
    if len(firsts) == 1:
        return part(0)
    with ThreadPoolExecutor(len(firsts)) as pool:
        parts = list(pool.map(part, firsts))
    gradient, products = (
        torch.stack([getattr(one, name) for one in parts]).sum(0) for name in ("gradient", "products")
    )
    return Curved(sum(one.loss for one in parts), gradient, products)
