"""Criteria of one formula each: by the size of weights, by chance, and by the gradient of a loss."""

import torch
from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w| for every entry of a weight (n_out, …), in its shape: weight thresholding."""
    return weight.detach().abs()


def neuron_l1(weight: Tensor) -> Tensor:
    """ℓ₁ norm of each neuron's incoming weights (n_out, …), (n_out,) (Li et al. 2017)."""
    return weight.detach().flatten(1).abs().sum(1)


def neuron_l2(weight: Tensor) -> Tensor:
    """ℓ₂ norm of each neuron's incoming weights (n_out, …), (n_out,) (He et al. 2018)."""
    return weight.detach().flatten(1).square().sum(1).sqrt()


def random_weights(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The baseline: a number in [0, 1) for every entry of a weight matrix, (n_out, C), on the generator's device."""
    return torch.rand(weight.shape, generator=generator, dtype=torch.float64, device=generator.device)


def random_neurons(weight: Tensor, generator: torch.Generator) -> Tensor:
    """The baseline: one for every row of a weight matrix (n_out, C), (n_out,)."""
    return torch.rand(weight.shape[:1], generator=generator, dtype=torch.float64, device=generator.device)


def snip(weight: Tensor, mean_gradient: Tensor) -> Tensor:
    """|w · ∂L̄/∂w|, (n_out, C) as both arguments: what the mean loss gains by the weight's going, to first order.

    Lee et al. 2019, "SNIP: single-shot network pruning".
    """
    return (weight.detach() * mean_gradient).abs()


def taylor(contributions: Tensor) -> Tensor:
    """mean_n |c_n|, (n,): the change of each example's loss without the neuron, to first order.

    Molchanov et al. 2017.

    Args:
        contributions: c_n = Σ a_n g_n over positions and evaluations, (N, n).
    """
    return contributions.abs().mean(0)


def fisher_weights(weight: Tensor, squared_gradients: Tensor, examples: int) -> Tensor:
    """w²/(2N) · Σ_n g_n², (n_out, C): the weight's cost by the diagonal empirical Fisher.

    Args:
        weight: (n_out, C).
        squared_gradients: Σ_n g_n², (n_out, C), g_n the gradient of example n's own loss.
        examples: N.
    """
    return weight.detach().square() * squared_gradients / (2 * examples)


def fisher_neurons(contributions: Tensor) -> Tensor:
    """1/(2N) · Σ_n c_n², (n,): a neuron's cost by the diagonal Fisher of a gate on it; c_n as in `taylor`, (N, n).

    Theis et al. 2018 ("Faster gaze prediction with dense networks and Fisher pruning"); Crowley et al. 2018.
    """
    return contributions.square().sum(0) / (2 * contributions.shape[0])
