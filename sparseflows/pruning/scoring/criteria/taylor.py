"""taylor: each example's first-order change of the loss (Molchanov et al. 2017)."""

from __future__ import annotations

from torch import Tensor


def taylor(contributions: Tensor) -> Tensor:
    """mean_n |c_n|, (n,): the change of each example's loss without the neuron, to first order.

    Args:
        contributions: c_n = Σ a_n g_n over positions and evaluations, (N, n).
    """
    return contributions.abs().mean(0)
