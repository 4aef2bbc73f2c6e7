"""All parameters of a module as one vector: an optimiser step is then a handful of operations, not some a parameter."""

from collections.abc import Sequence

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
        for parameter, values, gradient in zip(
            self.parameters, self._views(self.vector.data), self._views(self.vector.grad), strict=True
        ):
            parameter.data, parameter.grad = values, gradient

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

    def gradients_of(self, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        """The gradient of each of `tensors`, in its shape; None of one that is not trained here."""
        by_id = {id(p): view for p, view in zip(self.parameters, self._views(self.gradient), strict=True)}
        return [by_id.get(id(tensor)) for tensor in tensors]

    def spread(self, entries: Sequence[tuple[Tensor, Tensor]]) -> Tensor | None:
        """One vector, uint8 (P,), of parameters and the entries of each that are True in a tensor of its shape.

        None where there are no parameters.
        """
        if not entries:
            return None
        vector = self.gradient.new_zeros(len(self.vector), dtype=torch.uint8)
        by_id = {id(p): view for p, view in zip(self.parameters, self._views(vector), strict=True)}
        for parameter, chosen in entries:
            by_id[id(parameter)].logical_or_(chosen)
        return vector

    def holds(self, tensor: Tensor) -> bool:
        """Is `tensor` (…) one of the parameters that are trained here?"""
        return any(tensor is parameter for parameter in self.parameters)

    def _views(self, vector: Tensor) -> list[Tensor]:
        """A vector (P,) as tensors in the shapes of the parameters."""
        parts = vector.split([p.numel() for p in self.parameters])
        return [part.view(p.shape) for part, p in zip(parts, self.parameters, strict=True)]

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None
