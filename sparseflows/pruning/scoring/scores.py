"""Importance scores: one number a weight or a neuron, higher stays. Pure functions.

They take what `statistics` gathers of a layer. A weight matrix is (n_out, C), the columns that read one unit of
the layer before side by side. N is the number of examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# --- of weights


def magnitude(weight: Tensor) -> Tensor:
    """|w| for every entry of a weight matrix: weight thresholding."""
    return weight.detach().abs()


def snip(weight: Tensor, mean_gradient: Tensor) -> Tensor:
    """|w · ∂L̄/∂w|, (n_out, C): what the mean loss gains by the weight's going, to first order (Lee et al. 2019)."""
    return (weight.detach() * mean_gradient).abs()


def fisher_weights(weight: Tensor, squared_gradients: Tensor, examples: int) -> Tensor:
    """w²/(2N) · Σ_n g_n², (n_out, C): the weight's cost by the diagonal empirical Fisher.

    Args:
        weight: (n_out, C).
        squared_gradients: Σ_n g_n², (n_out, C), g_n the gradient of example n's own loss.
        examples: N.
    """
    return weight.detach().square() * squared_gradients / (2 * examples)


def sipp(shares: Tensor) -> Tensor:
    """The largest share of its sign group that a weight ever has, (n_out, C) (Baykal, Liebenwein et al. 2019).

    Args:
        shares: as `shares.largest_shares` gives them.
    """
    return shares


def random(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), float64, on the generator's device: the baseline every claim needs."""
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64, device=generator.device)


# --- of units: neurons, or channels


def neuron_l1(weight: Tensor) -> Tensor:
    """ℓ₁ norm of each unit's incoming weights (n_out, …), (n_out,) (Li et al. 2017)."""
    return weight.detach().flatten(1).abs().sum(1)


def neuron_l2(weight: Tensor) -> Tensor:
    """ℓ₂ norm of each unit's incoming weights (n_out, …), (n_out,) (He et al. 2018)."""
    return weight.detach().flatten(1).square().sum(1).sqrt()


def pfp(unit_shares: Tensor) -> Tensor:
    """A unit's largest share over all units of the *next* layer, (n_in,) (Liebenwein, Baykal et al. 2020).

    Args:
        unit_shares: of the next layer, (n_out, n_in), as `shares.largest_shares` gives them.
    """
    return unit_shares.amax(0)


def fisher_neurons(contributions: Tensor) -> Tensor:
    """1/(2N) · Σ_n c_n², (n,): a unit's cost by the diagonal Fisher of a gate on it.

    Theis et al. 2018 ("Faster gaze prediction with dense networks and Fisher pruning"); Crowley et al. 2018.

    Args:
        contributions: c_n = Σ a_n g_n over positions and evaluations, (N, n).
    """
    return contributions.square().sum(0) / (2 * contributions.shape[0])


def taylor(contributions: Tensor) -> Tensor:
    """mean_n |c_n|, (n,): the change of each example's loss without the unit, to first order (Molchanov et al. 2017).

    Args:
        contributions: as of `fisher_neurons`.
    """
    return contributions.abs().mean(0)
