"""Analytic cases: fields whose flows, log-determinants and densities are known in closed form.

Everything is differentiable, so that gradients have closed forms too. Nothing here imports the package,
except for the tolerances of its solver.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.flow.solvers.ode import Solver

# A rotation that contracts, a shear that expands, and a full matrix that is neither symmetric nor normal.
SPIRAL = ((-0.4, 1.3), (-1.1, 0.2))
SHEAR = ((0.5, 0.9), (0.0, 0.3))
FULL = ((0.3, -0.8, 0.5), (0.2, -0.6, 1.1), (-0.9, 0.4, 0.7))


def tight(like: dict[str, Any], **changes: Any) -> Solver:
    """A solver at 1e-9 a step, which leaves 1e-7 after some tens of steps; or at what float32 can resolve."""
    tol = 1e-9 if like["dtype"] is torch.float64 else 1e-6
    return Solver("dopri5", tol, tol, **changes)


def tolerance(like: dict[str, Any], double: float) -> dict[str, float]:
    """For `torch.testing.assert_close`: `double`, or 1e-3 where the precision is single."""
    value = double if like["dtype"] is torch.float64 else max(double, 1e-3)
    return {"rtol": value, "atol": value}


def generator(seed: int = 0) -> torch.Generator:
    """A CPU generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, **like: Any) -> Tensor:
    """Standard normal draws that are the same for every precision and device."""
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(**like)


# Linear fields -------------------------------------------------------------------------------------------


def linear_map(matrices: Sequence[Tensor], end_times: Sequence[Tensor | float]) -> Tensor:
    """M with z(T) = M x for blocks dz/dt = A z that follow one another: e^{T_n A_n} ⋯ e^{T_1 A_1}."""
    total = torch.eye(len(matrices[0]), dtype=matrices[0].dtype, device=matrices[0].device)
    for matrix, end_time in zip(matrices, end_times, strict=True):
        total = torch.linalg.matrix_exp(end_time * matrix) @ total
    return total


def linear_log_prob(x: Tensor, total: Tensor) -> Tensor:
    """log p (B,) of the density that z = M x turns into a standard normal, from M alone."""
    return gaussian_log_prob(x @ total.T) + torch.linalg.slogdet(total).logabsdet


def gaussian_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) (B,), by PyTorch's own distribution."""
    return torch.distributions.Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z).sum(1)


# A nonlinear field that depends on time ------------------------------------------------------------------


class SineField(nn.Module):
    """dz/dt = 2kt sin z in each coordinate: tan(z/2) grows by e^{kT²}, for |z| < π."""

    def __init__(self, rate: float = 0.8, **like: Any) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate, **like))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return 2 * self.rate * t * torch.sin(z)


def sine_end(x: Tensor, rate: Tensor | float, end_time: Tensor | float = 1.0) -> Tensor:
    """z(T) of `SineField`."""
    growth = torch.exp(torch.as_tensor(rate * end_time**2, dtype=x.dtype, device=x.device))
    return 2 * torch.atan(torch.tan(x / 2) * growth)


def sine_log_det(x: Tensor, rate: Tensor | float, end_time: Tensor | float = 1.0) -> Tensor:
    """log|det ∂z(T)/∂x| (B,): the map is separable, so each factor is sin z(T)/sin x."""
    return torch.log(torch.sin(sine_end(x, rate, end_time)) / torch.sin(x)).sum(1)


# Straight paths from a Gaussian to noise -----------------------------------------------------------------


class StraightGaussian(nn.Module):
    """E[ε − x | (1 − t)x + tε = z] for x ~ N(mean, scale²), ε ~ N(0, 1): its flow is z = (x − mean)/scale."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        variance = (1 - t) ** 2 * self.scale**2 + t**2
        slope = (t - (1 - t) * self.scale**2) / variance
        return slope * (z - (1 - t) * self.mean) - self.mean


# Stochastic traces ---------------------------------------------------------------------------------------


def sign_vectors(dim: int) -> Tensor:
    """All 2^D vectors of signs (2^D, D): averages over them are the exact means over Rademacher probes."""
    return torch.tensor(list(product([-1.0, 1.0], repeat=dim)), dtype=torch.float64)


def rademacher_variance(matrix: Tensor) -> float:
    """Of eᵀAe: 2 Σ_{i≠j} s_ij², s the symmetric part of A."""
    s = (matrix + matrix.T) / 2
    return float(2 * (s.square().sum() - s.diagonal().square().sum()))


def gaussian_variance(matrix: Tensor) -> float:
    """Of eᵀAe for e ~ N(0, I): 2 ‖S‖²_F, S the symmetric part of A."""
    s = (matrix + matrix.T) / 2
    return float(2 * s.square().sum())


# Plain calculus ------------------------------------------------------------------------------------------


def jacobians(function: Any, z: Tensor) -> Tensor:
    """∂function/∂z (B, D, D) of a function of rows, one reverse pass an output (no `torch.func`)."""
    z = z.detach().requires_grad_(True)
    y = function(z)
    rows = [torch.autograd.grad(y[:, i].sum(), z, retain_graph=True)[0] for i in range(y.shape[1])]
    return torch.stack(rows, dim=1)


def square_grid(half_width: float, cells: int, **like: Any) -> tuple[Tensor, float]:
    """Cell centres (cells², 2) of [−half_width, half_width]², and a cell's area."""
    axis = (torch.arange(cells, **like) + 0.5) * (2 * half_width / cells) - half_width
    return torch.cartesian_prod(axis, axis), (2 * half_width / cells) ** 2


def gaussian_entropy(scales: Sequence[float]) -> float:
    """Of a Gaussian with these standard deviations, nats."""
    return sum(0.5 * math.log(2 * math.pi * math.e * scale**2) for scale in scales)
