"""zuko's CNF with the weights of one of our flows.

With `freqs=0` its time embedding is empty, so the field is the same network as ours, and the same weights fit.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softplus": nn.Softplus, "relu": nn.ReLU, "silu": nn.SiLU}
DIFFERENCES = (
    "zuko and ours: same weights, exact divergence, float32; its: dopri5, checkpointed adjoint, first step 1, "
    "the largest single entry's error below the tolerance (of the trace below 100 times it)"
)


def require_zuko() -> None:
    """Raise InputError where zuko is not installed."""
    if importlib.util.find_spec("zuko") is None:
        raise InputError(
            "zuko is not installed: pip install -c constraints.txt -e '.[bench]', or choose works with --only"
        )


class ZukoCNF:
    """The same density as `flow`, by zuko.

    Attributes:
        evaluations: of the field, by all solves so far.
    """

    def __init__(self, flow: Flow, tolerance: float) -> None:
        """Take over the weights of `flow`: one block, no time input, no base.

        Raises:
            InputError: zuko is missing, or the flow is another one.
        """
        require_zuko()
        from zuko.flows import CNF

        blocks = flow.chain()
        field = blocks[0].field
        if len(blocks) != 1 or not isinstance(field, MLPField) or field.time != "none" or field.base != "none":
            raise InputError("zuko's CNF holds a flow of one MLP block without time input and base")
        self.cnf: Any = CNF(
            field.dim,
            hidden_features=tuple(field.hidden),
            activation=ACTIVATIONS[field.activation],
            freqs=0,
            atol=tolerance,
            rtol=tolerance,
            exact=True,
        )
        self.cnf.to(next(flow.parameters()).dtype)
        linears = [layer for layer in self.cnf.transform.ode if hasattr(layer, "weight")]
        with torch.no_grad():
            for theirs, ours in zip(linears, field.linear_layers(), strict=True):
                theirs.weight.copy_(ours.weight)
                theirs.bias.copy_(ours.bias)
        self.evaluations = 0
        self.cnf.transform.ode.register_forward_pre_hook(self._count)

    def log_prob(self, rows: Tensor) -> Tensor:
        """log p (B,) of rows (B, D)."""
        found: Tensor = self.cnf().log_prob(rows)
        return found

    def sample(self, n: int) -> Tensor:
        """n samples (n, D)."""
        found: Tensor = self.cnf().sample((n,))
        return found

    def _count(self, module: nn.Module, inputs: object) -> None:
        self.evaluations += 1
