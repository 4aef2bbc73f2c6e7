"""The divergence tr ∂f/∂z of a field: exact, or Hutchinson's estimate of it. Pure functions.

The exact trace of a perceptron with at most two hidden layers costs one product more than f itself. With J =
A₃ D₂ A₂ D₁ A₁, where A_i = gate_i ⊙ W_i and D_i = diag σ′, it is a form in the two diagonals:
tr J = Σ_{ba} σ′₂_b (A₂ ⊙ (A₁ A₃)ᵀ)_{ba} σ′₁_a. A₁ A₃ is the same for all rows, so a row pays for one product with an
n₂ × n₁ matrix, whatever D; the D tangents of `MLPField.tangents` pay for D. Autograd passes through it, twice if asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import Field, MLPField, gaussian_velocity
from sparseflows.specs.choices import DivergenceKind

MOST_HIDDEN = 2  # hidden layers of a perceptron whose trace is had for less


class Divergence(NamedTuple):
    """One evaluation of a field with the trace of its Jacobian.

    velocity: f(t, z), (B, D). trace: tr ∂f/∂z, (B,). frobenius: ‖∂f/∂z‖²_F, (B,), exact or estimated as
    |(∂f/∂z)e|², whose mean over probes e with E[eeᵀ] = I it is.
    """

    velocity: Tensor
    trace: Tensor
    frobenius: Tensor


DivergenceRule = Callable[[Field, Tensor, Tensor], Divergence]
"""Field, t () and z (B, D) → the field's value and trace there."""


def exact(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """The trace (B,) at t () and z (B, D) from all D columns of the Jacobian, in one pass of D tangents."""
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).unsqueeze(1)  # (D, 1, D)
    velocity, columns = field.tangents(t, z, basis)
    trace = torch.diagonal(columns, dim1=0, dim2=2).sum(-1)
    return Divergence(velocity, trace, columns.square().sum((0, 2)))


def exact_trace(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """`exact` at t () and z (B, D) but for the Frobenius norm (0): a perceptron of few hidden layers is cheaper."""
    if type(field) is not MLPField or len(field.layers) > MOST_HIDDEN + 1 or t.ndim or not field.is_plain():
        return exact(field, t, z)
    sigma = ACTIVATIONS[field.activation]
    *inner, last = field.linear_layers()
    h, slopes = z, []
    for layer in inner:
        x = layer(t, h)
        h = sigma.value(x)
        slopes.append(sigma.derivative(x, h))
    f = last(t, h)
    gates = [(layer.weight, layer.gate(t)) for layer in field.linear_layers()]
    factors = [weight if gate is None else weight * gate.unsqueeze(1) for weight, gate in gates]
    if not slopes:
        trace = torch.diagonal(factors[0]).sum().expand(len(z))
    elif len(slopes) == 1:
        trace = slopes[0] @ (factors[0] * factors[1].T).sum(1)
    else:
        form = factors[1] * (factors[0] @ factors[2]).T
        trace = (F.linear(slopes[0], form) * slopes[1]).sum(1)
    if field.base == "gaussian":
        rate = gaussian_velocity(t)
        f, trace = f + rate * z, trace + rate * z.shape[1]
    return Divergence(f, trace, torch.zeros_like(trace))


@dataclass(frozen=True)
class Hutchinson:
    """Hutchinson's estimate by the same probes (B, D) in every evaluation of a solve."""

    probes: Tensor

    def __call__(self, field: Field, t: Tensor, z: Tensor) -> Divergence:
        """The estimate at t () and z (B, D); see `hutchinson`."""
        return hutchinson(field, t, z, self.probes)


def hutchinson(field: Field, t: Tensor, z: Tensor, noise: Tensor) -> Divergence:
    """eᵀ(∂f/∂z)e at t () and z (B, D) for one probe a row, noise (B, D) (Hutchinson 1990; FFJORD eq. 7)."""
    velocity, pushed = field.tangents(t, z, noise.unsqueeze(0))
    return Divergence(velocity, (pushed[0] * noise).sum(1), pushed[0].square().sum(1))


Drawer = Callable[[Tensor, torch.Generator], Tensor]


def draw_noise(kind: str | Drawer, like: Tensor, generator: torch.Generator) -> Tensor:
    """Probes (B, D) like points (B, D), with E[eeᵀ] = I: `rademacher` (±1) or `gaussian`; drawn once for a solve.

    A function (like, generator) → probes may stand for the name.

    Raises:
        InputError: a name that is not known, or a generator that draws on another device.
    """
    if callable(kind):
        return kind(like, generator)
    check_generator(generator, like)
    if kind == "rademacher":
        signs = torch.randint(0, 2, like.shape, generator=generator, device=like.device)
        return signs.to(like.dtype) * 2 - 1
    if kind == "gaussian":
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    raise InputError(f"unknown noise '{kind}' (known: gaussian, rademacher)")


def check_generator(generator: torch.Generator | None, like: Tensor) -> None:
    """Check that a generator draws where the flow is, whose tensor (…) `like` is.

    Raises:
        InputError: it draws on another device.
    """
    if generator is not None and generator.device.type != like.device.type:
        raise InputError(
            f"generator draws on the device {generator.device}, the flow is on {like.device}; give "
            f"torch.Generator('{like.device}')"
        )


def divergence_rule(
    kind: DivergenceKind | DivergenceRule | None, noise: str | Drawer, like: Tensor, generator: torch.Generator | None
) -> DivergenceRule | None:
    """The rule that a name stands for, its probes drawn for points `like` (B, D); a rule and None are left as they are.

    Raises:
        InputError: a name that is not known.
    """
    if kind is None or callable(kind):
        return kind
    if kind == "hutchinson":
        return Hutchinson(draw_noise(noise, like, generator or torch.default_generator))
    if kind != "exact":
        raise InputError(f"unknown divergence '{kind}' (known: exact, hutchinson)")
    return exact
