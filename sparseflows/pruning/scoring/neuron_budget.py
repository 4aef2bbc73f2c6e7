"""How many neurons each layer keeps under pfp (Liebenwein, Baykal et al. 2020, "Provable filter pruning").

One error ε for all layers gives each the draws that it needs, so that a layer whose neurons matter about equally
keeps more of them. ε is searched for the budget.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.pruning.scoring.bounds import DELTA, FRESH

STEPS = 60
"""Halvings of an interval of log ε: down to a few roundings."""


def samples_per_layer(sums: Sequence[float], eps: float, patches: Sequence[int], kernels: Sequence[int]) -> list[int]:
    """Draws a layer: m_ℓ = ⌈3 (6 + 2ε) S_ℓ · 2c log(8 (n_patches + 1) k / δ) / ε²⌉, c = 3, δ = `bounds.DELTA`.

    Args:
        sums: S_ℓ, the layer's summed scores.
        eps: ε > 0.
        patches: positions that the next layer's kernel is applied to; 1 for a linear layer.
        kernels: k, the size of that kernel; 1 for a linear layer.
    """
    return [
        math.ceil(3 * (6 + 2 * eps) * total * 2 * FRESH * math.log(8 * (n + 1) * k / DELTA) / eps**2)
        for total, n, k in zip(sums, patches, kernels, strict=True)
    ]


def expected_distinct(scores: Tensor, draws: float) -> float:
    """Σ_j 1 − (1 − q_j)^m: the distinct neurons expected among m ≥ 1 draws in proportion to `scores` (n,)."""
    scores = scores.to(torch.float64)
    total = float(scores.sum())
    return float(-torch.expm1(draws * torch.log1p(-scores / total)).sum()) if total > 0 else 0.0


def draws_for(scores: Tensor, distinct: int) -> float:
    """The m (a real number) that makes `expected_distinct` of `scores` (n,) the wanted one; infinite where that is all.

    Newton's steps from m = `distinct`, which is too few. The expectation is concave in m, so that they only rise.
    """
    scores = scores[scores > 0].to(torch.float64)
    if distinct >= len(scores):
        return math.inf
    rates = -torch.log1p(-scores / scores.sum()).clamp(min=-1e300)
    draws = float(distinct)
    while True:
        missed = torch.exp(-draws * rates)  # of each neuron, the chance never to be drawn
        slope = float(rates @ missed)
        step = (distinct - float((1 - missed).sum())) / slope if slope > 0 else 0.0
        if step <= 1e-12 * draws:
            return draws
        draws += step


def allocate_neurons(
    scores: Sequence[Tensor],
    count: Callable[[list[int]], int],
    target: int,
    patches: Sequence[int] | None = None,
    kernels: Sequence[int] | None = None,
) -> list[int]:
    """Neurons each layer keeps, so that `count` of them is nearest to `target`; at least one a layer.

    A layer keeps as many neurons as are expected among its m_ℓ draws, rounded; ε is bisected. Between the two
    neighbouring values of ε around the target, neurons are added one by one. Neurons without a score are kept
    only where the target asks for more than all the others.

    Args:
        scores: of each layer's neurons, (n_ℓ,), at least 0.
        count: kept neurons of each layer → params of the network that has just them; rises with each.
        target: params wanted.
        patches, kernels: as of `samples_per_layer`; 1 by default.

    Raises:
        InputError: no layers, a layer without neurons, or a score that is negative or not finite.
    """
    if not scores:
        raise InputError("no layers to share the neurons among; pfp needs one hidden layer at least")
    for index, score in enumerate(scores):
        if score.ndim != 1 or not len(score) or not bool((score.isfinite() & (score >= 0)).all()):
            raise InputError(f"scores of layer {index} must be finite, at least 0, and one a neuron")
    patches, kernels = (given or [1] * len(scores) for given in (patches, kernels))
    sums = [float(score.sum()) for score in scores]

    def kept(log_eps: float) -> list[int]:
        draws = samples_per_layer(sums, math.exp(log_eps), patches, kernels)
        found = [round(expected_distinct(s, float(max(1, m)))) for s, m in zip(scores, draws, strict=True)]
        return [max(1, n) for n in found]

    low, high = 0.0, 0.0  # of log ε: below `low` too many are kept, above `high` too few
    while count(kept(low)) < target and low > -200:
        low -= 4
    while count(kept(high)) > target and high < 200:
        high += 4
    if count(kept(low)) < target:
        return _nearest(kept(low), [len(score) for score in scores], count, target)
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if count(kept(middle)) >= target else (low, middle)
    return _nearest(kept(high), kept(low), count, target)


def _nearest(few: list[int], many: list[int], count: Callable[[list[int]], int], target: int) -> list[int]:
    """The nearest on the way from `few` to `many`, a neuron at a time in the emptiest layer; of equals, the first."""
    path = [list(few)]
    while any(a < b for a, b in zip(path[-1], many, strict=True)):
        now = path[-1]
        layer = min((i for i in range(len(now)) if now[i] < many[i]), key=lambda i: now[i] / many[i])
        path.append([n + (i == layer) for i, n in enumerate(now)])
    return min(path, key=lambda kept: abs(count(kept) - target))
