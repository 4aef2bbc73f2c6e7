"""What the continuous adjoint cannot do, said where it is asked: no second derivative, no gradient beside its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sparseflows.errors import InputError

State = tuple[Tensor, ...]


def once_differentiable(tensor: Tensor) -> Tensor:
    """`tensor` (…) itself, whose gradient refuses to be made with `create_graph=True`.

    Raises:
        InputError: in the backward pass, where a graph of the gradient is asked for.
    """
    found: Tensor = _OnceDifferentiable.apply(tensor)
    return found


class _OnceDifferentiable(torch.autograd.Function):
    """The end of a solve whose gradient is an adjoint's: a number without a graph, whatever `create_graph` says."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise InputError(
                "create_graph=True asks for the graph of a gradient, and that of the adjoint has none: a penalty on it "
                "would do nothing; solve with Solver(gradient='backprop')"
            )
        return above


def checked_rates(
    function: Callable[[Tensor, State], State], t: Tensor, state: State, parameters: Sequence[Tensor]
) -> State:
    """The rates at t () and `state`, in its shapes, once they are known to depend on nothing an adjoint leaves out.

    Raises:
        InputError: they depend on a tensor that needs a gradient and is neither the state nor one of `parameters`, of
            any shapes: its gradient would be None.
    """
    with torch.enable_grad():
        start = tuple(tensor.detach().requires_grad_(True) for tensor in state)
        rates = function(t, start)
    known = {id(tensor) for tensor in (*start, *parameters)}
    seen = {tensor.grad_fn for tensor in parameters}
    waiting = [rate.grad_fn for rate in rates]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise InputError(
                f"the field depends on a tensor of shape {tuple(leaf.shape)} that needs a gradient and is no parameter "
                "of it, which the adjoint cannot give; register it with the field, or solve with "
                "Solver(gradient='backprop')"
            )
        waiting += [following for following, _ in node.next_functions]
    return tuple(rate.detach() for rate in rates)
