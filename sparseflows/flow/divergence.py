"""The divergence tr ∂f/∂z of a field: exact, or Hutchinson's estimate of it. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow import shallow
from sparseflows.flow.fields import Field, MLPField


class Divergence(NamedTuple):
    """One evaluation of a field with the trace of its Jacobian.

    velocity: f(t, z), (B, D). trace: tr ∂f/∂z, (B,). frobenius: ‖∂f/∂z‖²_F, (B,), exact or estimated as
    |(∂f/∂z)e|², whose mean over probes e with E[eeᵀ] = I it is.
    """

    velocity: Tensor
    trace: Tensor
    frobenius: Tensor


def exact(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """The trace from all D columns of the Jacobian, in one pass of D tangents."""
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).unsqueeze(1)  # (D, 1, D)
    velocity, columns = field.tangents(t, z, basis)
    trace = torch.diagonal(columns, dim1=0, dim2=2).sum(-1)
    return Divergence(velocity, trace, columns.square().sum((0, 2)))


def exact_trace(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """`exact` without the Frobenius norm (0), which a perceptron of at most two hidden layers has for less."""
    if not shallow.takes(field, t):
        return exact(field, t, z)
    assert isinstance(field, MLPField)
    velocity, trace = shallow.value_and_trace(field, t, z)
    return Divergence(velocity, trace, torch.zeros_like(trace))


@dataclass(frozen=True)
class Hutchinson:
    """Hutchinson's estimate by the same probes (B, D) in every evaluation of a solve."""

    probes: Tensor

    def __call__(self, field: Field, t: Tensor, z: Tensor) -> Divergence:
        """See `hutchinson`."""
        return hutchinson(field, t, z, self.probes)


def hutchinson(field: Field, t: Tensor, z: Tensor, noise: Tensor) -> Divergence:
    """eᵀ(∂f/∂z)e for one probe a row, noise (B, D) (Hutchinson 1990; FFJORD eq. 7)."""
    velocity, pushed = field.tangents(t, z, noise.unsqueeze(0))
    return Divergence(velocity, (pushed[0] * noise).sum(1), pushed[0].square().sum(1))


Drawer = Callable[[Tensor, torch.Generator], Tensor]


def draw_noise(kind: str | Drawer, like: Tensor, generator: torch.Generator) -> Tensor:
    """Probes (B, D) with E[eeᵀ] = I: `rademacher` (±1) or `gaussian`; drawn once for a whole solve.

    A function (like, generator) → probes may stand for the name.
    """
    if callable(kind):
        return kind(like, generator)
    if kind == "rademacher":
        signs = torch.randint(0, 2, like.shape, generator=generator, device=like.device)
        return signs.to(like.dtype) * 2 - 1
    if kind == "gaussian":
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    raise InputError(f"unknown noise '{kind}' (known: gaussian, rademacher)")
