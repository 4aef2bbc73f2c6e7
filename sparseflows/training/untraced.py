"""PyTorch's optimisers without `torch._dynamo`, the machinery of torch.compile: importing it takes longer than a start.

`torch.optim` hides its methods from a tracer, and imports the tracer to do so, at the first one that is made. Nothing
here is compiled by it. So these classes call the same methods as they were before they were hidden; where PyTorch
hides them otherwise one day, the import comes back and nothing else changes.
"""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer


class _Untraced(Optimizer):
    """An optimiser whose methods are not hidden from a tracer; its class is named before the one of PyTorch."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    _bare_step: ClassVar[Callable[..., Any]]

    def __init_subclass__(cls) -> None:
        cls._bare_step = inspect.unwrap(super().step)

    def step(self, closure: Any = None) -> Any:
        """One step by the gradients; none of its operations is recorded."""
        with torch.no_grad():
            return self._bare_step(closure)


class SGD(_Untraced, torch.optim.SGD):
    """`torch.optim.SGD`, number for number."""


class Adam(_Untraced, torch.optim.Adam):
    """`torch.optim.Adam`, number for number."""


class AdamW(_Untraced, torch.optim.AdamW):
    """`torch.optim.AdamW`, number for number."""
