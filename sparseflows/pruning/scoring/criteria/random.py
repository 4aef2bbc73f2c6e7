"""Random scores, uniform in [0, 1), float64, on the generator's device: the baseline every claim needs."""

from __future__ import annotations

import torch
from torch import Tensor


def random_weights(weight: Tensor, generator: torch.Generator) -> Tensor:
    """One number for every entry of a weight matrix (n_out, C): (n_out, C)."""
    return torch.rand(weight.shape, generator=generator, dtype=torch.float64, device=generator.device)


def random_neurons(weight: Tensor, generator: torch.Generator) -> Tensor:
    """One number for every row of a weight matrix (n_out, C): (n_out,)."""
    return torch.rand(weight.shape[:1], generator=generator, dtype=torch.float64, device=generator.device)
