"""Scores and a budget → what is kept. Pure functions over one ranking of all items.

Whatever is pruned, all items are ranked once and a prefix of the ranking stays. Prefixes are nested, so
the number of params they keep rises with their length, and the cut that meets a budget is found by
bisection, with the params *counted* at every trial (dead neurons included).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparseflows.errors import lookup


def rank_globally(scores: Sequence[Tensor]) -> Tensor:
    """All items of all layers, scores (n_ℓ, …), by falling score: indices (Σ n_ℓ,) into them; ties keep their order."""
    return torch.cat([score.flatten() for score in scores]).argsort(descending=True, stable=True)


def rank_uniformly(scores: Sequence[Tensor]) -> Tensor:
    """A ranking (Σ n_ℓ,) whose every prefix keeps about the same share of each layer (n_ℓ, …), the best of each.

    An item's place is its rank within its layer divided by the layer's size.
    """
    places = []
    for score in scores:
        order = score.flatten().argsort(descending=True, stable=True)
        places.append((order.argsort().to(torch.float64) + 0.5) / len(order))  # the ranks: its inverse
    return torch.cat(places).argsort(stable=True)


ALLOCATIONS: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {
    "global": rank_globally,
    "uniform": rank_uniformly,
}


def rank(scores: Sequence[Tensor], allocation: str) -> Tensor:
    """The ranking (Σ n_ℓ,) of scores (n_ℓ, …) by `allocation`: `global` or `uniform`."""
    return lookup("allocation", allocation, ALLOCATIONS)(scores)


def best_of_layers(scores: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
    """The best `counts[i]` items of every layer of scores (n_ℓ, …): indices (n,) into the concatenated layers."""
    starts = torch.tensor([0, *[score.numel() for score in scores]]).cumsum(0)
    best = [
        start + score.flatten().argsort(descending=True, stable=True)[:count]
        for start, score, count in zip(starts, scores, counts, strict=False)
    ]
    return torch.cat(best)


def put_first(order: Tensor, items: Tensor) -> Tensor:
    """`order` (N,) with `items` (n,) moved to its front (they stay in every prefix), the rest as it was: (N,)."""
    protected = torch.zeros(len(order), dtype=torch.bool)
    protected[items] = True
    return torch.cat([items, order[~protected[order]]])


def largest_prefix(shortest: int, longest: int, count: Callable[[int], int], target: int) -> int:
    """The longest prefix that counts at most `target`, or `shortest` where even that counts more.

    Args:
        shortest, longest: the lengths to choose from, both included.
        count: params kept by the prefix of that length; must not fall as the length grows.
        target: params wanted.
    """
    too_long = bisect_left(range(longest, shortest, -1), True, key=lambda n: count(n) <= target)
    return max(shortest, longest - too_long)


def nearest_prefix(shortest: int, longest: int, count: Callable[[int], int], target: int) -> int:
    """The prefix whose counted params are nearest to `target`; of two equally near, the shorter."""
    below = largest_prefix(shortest, longest, count, target)
    return min((below, min(below + 1, longest)), key=lambda n: (abs(count(n) - target), n))
