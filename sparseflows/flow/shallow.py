"""The exact trace of a perceptron with at most two hidden layers, at the price of one product more than f itself.

With J = A₃ D₂ A₂ D₁ A₁, where A_i = gate_i ⊙ W_i and D_i = diag σ′, the trace is a form in the two diagonals:
tr J = Σ_{ba} σ′₂_b (A₂ ⊙ (A₁ A₃)ᵀ)_{ba} σ′₁_a. A₁ A₃ is the same for all rows, so a row pays for one product with an
n₂ × n₁ matrix, whatever D; the D tangents of `MLPField.tangents` pay for D. Autograd passes through it, twice if asked.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import Layer, MLPField, gaussian_velocity

MOST_HIDDEN = 2


def takes(field: object, t: Tensor) -> bool:
    """Is `field` such a perceptron, and the time one for all rows?"""
    return type(field) is MLPField and len(field.layers) <= MOST_HIDDEN + 1 and t.ndim == 0


def value_and_trace(field: MLPField, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """f(t, z) (B, D) and tr ∂f/∂z (B,), for z (B, D), a scalar t, and a field that `takes` takes."""
    sigma = ACTIVATIONS[field.activation]
    *inner, last = field.linear_layers()
    h, slopes = z, []
    for layer in inner:
        x = layer(t, h)
        h = sigma.value(x)
        slopes.append(sigma.derivative(x, h))
    f = last(t, h)
    factors = [_gated(layer, t) for layer in field.linear_layers()]
    if not slopes:
        trace = torch.diagonal(factors[0]).sum().expand(len(z))
    elif len(slopes) == 1:
        trace = slopes[0] @ (factors[0] * factors[1].T).sum(1)
    else:
        form = factors[1] * (factors[0] @ factors[2]).T
        trace = (F.linear(slopes[0], form) * slopes[1]).sum(1)
    if field.base == "none":
        return f, trace
    rate = gaussian_velocity(t)
    return f + rate * z, trace + rate * z.shape[1]


def _gated(layer: Layer, t: Tensor) -> Tensor:
    gate = layer.gate(t)
    return layer.weight if gate is None else layer.weight * gate.unsqueeze(1)
