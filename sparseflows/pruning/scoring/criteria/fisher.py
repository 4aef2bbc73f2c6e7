"""The cost of a weight, or of a neuron, by the diagonal of the empirical Fisher information."""

from __future__ import annotations

from torch import Tensor


def fisher_weights(weight: Tensor, squared_gradients: Tensor, examples: int) -> Tensor:
    """w²/(2N) · Σ_n g_n², (n_out, C): the weight's cost by the diagonal empirical Fisher.

    Args:
        weight: (n_out, C).
        squared_gradients: Σ_n g_n², (n_out, C), g_n the gradient of example n's own loss.
        examples: N.
    """
    return weight.detach().square() * squared_gradients / (2 * examples)


def fisher_neurons(contributions: Tensor) -> Tensor:
    """1/(2N) · Σ_n c_n², (n,): a neuron's cost by the diagonal Fisher of a gate on it.

    Theis et al. 2018 ("Faster gaze prediction with dense networks and Fisher pruning"); Crowley et al. 2018.

    Args:
        contributions: c_n = Σ a_n g_n over positions and evaluations, (N, n).
    """
    return contributions.square().sum(0) / (2 * contributions.shape[0])
