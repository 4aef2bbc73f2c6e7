"""What an objective gives: a value to differentiate, what it cost, and how its solve ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseflows.flow.solvers.ode import Status


@dataclass(frozen=True)
class Loss:
    """A loss to differentiate, the evaluations of the field it took, and how its solve ended."""

    value: Tensor
    nfe: int
    status: Status


def with_gradients(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """`value` (), with `gradients` for its derivatives by `inputs`, in their shapes; it has no second derivative."""
    result: Tensor = _Known.apply(value, len(inputs), *inputs, *gradients)
    return result


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, inputs: int, *tensors: Tensor) -> Tensor:
        ctx.gradients = tensors[inputs:]
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        found = [gradient * above for gradient in ctx.gradients]
        return None, None, *found, *(None for _ in found)
