"""How far pruning can move a neuron's output: what is promised beforehand, and what is observed.

All errors are relative to Σ_j |w_ij a_j(x)|, the neuron's output were nothing to cancel, biases left out. Within a
sign group nothing does cancel (see `shares`). So where every group's sum is kept to a factor 1 ± ε, the output
moves by at most ε Σ_j |w_ij a_j(x)|.

A promise holds for inputs of the sample that the shares were taken from. For fresh inputs, the sources assume that
no share exceeds the sample's largest by more than a constant factor. Everywhere `inflation` is 1 for inputs of the
sample, and `FRESH` for the promise under that assumption. It is an assumption on the data, not a theorem: a table shows
the promise beside the error observed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

FRESH = 3.0
"""How much larger than on the sample a share may be on fresh inputs: c = 3 (Liebenwein, Baykal et al. 2020)."""

DELTA = 0.05
"""δ, the probability that a promise of random choices may fail with."""

GROUPS = 4
"""Sign groups of a neuron."""


def observed_error(weight: Tensor, pruned_weight: Tensor, inputs: Tensor) -> Tensor:
    """|ẑ_i(x) − z_i(x)| / Σ_j |w_ij a_j(x)|, (X, n_out); 0 where the denominator is.

    Args:
        weight, pruned_weight: (n_out, C), before and after.
        inputs: (X, C).
    """
    error = (inputs @ (pruned_weight - weight).detach().T).abs()
    scale = inputs.abs() @ weight.detach().abs().T
    return torch.where(scale > 0, error / scale, 0.0)


def bernstein(largest: Tensor, variance: Tensor, log_term: float) -> Tensor:
    """The deviation that a sum of independent variables exceeds with probability at most 2 exp(−log_term), (…,).

    t = L M/3 + √((L M/3)² + 2 V L), the root of t²/2 = L (V + M t/3) (Bernstein's inequality, both sides).

    Args:
        largest: M, the most that one variable strays from its mean, (…,).
        variance: V, the sum of their variances, (…,).
        log_term: L.
    """
    linear = largest * log_term / 3
    return linear + (linear.square() + 2 * variance * log_term).sqrt()


def log_failures(neurons: int) -> float:
    """L = log(2 · 4 · neurons / δ): with it, all sign groups of all neurons hold at once with probability 1 − δ."""
    return math.log(2 * GROUPS * neurons / DELTA)


def promise_kept(weight: Tensor, shares: Tensor, kept: Tensor, inflation: float = 1.0) -> Tensor:
    """What is promised when the weights outside `kept` are set to 0 and the others stay as they are, (n_out,).

    At x a sign group loses the shares of what was discarded, so at most ε = min(1, Σ s_j), s_j the largest shares of
    its discarded weights; the largest ε of a neuron's groups is the promise. Weights of one sign form two groups, by
    the activations' sign. One s_j, the larger of both, serves them here.

    Args:
        weight: (n_out, C), for the signs.
        shares: (n_out, C), from `shares.largest_shares`.
        kept: bool (n_out, C), any choice.
    """
    lost = torch.where(kept, 0.0, (inflation * shares).clamp(max=1))
    return _over_signs(weight, lost).sum(2).amax(0).clamp(max=1)


def promise_sampled(weight: Tensor, shares: Tensor, probabilities: Tensor, inflation: float = 1.0) -> Tensor:
    """What is promised when each weight is kept with its own probability p_j and then divided by it, (n_out,).

    With probability at least 1 − δ over the draw it holds for all neurons at one input x. In a group let r_j be the
    share at x, r_j ≤ s_j, Σ r_j = 1, and Y = Σ r_j 1_j/p_j, which has mean 1. A term strays from its mean by at most
    M = max_j s_j max(p_j, 1 − p_j)/p_j, and the variance is Σ r_j² (1 − p_j)/p_j ≤ V = max_j s_j (1 − p_j)/p_j. Terms
    with p_j = 1 do not stray. Bernstein, with a union over 4 groups of n_out neurons, gives ε; it may exceed 1.

    Args:
        weight: (n_out, C), for the signs.
        shares: (n_out, C), from `shares.largest_shares`.
        probabilities: of each weight to be kept, fixed before the draw, (n_out, C). It may be 0 only where the share
            is.
    """
    shares = (inflation * shares).clamp(max=1).to(probabilities.dtype)
    loose = (probabilities < 1) & (shares > 0)
    p = torch.where(loose, probabilities, 1.0)
    strays = torch.where(loose, shares * torch.maximum(p, 1 - p) / p, 0.0)
    varies = torch.where(loose, shares * (1 - p) / p, 0.0)
    largest, variance = (_over_signs(weight, term).amax(2) for term in (strays, varies))
    return bernstein(largest, variance, log_failures(len(weight))).amax(0)


def _over_signs(weight: Tensor, terms: Tensor) -> Tensor:
    """`terms` (n_out, C) of the positive weights, then of the negative ones, 0 elsewhere: (2, n_out, C)."""
    return torch.stack([torch.where(weight > 0, terms, 0.0), torch.where(weight < 0, terms, 0.0)])


def promise_neurons_kept(neuron_shares: Tensor, kept: Tensor, inflation: float = 1.0) -> Tensor:
    """What is promised to each neuron of the next layer when whole neurons of this one go: min(1, Σ s_ij), (n_out,).

    Args:
        neuron_shares: of the next layer, (n_out, n_in), from `shares.largest_shares`.
        kept: bool (n_in,), the neurons that stay.
    """
    lost = torch.where(kept, 0.0, (inflation * neuron_shares).clamp(max=1))
    return lost.sum(1).clamp(max=1)


def promise_neurons_drawn(neuron_shares: Tensor, probabilities: Tensor, draws: float, inflation: float = 1.0) -> Tensor:
    """What is promised to each neuron of the next layer when neurons are drawn with replacement, (n_out,).

    Of m draws with probabilities q_j, a neuron drawn n_j times counts n_j/(m q_j) times. A draw adds r_j/(m q_j), at
    most ρ/m with ρ = max_j s_ij/q_j; the variance of all is at most Σ r_j²/(m q_j) ≤ ρ R/m, R = min(1, Σ s_ij) ≥ Σ r_j.
    Bernstein, with a union over 4 groups of n_out neurons, gives ε. With q_j = s_j/S that is the solution of
    3 m ε² = S (6 + 2ε) L. Neurons with q_j = 0 are kept for certain, or have no share.

    Args:
        neuron_shares: of the next layer, (n_out, n_in), from `shares.largest_shares`.
        probabilities: q, (n_in,).
        draws: m, fixed before the draw.
    """
    shares = (inflation * neuron_shares).clamp(max=1).to(probabilities.dtype)
    drawn = probabilities > 0
    ratio = torch.where(drawn, shares / torch.where(drawn, probabilities, 1.0), 0.0).amax(1)
    whole = torch.where(drawn, shares, 0.0).sum(1).clamp(max=1)
    return bernstein(ratio / draws, ratio * whole / draws, log_failures(len(neuron_shares)))


@dataclass(frozen=True)
class Promise:
    """What sipp or pfp promises of one layer's output, beside the error that is observed.

    The layer is looked at by itself: its inputs are those of the unpruned network.

    Attributes:
        layer: name of its weight.
        promised, observed: largest over its neurons on the sample; random choices promise with probability 1 − δ,
            δ = 0.05.
        mean_promised, mean_observed: means over the neurons, of the largest over the sample.
        kept: whether every neuron kept its promise on the sample.
        fresh_promised, fresh_observed: largest over the neurons on rows that were not in the sample, under the
            assumption of `FRESH`; None without such rows.
        fresh_kept: share of the fresh inputs at which all neurons kept it.
    """

    layer: str
    promised: float
    observed: float
    mean_promised: float
    mean_observed: float
    kept: bool
    fresh_promised: float | None = None
    fresh_observed: float | None = None
    fresh_kept: float | None = None


def promise_of(
    layer: str,
    before: Tensor,
    after: Tensor,
    inputs: Tensor,
    promised: Callable[[float], Tensor],
    fresh: Tensor | None = None,
) -> Promise:
    """Promise and observation at one layer.

    Args:
        layer: its name.
        before, after: its matrix (n_out, C), unpruned and pruned (reweighted too).
        inputs: of the sample, (X, C).
        promised: inflation → relative error promised to each neuron, (n_out,).
        fresh: inputs of other rows, (Y, C).
    """
    own, seen = promised(1.0), observed_error(before, after, inputs)
    slack = 1e-9  # rounding of sums of some hundred terms in float64
    found = Promise(
        layer,
        float(own.max()),
        float(seen.max()),
        float(own.mean()),
        float(seen.amax(0).mean()),
        bool((seen <= own + slack).all()),
    )
    if fresh is None:
        return found
    wide, others = promised(FRESH), observed_error(before, after, fresh)
    held = (others <= wide + slack).all(1).double().mean()
    return replace(found, fresh_promised=float(wide.max()), fresh_observed=float(others.max()), fresh_kept=float(held))
