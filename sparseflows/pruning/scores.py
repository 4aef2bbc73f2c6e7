"""Importance scores: one number a weight or a neuron, higher stays. Pure functions of the weights."""

from __future__ import annotations

from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w| for every entry of a weight matrix (n_out, n_in): weight thresholding."""
    return weight.detach().abs()


def neuron_l1(weight: Tensor) -> Tensor:
    """ℓ₁ norm of each neuron's incoming weights, (n_out,) (Li et al. 2017)."""
    return weight.detach().abs().sum(1)
