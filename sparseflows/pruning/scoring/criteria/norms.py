"""The size of weights: single ones by magnitude, neurons and channels by the norm of what comes in."""

from __future__ import annotations

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
