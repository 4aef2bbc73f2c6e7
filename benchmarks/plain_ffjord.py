"""The published FFJORD recipe for the toy densities, built plainly from torch and torchdiffeq alone.

Nothing of ours is in its training, so that its time is what a reader of the paper would get: `nn.Sequential` with
sigmoids, one vector-Jacobian product for Hutchinson's estimate (one Gaussian probe a solve), `odeint_adjoint` with
dopri5 at 1e-5, AdamW with a constant rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.specs import FlowSpec

TOLERANCE, BATCH, RATE, DECAY, EPOCHS = 1e-5, 1024, 0.05, 0.01, 100
HIDDEN = (64, 64, 64)


class PlainField(nn.Module):
    """dz/dt = f(z) together with the rate of log p: −tr ∂f/∂z, estimated with the probe `noise`, or exact without one.

    Attributes:
        evaluations: how often it was called, by forward and backward solves alike.
    """

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net
        self.noise: Tensor | None = None
        self.evaluations = 0

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The field, and minus its divergence by one Hutchinson probe."""
        self.evaluations += 1
        with torch.enable_grad():
            z = state[0].requires_grad_(True)
            velocity = self.net(z)
            probes = list(torch.eye(z.shape[1], dtype=z.dtype)) if self.noise is None else [self.noise]
            trace = torch.zeros_like(z[:, 0])
            for one in probes:
                probe = one.expand_as(z)
                (product,) = torch.autograd.grad(velocity, z, probe, create_graph=True)
                trace = trace + (product * probe).sum(1)
        return velocity, -trace


class PlainFFJORD:
    """The flow, its optimiser, and one training step.

    Args:
        seed: of the initial weights, which are those of `ffjord.yaml` with that seed.
        hidden: widths; the activation is the sigmoid.
        gradient: adjoint (the published one), or backprop through the solver.
        tolerance: rtol = atol.
    """

    def __init__(
        self,
        seed: int = 0,
        hidden: Sequence[int] = HIDDEN,
        dim: int = 2,
        gradient: str = "adjoint",
        tolerance: float = TOLERANCE,
    ) -> None:
        widths = [dim, *hidden, dim]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.Sigmoid()]
        self.field = PlainField(nn.Sequential(*layers[:-1]))
        self.copy_from(build_flow(FlowSpec.model_validate({"hidden": list(hidden)}), dim, seed=seed))
        self.odeint = odeint_adjoint if gradient == "adjoint" else odeint
        self.tolerance = tolerance
        self.optimiser = torch.optim.AdamW(self.field.parameters(), lr=RATE, weight_decay=DECAY)
        self.forward_evaluations = self.backward_evaluations = 0  # of the last step

    def log_prob(self, rows: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """log p (B,) of rows (B, D): with one Gaussian probe from `generator`, or with the exact trace without it."""
        self.field.noise = None
        if generator is not None:
            self.field.noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype)
        state = (rows, torch.zeros_like(rows[:, 0]))
        times = torch.tensor([0.0, 1.0], dtype=rows.dtype)
        path, lost = self.odeint(self.field, state, times, rtol=self.tolerance, atol=self.tolerance, method="dopri5")
        z = path[-1]
        return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi)) - lost[-1]

    def step(self, rows: Tensor, generator: torch.Generator) -> float:
        """One training step by NLL; gives the loss."""
        self.optimiser.zero_grad()
        self.field.evaluations = 0
        loss = -self.log_prob(rows, generator).mean()
        self.forward_evaluations = self.field.evaluations
        loss.backward()
        self.backward_evaluations = self.field.evaluations - self.forward_evaluations
        self.optimiser.step()
        return float(loss.detach())

    def linears(self) -> list[nn.Linear]:
        """Its layers in order."""
        return [layer for layer in self.field.net if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def copy_from(self, flow: Flow) -> None:
        """Take over the weights of a flow of one block, sigmoids and no time input."""
        (field,) = flow.fields()
        assert isinstance(field, MLPField)
        for own, layer in zip(self.linears(), field.linear_layers(), strict=True):
            own.weight.copy_(layer.weight)
            own.bias.copy_(layer.bias)

    @torch.no_grad()
    def as_flow(self) -> Flow:
        """The same density as one of our flows, so that the same function checks it."""
        linears = self.linears()
        field = MLPField(linears[0].in_features, [layer.out_features for layer in linears[:-1]], "sigmoid")
        field.to(linears[0].weight.dtype)
        for layer, own in zip(field.linear_layers(), linears, strict=True):
            layer.weight.copy_(own.weight)
            layer.bias.copy_(own.bias)
        return Flow(field)
