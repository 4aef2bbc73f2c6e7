"""Activations with their derivatives, so that tangents pass through a layer beside its value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """σ and σ′. `derivative(x, y)` takes the input x and the value y = σ(x), which most derivatives reuse."""

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


def _silu_derivative(x: Tensor, y: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate + y * (1 - gate)


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(torch.sigmoid, lambda x, y: y * (1 - y)),
    "tanh": Activation(torch.tanh, lambda x, y: 1 - y * y),
    "softplus": Activation(F.softplus, lambda x, y: torch.sigmoid(x)),
    "relu": Activation(torch.relu, lambda x, y: (x > 0).to(x.dtype)),
    "silu": Activation(F.silu, _silu_derivative),
}
