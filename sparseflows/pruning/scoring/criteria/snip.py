"""snip: the mean loss's first-order change (Lee et al. 2019, "SNIP: single-shot network pruning")."""

from __future__ import annotations

from torch import Tensor


def snip(weight: Tensor, mean_gradient: Tensor) -> Tensor:
    """|w · ∂L̄/∂w|, (n_out, C) as both arguments: what the mean loss gains by the weight's going, to first order."""
    return (weight.detach() * mean_gradient).abs()
