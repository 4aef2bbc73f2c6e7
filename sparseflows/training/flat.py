"""All parameters of a module as one vector: an optimiser step is then a handful of operations, not some a parameter."""

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError


class FlatParameters:
    """A vector that the module's parameters, and their gradients, are views of until `release`.

    The optimisers here treat every entry alike, so a step on the vector is a step on each parameter.

    Raises:
        InputError: all parameters are frozen.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        if not self.parameters:
            raise InputError(
                "nothing of the network can be trained: all its params are frozen; network.requires_grad_()"
            )
        with torch.no_grad():
            self.vector = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in self.parameters]))
        self.vector.grad = torch.zeros_like(self.vector)
        sizes = [p.numel() for p in self.parameters]
        views = zip(self.parameters, self.vector.data.split(sizes), self.vector.grad.split(sizes), strict=True)
        for parameter, values, gradient in views:
            parameter.data, parameter.grad = values.view(parameter.shape), gradient.view(parameter.shape)

    @property
    def gradient(self) -> Tensor:
        """The gradient (P,) of the vector, which holds those of all parameters."""
        assert self.vector.grad is not None
        return self.vector.grad

    def zero_gradients(self) -> None:
        """Set all gradients to 0, in place."""
        self.gradient.zero_()

    def clip(self, largest: float) -> None:
        """Scale the gradient down to the norm `largest` where it is longer."""
        gradient = self.gradient
        gradient.mul_((largest / (gradient.norm() + 1e-6)).clamp_(max=1.0))

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None
