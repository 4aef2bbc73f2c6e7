"""The divergence of an MLP field with few, large operations: what a Hessian-vector product spends its time in.

An activation with its tangents is (x, u) -> (σ(x), σ′(x) u). Left to autograd, its two backward passes take
some forty small operations a layer; written out they take a dozen. Only two derivatives are written out,
which is what a product needs: a third raises.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sparseflows.flow.divergence import Divergence, exact
from sparseflows.flow.fields import Field, MLPField, gaussian_velocity

Derivatives = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def _sigmoid(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    s = torch.sigmoid(x)
    first = s * (1 - s)
    return s, first, first * (1 - 2 * s), first * (1 - 6 * first)


def _tanh(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = torch.tanh(x)
    first = 1 - y * y
    return y, first, -2 * y * first, first * (4 - 6 * first)


def _softplus(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    s, first, second, _ = _sigmoid(x)
    return F.softplus(x), s, first, second


def _relu(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    zero = torch.zeros_like(x)
    return torch.relu(x), (x > 0).to(x.dtype), zero, zero


def _silu(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    s, q, dq, ddq = _sigmoid(x)  # x·s(x): each derivative is n·s⁽ⁿ⁻¹⁾ + x·s⁽ⁿ⁾
    return x * s, s + x * q, 2 * q + x * dq, 3 * dq + x * ddq


DERIVATIVES: dict[str, Derivatives] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "softplus": _softplus,
    "relu": _relu,
    "silu": _silu,
}


class _Activate(torch.autograd.Function):
    """(x, u) -> (σ(x), σ′(x) u), x (B, n), u (K, B, n); d1, d2, d3 (B, n) are σ′, σ″, σ‴ at x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, y: Tensor, d1: Tensor, d2: Tensor, d3: Tensor) -> Any:
        ctx.save_for_backward(x, u, d1, d2, d3)
        return y.clone(), d1 * u

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, u, d1, d2, d3 = ctx.saved_tensors
        g, w = grads
        if torch.is_grad_enabled():
            x_bar, u_bar = _ActivateBack.apply(x, u, g, w, d1, d2, d3)
        else:
            x_bar, u_bar, _ = _back(u, g, w, d1, d2)
        return x_bar, u_bar, None, None, None, None


class _ActivateBack(torch.autograd.Function):
    """The backward pass of `_Activate` as a function of its own: (x, u, g, w) -> (x̄, ū)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, u: Tensor, g: Tensor, w: Tensor, d1: Tensor, d2: Tensor, d3: Tensor
    ) -> tuple[Tensor, Tensor]:
        x_bar, u_bar, uw = _back(u, g, w, d1, d2)
        ctx.save_for_backward(u, g, w, uw, d1, d2, d3)
        return x_bar, u_bar

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, b: Tensor) -> Any:
        u, g, w, uw, d1, d2, d3 = ctx.saved_tensors
        ad2 = a * d2
        x_grad = a * torch.addcmul(d3 * uw, d2, g) + d2 * (b * w).sum(0)
        u_grad = ad2 * w
        g_grad = a * d1
        w_grad = torch.addcmul(ad2 * u, d1, b)
        return x_grad, u_grad, g_grad, w_grad, None, None, None


def _back(u: Tensor, g: Tensor, w: Tensor, d1: Tensor, d2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # x̄ = σ′g + σ″ Σ_k u_k w_k, ū = σ′w; the sum is wanted again.
    uw = (u * w).sum(0)
    return torch.addcmul(d1 * g, d2, uw), d1 * w, uw


def activate(name: str, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """σ(x) (B, n) and σ′(x)·u for tangents u (K, B, n); differentiable twice."""
    with torch.no_grad():
        values = DERIVATIVES[name](x)
    value, pushed = _Activate.apply(x, u, *values)
    return value, pushed


def exact_divergence(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """`flow.divergence.exact` at t (), z (B, D), by the operations above where `field` is an MLP.

    The Frobenius norm is left out (0).
    """
    if not isinstance(field, MLPField) or not field.hidden or not field.is_plain():
        return exact(field, t, z)
    *inner, last = field.linear_layers()
    h, u = z, torch.eye(z.shape[1], dtype=z.dtype, device=z.device).unsqueeze(1)
    for layer in inner:
        x, u = layer.tangents(t, h, u)
        h, u = activate(field.activation, x, u.expand(u.shape[0], *x.shape))
    f, u = last.tangents(t, h, u)
    trace = torch.diagonal(u, dim1=0, dim2=2).sum(-1)
    if field.base != "none":
        rate = gaussian_velocity(t)
        f, trace = f + rate * z, trace + rate * z.shape[1]
    return Divergence(f, trace, torch.zeros_like(trace))
