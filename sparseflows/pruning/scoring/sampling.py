"""Random choices of weights and neurons in proportion to their shares, reweighted so that outputs stay unbiased.

Weights (sipp): the source draws with replacement. Here each weight j is kept independently with probability
p_j = 1 − exp(−τ s_j), the chance of at least one draw were the number of draws Poisson. One exponential arrival
time a weight then decides for all τ at once: the weights kept at τ are those that arrived by τ. So the times are a
ranking with nested prefixes, and the cut that meets a budget is found as for any other score.

Neurons (pfp): drawn with replacement, as in the source, until one more distinct neuron would exceed the number wanted.

Promises and their argument `inflation` are those of `bounds`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.pruning.scoring.bounds import (
    bernstein,
    log_failures,
    promise_kept,
    promise_neurons_drawn,
    promise_neurons_kept,
    promise_sampled,
)
from sparseflows.pruning.scoring.neuron_budget import draws_for

# --- weights


def arrivals(shares: Tensor, generator: torch.Generator) -> Tensor:
    """T_j = Exponential(1) / s_j, float64, (n_out, C) as `shares` (≥ 0); infinite where the share is 0.

    Drawn once. {T_j ≤ τ} is the choice at τ, for every τ.
    """
    rates = shares.to(torch.float64)
    draws = torch.empty_like(rates).exponential_(generator=generator)
    return torch.where(rates > 0, draws / rates, torch.inf)


def inclusion(shares: Tensor, tau: float, certain: Tensor | None = None) -> Tensor:
    """p_j = 1 − exp(−τ s_j), (n_out, C), float64; 0 where the share is 0, even at τ = ∞; 1 where `certain` (bool)."""
    rates = shares.to(torch.float64)
    p = torch.where(rates > 0, -torch.expm1(-tau * rates), 0.0)
    return p if certain is None else p.masked_fill(certain, 1.0)


def reweighting(shares: Tensor, kept: Tensor, tau: float, certain: Tensor | None = None) -> Tensor:
    """1/p_j for what is kept, 0 for the rest, (n_out, C): weight · factor is the pruned weight, unbiased.

    Args:
        shares: that the arrivals were drawn from, (n_out, C).
        kept: bool, the same shape.
        tau: of the whole network, the first arrival left out.
        certain: bool, what is kept whatever its arrival (a strongest path, say): factor 1. What is kept with share 0
            has factor 1 too, for it adds nothing on the sample.
    """
    p = inclusion(shares, tau, certain)
    return torch.where(kept & (p > 0), 1 / p, kept.to(p.dtype)).to(shares.dtype)


@dataclass(frozen=True)
class Sampled:
    """A layer after sipp.

    Attributes:
        kept: bool (n_out, C).
        factors: what to multiply the weights by, (n_out, C); 0 outside `kept`.
        promised: relative error promised, (n_out,), as in `bounds`.
    """

    kept: Tensor
    factors: Tensor
    promised: Tensor


def hybrid(
    weight: Tensor, shares: Tensor, kept: Tensor, tau: float, certain: Tensor | None = None, inflation: float = 1.0
) -> Sampled:
    """For each neuron the random choice, or as many weights of largest share, whichever promises the smaller error.

    The random promises hold for all neurons at once with probability 1 − δ, so the smaller ones do as well.

    Args:
        weight: (n_out, C).
        shares: (n_out, C).
        kept: bool (n_out, C), the random choice.
        tau: of the whole network, the first arrival left out.
        certain: bool (n_out, C), part of `kept` whatever its arrival.
    """
    # Weights that are 0 already, those of an earlier pruning among them, come last: they must not come back.
    first = shares.masked_fill(weight == 0, -1.0)
    first = first if certain is None else first.masked_fill(certain, torch.inf)
    ranks = first.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    top = ranks < kept.sum(1, keepdim=True)
    fixed = promise_kept(weight, shares, top, inflation).to(torch.float64)
    random = promise_sampled(weight, shares, inclusion(shares, tau, certain), inflation)
    better = (random < fixed).unsqueeze(1)
    factors = torch.where(better, reweighting(shares, kept, tau, certain), top.to(shares.dtype))
    return Sampled(torch.where(better, kept, top), factors, torch.minimum(fixed, random).to(shares.dtype))


# --- neurons


@dataclass(frozen=True)
class Drawn:
    """The neurons of a layer after pfp.

    Attributes:
        kept: bool (n,).
        factors: what to multiply the next layer's columns of each neuron by, (n,); 0 outside `kept`.
        probabilities: q_j of each draw, (n,); 0 where no draw was needed.
        draws: m, 0 where nothing was left to chance.
    """

    kept: Tensor
    factors: Tensor
    probabilities: Tensor
    draws: float

    def promised(self, neuron_shares: Tensor, inflation: float = 1.0) -> Tensor:
        """Relative error promised to each neuron of the next layer, (n_out,), by its `neuron_shares` (n_out, n)."""
        if not self.draws:
            return promise_neurons_kept(neuron_shares, self.kept, inflation)
        return promise_neurons_drawn(neuron_shares, self.probabilities, self.draws, inflation)


def top_neurons(scores: Tensor, count: int) -> Drawn:
    """The `count` (1 to n) neurons of highest score (n,), as they are; of equal ones, the first."""
    _check_count(scores, count)
    kept = _best(scores, count)
    return Drawn(kept, kept.to(torch.float64), torch.zeros_like(scores, dtype=torch.float64), 0.0)


def draw_neurons(scores: Tensor, count: int, generator: torch.Generator, certain: int = 0) -> Drawn:
    """The `certain` best neurons as they are, others drawn with replacement in proportion until `count` are kept.

    The drawing ends before the draw that would bring one neuron too many. The m draws before it are exchangeable, so
    the factors n_j/(m q_j) of neurons drawn n_j times are unbiased although m is random. Draws are played in
    continuous time, each neuron at rate q_j: first arrivals, then Poisson many returns until the end, which costs
    nothing where some q_j are tiny. Neurons without a score come last, in their order. The promise is proved for an m
    fixed beforehand; with this one, how often it holds is measured.

    Args:
        scores: (n,), at least 0.
        count: neurons to keep, 1 to n.
        generator: of the draws.
        certain: neurons kept by rank, 0 to `count`.

    Raises:
        InputError: `count` or `certain` out of range.
    """
    _check_count(scores, count)
    if not 0 <= certain <= count:
        raise InputError(f"{certain} of {count} neurons to be kept by rank; there can be 0 to {count}")
    best = _best(scores, certain)
    rest = scores.to(torch.float64).masked_fill(best, 0.0)
    q = rest / rest.sum() if rest.any() else rest
    times = arrivals(q, generator).masked_fill(best, -1.0)
    order = times.argsort(stable=True)
    kept = torch.zeros_like(best)
    kept[order[:count]] = True
    drawn = kept & (q > 0)
    end = float(times[order[count]]) if count < len(scores) else math.inf
    if math.isinf(end) or not drawn.any():  # all that have a score are kept, or none by chance
        return Drawn(kept, kept.to(torch.float64), torch.zeros_like(q), 0.0)
    means = torch.where(drawn, q * (end - times), 0.0)
    returns = torch.poisson(means.clamp(max=1e15), generator=generator)
    returns = torch.where(means < 1e15, returns, means)  # counts overflow soon after (relative error 3e-8)
    repeats = torch.where(drawn, 1 + returns, 0.0)
    draws = repeats.sum()
    factors = torch.where(drawn, repeats / (draws * q), kept.to(torch.float64))
    return Drawn(kept, factors, q, float(draws))


def _best(scores: Tensor, count: int) -> Tensor:
    kept = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    kept[scores.argsort(descending=True, stable=True)[:count]] = True
    return kept


def _check_count(scores: Tensor, count: int) -> None:
    if not 1 <= count <= len(scores):
        raise InputError(f"{count} of {len(scores)} neurons to be kept; a layer keeps 1 at least and all at most")


def best_top(scores: Tensor, count: int, neurons: int) -> int:
    """How many of `count` neurons to keep by rank, so that drawing the others promises the smallest error.

    Compared are the promises of `bounds.promise_neurons_drawn` and `promise_neurons_kept` with a neuron's score in
    place of its share in each neuron of the next layer, at the number of draws that gives `count` neurons on average.
    Of equals, the most.

    Args:
        scores: (n,).
        count: neurons to keep.
        neurons: of the next layer.
    """
    ordered = scores.to(torch.float64).sort(descending=True).values
    tails = ordered.flip(0).cumsum(0).flip(0)  # what is left after the k best, k = 0 … n − 1
    promises = []
    for k in range(count):
        left, draws = tails[k], draws_for(ordered[k:], count - k)
        promises.append(float(bernstein(left / draws, left * left.clamp(max=1) / draws, log_failures(neurons))))
    promises.append(float(tails[count].clamp(max=1)) if count < len(ordered) else 0.0)
    return min(range(count + 1), key=lambda k: (promises[k], -k))
