"""Flows of some tens of params, their Hessians by `torch.autograd.functional`, settings of a run of seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from support.truths import normal
from torch import Tensor, nn

from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise

WHITENING = torch.tensor([[1.4, -0.3], [0.2, 0.9]], dtype=torch.float64)

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0],
    "data": {"name": "gaussian_spiral", "n_train": 60},
    "flow": {"hidden": [6, 6], "activation": "silu", "time": "concat"},
    "train": {"objective": "flow_matching", "steps": 30, "batch": 32, "lr": 0.02},
    "prune": {"methods": ["unstructured", "structured"], "keep_ratios": [0.6], "retrain": {"steps": 10}},
    "evaluate": {"max_rows": 40},
}


def tiny_flow(
    hidden: tuple[int, ...] = (5, 5),
    activation: str = "tanh",
    time: str = "concat",
    *,
    blocks: int = 1,
    train_end_time: bool = False,
    whitening: Tensor | None = None,
    seed: int = 0,
) -> Flow:
    """A flow in two dimensions, float64; trained end times are not 1."""
    fields = [MLPField(2, hidden, activation, time) for _ in range(blocks)]
    flow = Flow(fields, train_end_time=train_end_time, whitening=whitening)
    seeded_initialise(flow, seed, 2.0)
    flow = flow.double()
    for number, block in enumerate(flow.chain()):
        if block.sqrt_end_time is not None:
            block.sqrt_end_time.data.fill_(0.9 + 0.2 * number)
    return flow


def rows(n: int = 12, seed: int = 3) -> Tensor:
    """(n, 2)."""
    return normal(n, 2, seed=seed)


class _Valued(nn.Module):
    def __init__(self, flow: Flow, value: Callable[[Flow], Tensor]) -> None:
        super().__init__()
        self.flow, self.value = flow, value

    def forward(self) -> Tensor:
        return self.value(self.flow)


def of_vector(flow: Flow, value: Callable[[Flow], Tensor]) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """`value` of a flow as a function of the vector of all its params, and that vector."""
    named = {f"flow.{name}": p.detach() for name, p in flow.named_parameters()}
    module = _Valued(flow, value)

    def function(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in named.values()])
        values = {name: part.view_as(p) for (name, p), part in zip(named.items(), parts, strict=True)}
        result: Tensor = torch.func.functional_call(module, values, ())
        return result

    return function, torch.cat([p.flatten() for p in named.values()])


def autograd_hessian(flow: Flow, value: Callable[[Flow], Tensor]) -> Tensor:
    """The Hessian (P, P) of `value` over all params of `flow`."""
    function, vector = of_vector(flow, value)
    found: Tensor = torch.autograd.functional.hessian(function, vector, vectorize=True)
    return found
