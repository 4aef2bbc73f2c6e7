"""Flows with zeros among their weights, for the tests of what skips them."""

from __future__ import annotations

import torch
from support.truths import generator, normal

from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

GRID = Solver("rk4", steps=4)
WHITENING = ((1.1, 0.2, 0.0), (-0.3, 0.9, 0.1), (0.2, 0.0, 1.3))


def zeroed_field(hidden=(12, 11), shares=0.8, seed=0, activation="tanh", time="concat_squash", base="none", dim=3):
    """A field all of whose parameters are random, then a share of every weight matrix is set to 0."""
    field = MLPField(dim, hidden, activation, time, base).double()
    draws = generator(seed)
    layers = field.linear_layers()
    shares = [shares] * len(layers) if isinstance(shares, float) else shares
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(0, 0.7, generator=draws)
        for layer, share in zip(layers, shares, strict=True):
            layer.weight[torch.rand(layer.weight.shape, generator=draws, dtype=torch.float64) < share] = 0.0
    return field


def zeroed_flow(blocks=2, like=None, **settings):
    """Several such blocks with a whitening, and end times that are not 1."""
    fields = [zeroed_field(seed=block, **settings) for block in range(blocks)]
    flow = Flow(fields, train_end_time=True, whitening=torch.tensor(WHITENING, dtype=torch.float64), solver=GRID)
    flow.double()
    with torch.no_grad():
        for number, block in enumerate(flow.chain()):
            block.sqrt_end_time.fill_(0.9 + 0.2 * number)
    return flow if like is None else flow.to(like)


def points(rows=9, seed=7, dtype=torch.float64):
    """(rows, 3)."""
    return normal(rows, 3, seed=seed, dtype=dtype)
