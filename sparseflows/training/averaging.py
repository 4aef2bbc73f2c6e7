"""Exponential moving average of the weights."""

from typing import Any

import torch
from torch import nn


class WeightAverage:
    """w̄ ← d w̄ + (1 − d) w after every step, with d = min(decay, (1 + n)/(10 + n)) so that the start is forgotten soon.

    A weight that is 0 at the start and at every step stays exactly 0, so masks need no care here. The averages of the
    parameters that are trained are views of one `vector` (P,), in the order of `flow.parameters()`.
    """

    def __init__(self, flow: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        trained = [p.detach().reshape(-1) for p in flow.parameters() if p.requires_grad]
        self.vector = torch.cat(trained) if trained else torch.empty(0)
        parts = iter(self.vector.split([len(part) for part in trained]))
        self.weights = {
            name: next(parts).view(p.shape) if p.requires_grad else p.detach().clone()
            for name, p in flow.named_parameters()
        }

    @torch.no_grad()
    def update(self, flow: nn.Module) -> None:
        """Take the flow's weights into the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in flow.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, flow: nn.Module) -> None:
        """Give the flow the averaged weights."""
        for name, parameter in flow.named_parameters():
            parameter.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights by name, in their own shapes, for a checkpoint."""
        return {"updates": self.updates, **self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.updates = state["updates"]
        for name, weight in self.weights.items():
            weight.copy_(state[name])
