"""One evaluation of an MLP field with its trace, and the gradient of both, without autograd.

The rows of the value and of its K tangents pass through a layer stacked, so that a layer is one matrix product on the
way there and two on the way back. Autograd records nothing: `backward` is the chain rule written out. It has no
derivative of its own, so Hessians take the field's plain path.

With h the rows that enter a layer, U their tangents and W its weight: x = W h + b, P = W U, y = σ(x), U′ = σ′(x) ⊙ P.
Back, for gradients ȳ and Ū′: x̄ = σ′ ⊙ ȳ + σ″ ⊙ Σ_k P_k ⊙ Ū′_k and P̄_k = σ′ ⊙ Ū′_k. Time gates scale x and P alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import MLPField, gaussian_velocity


class Weights(NamedTuple):
    """The tensors of one layer, detached, or their gradients; in the order of `fields.TENSORS`."""

    weight: Tensor
    bias: Tensor
    gate_weight: Tensor | None
    gate_bias: Tensor | None
    time_bias: Tensor | None

    @classmethod
    def of(cls, tensors: Iterable[Tensor | None], made: Callable[[Tensor], Tensor]) -> Weights:
        """What `made` gives for the tensors (…) of a layer, in their shapes; None for None."""
        return cls(*(None if tensor is None else made(tensor) for tensor in tensors))  # type: ignore[arg-type]


class Passed(NamedTuple):
    """What one layer leaves for its gradient. In the first layer of an exact trace P is (K, 1, n): W's columns."""

    entered: Tensor  # (1 + K, B, n_in); (1, B, D) in the first layer
    x: Tensor  # (B, n_out)
    p: Tensor  # (K, B or 1, n_out)
    gated: tuple[Tensor, Tensor, Tensor] | None  # the gate (n_out,), and x and P before it
    sigma: tuple[Tensor, Tensor] | None  # y and σ′, (B, n_out); None in the last layer


@dataclass(frozen=True)
class Evaluated:
    """f (B, D), tr ∂f/∂z (B,), zero where it was not asked for, and what the gradient needs."""

    velocity: Tensor
    trace: Tensor
    t: float
    passed: list[Passed]


