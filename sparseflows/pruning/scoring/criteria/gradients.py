"""Criteria by the gradient of a loss: what it changes by when a weight or a neuron goes, to first or second order."""

from __future__ import annotations

from torch import Tensor


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
