"""The naive twin of every solve on given steps: the textbook loop, left to autograd."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparseflows.flow.divergence import exact, hutchinson
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.tableaus import Tableau


def plain_solve(
    field: MLPField, end_time: Tensor, z: Tensor, steps: Sequence[float], tableau: Tableau, probes: Tensor | None
) -> tuple[Tensor, Tensor]:
    trace, tau = torch.zeros_like(z[:, 0]), 0.0
    for step in steps:
        rates, slopes = [], []
        for row, c in zip(tableau.a, tableau.c, strict=True):
            point = z
            for rate, weight in zip(rates, row, strict=True):
                point = point + step * weight * rate
            t = torch.as_tensor(tau + c * step, dtype=z.dtype) * end_time
            here = exact(field, t, point) if probes is None else hutchinson(field, t, point, probes)
            rates.append(end_time * here.velocity)
            slopes.append(end_time * here.trace)
        z = z + step * sum(b * rate for b, rate in zip(tableau.b, rates, strict=True))
        trace = trace + step * sum(b * slope for b, slope in zip(tableau.b, slopes, strict=True))
        tau += step
    return z, trace


def drawn_field(
    dim: int, hidden: Sequence[int], activation: str, time: str, base: str = "none", seed: int = 0
) -> MLPField:
    """A float64 field whose every parameter is drawn, those that start at zero too."""
    field = MLPField(dim, hidden, activation, time, base).double()
    generator = torch.Generator().manual_seed(seed)
    field.initialise(generator)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return field


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class _NoModules(contextlib.nullcontext):  # type: ignore[type-arg]
    """In place of the counter's tracker of modules, whose global hooks make a field be called layer by layer."""

    parents = ("Global",)

    def __exit__(self, *error: object) -> None:
        return None


def flops(function: Callable[[], Any]) -> int:
    """Operations of a call without gradients; a multiply-add is two."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with torch.no_grad(), counter:
        function()
    return int(counter.get_total_flops())


class CalledTwin(nn.Module):
    """The same field, seen only through its call."""

    dim = 2

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, z: Tensor) -> Any:
        return self.field(t, z)