class MLPKernel:
    """The field's tensors at this moment, with the way there and back.

    Args:
        field: read, never written.
        probes: (B, D), the same in every evaluation, of Hutchinson's estimate; None for the exact trace.
    """

    def __init__(self, field: MLPField, probes: Tensor | None = None) -> None:
        self.layers = [Weights.of(layer.tensors(), Tensor.detach) for layer in field.linear_layers()]
        self.sigma = ACTIVATIONS[field.activation]
        self.based = field.base == "gaussian"
        self.probes = probes

    def zeros(self) -> list[Weights]:
        """Where `backward` adds its gradients."""
        return [Weights.of(layer, torch.zeros_like) for layer in self.layers]

    def forward(self, t: float, z: Tensor, rows: slice = slice(None)) -> Evaluated:
        """f(t, z) and its trace for z (B, D) and the probes of `rows`."""
        passed: list[Passed] = []
        probes = None if self.probes is None else self.probes[rows]
        entered = z.unsqueeze(0)
        for layer in self.layers:
            here = self._linear(layer, t, entered, probes, not passed)
            if layer is not self.layers[-1]:
                y = self.sigma.value(here.x)
                d = self.sigma.derivative(here.x, y)
                here = here._replace(sigma=(y, d))
                entered = torch.empty(1 + len(here.p), *y.shape, dtype=y.dtype, device=y.device)
                entered[0] = y
                torch.mul(here.p, d, out=entered[1:])
            passed.append(here)
        if probes is None:
            trace = torch.diagonal(here.p, dim1=0, dim2=2).sum(-1).expand(len(z))
        else:
            trace = (here.p[0] * probes).sum(1)
        if not self.based:
            return Evaluated(here.x, trace, t, passed)
        rate = gaussian_velocity(t)
        whole = z.shape[1] if probes is None else probes.square().sum(1)
        return Evaluated(here.x + rate * z, trace + rate * whole, t, passed)

    def _linear(self, layer: Weights, t: float, entered: Tensor, probes: Tensor | None, first: bool) -> Passed:
        weight = layer.weight
        if first:
            x = torch.addmm(layer.bias, entered[0], weight.T)
            p = weight.T.unsqueeze(1) if probes is None else (probes @ weight.T).unsqueeze(0)
        else:
            k, rows, n = entered.shape
            both = (entered.view(k * rows, n) @ weight.T).view(k, rows, len(weight))
            x, p = both[0], both[1:]
            x += layer.bias
        gated = None
        if layer.gate_weight is not None and layer.gate_bias is not None:
            gate = torch.sigmoid(layer.gate_weight * t + layer.gate_bias)
            gated, x, p = (gate, x, p), x * gate, p * gate
        if layer.time_bias is not None:
            x = x + layer.time_bias * t
        return Passed(entered, x, p, gated, None)

    def backward(
        self, at: Evaluated, velocity: Tensor, trace: Tensor, gradients: list[Weights], rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """The gradients of z (B, D) and of t (scalar), given those of f (B, D) and of the trace (B,).

        Those of the parameters are added to `gradients`.
        """
        probes = None if self.probes is None else self.probes[rows]
        dim = velocity.shape[1]
        if probes is None:
            pushed = torch.zeros(dim, len(velocity), dim, dtype=velocity.dtype, device=velocity.device)
            torch.diagonal(pushed, dim1=0, dim2=2).copy_(trace.unsqueeze(1).expand(-1, dim))
        else:
            pushed = (trace.unsqueeze(1) * probes).unsqueeze(0)
        stacked = torch.cat([velocity.unsqueeze(0), pushed])
        of_t = torch.zeros((), dtype=velocity.dtype, device=velocity.device)
        for index in range(len(self.layers) - 1, -1, -1):
            here = at.passed[index]
            if here.sigma is not None:
                stacked = self._through_activation(here, *here.sigma, stacked)
            stacked, more = self._through_linear(index, here, at.t, stacked, gradients[index], probes)
            of_t = of_t + more
        return (stacked[0] + gaussian_velocity(at.t) * velocity if self.based else stacked[0]), of_t

    def _through_activation(self, here: Passed, y: Tensor, d: Tensor, above: Tensor) -> Tensor:
        below = torch.empty_like(above)
        torch.mul(above[1:], d, out=below[1:])
        summed = above[1] * here.p[0]
        for k in range(1, len(here.p)):
            summed.addcmul_(above[1 + k], here.p[k])
        summed.mul_(self.sigma.second(here.x, y, d))
        torch.addcmul(summed, above[0], d, out=below[0])
        return below

    def _through_linear(
        self, index: int, here: Passed, t: float, above: Tensor, gradient: Weights, probes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        layer = self.layers[index]
        of_t = torch.zeros((), dtype=above.dtype, device=above.device)
        if layer.time_bias is not None and gradient.time_bias is not None:
            column = above[0].sum(0)
            gradient.time_bias.add_(column * t)
            of_t = of_t + column @ layer.time_bias
        if here.gated is not None:
            assert layer.gate_weight is not None
            assert gradient.gate_weight is not None
            assert gradient.gate_bias is not None
            gate, x, p = here.gated
            column = (above[0] * x).sum(0) + (above[1:] * p).sum((0, 1))
            column = column * gate * (1 - gate)
            gradient.gate_bias.add_(column)
            gradient.gate_weight.add_(column * t)
            of_t = of_t + column @ layer.gate_weight
            above = above * gate
        gradient.bias.add_(above[0].sum(0))
        k, rows, n = above.shape
        if index > 0:
            flat = above.view(k * rows, n)
            gradient.weight.addmm_(flat.T, here.entered.view(k * rows, -1))
            return (flat @ layer.weight).view(k, rows, -1), of_t
        gradient.weight.addmm_(above[0].T, here.entered[0])
        if probes is None:
            gradient.weight.add_(above[1:].sum(1).T)
        else:
            gradient.weight.addmm_(above[1].T, probes)
        return (above[0] @ layer.weight).unsqueeze(0), of_t
