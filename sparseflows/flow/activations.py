"""Activations with their first and second derivatives.

The first lets tangents pass through a layer beside its value; the second lets the gradient of a tangent pass back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Activation:
    """σ, σ′ and σ″.

    `derivative(x, y)` takes the input x and the value y = σ(x), which most derivatives reuse; `second(x, y, d)` takes
    the first derivative d as well.
    """

    value: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    second: Callable[[Tensor, Tensor, Tensor], Tensor]


def _silu_derivative(x: Tensor, y: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate + y * (1 - gate)


def _silu_second(x: Tensor, y: Tensor, d: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 - gate) * (2 + x * (1 - 2 * gate))


ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(
        torch.sigmoid,
        lambda x, y: torch.addcmul(y, y, y, value=-1),  # y(1 − y)
        lambda x, y, d: torch.addcmul(d, d, y, value=-2),  # d(1 − 2y)
    ),
    "tanh": Activation(torch.tanh, lambda x, y: 1 - y * y, lambda x, y, d: -2 * y * d),
    "softplus": Activation(F.softplus, lambda x, y: torch.sigmoid(x), lambda x, y, d: torch.addcmul(d, d, d, value=-1)),
    "relu": Activation(torch.relu, lambda x, y: (x > 0).to(x.dtype), lambda x, y, d: torch.zeros_like(d)),
    "silu": Activation(F.silu, _silu_derivative, _silu_second),
}
