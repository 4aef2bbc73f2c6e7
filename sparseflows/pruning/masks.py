"""`Masks`: which parameters of a flow are kept, as an object that can be saved, loaded, counted and applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.pruning.groups import Keep, check_keep, hidden_layers


class Masks(Mapping[str, Tensor]):
    """Parameter name → bool tensor of its shape, True where the entry is kept. Names left out are kept whole."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.to(torch.bool) for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @classmethod
    def full(cls, flow: Flow) -> Masks:
        """Masks that keep everything."""
        return cls({name: torch.ones_like(p, dtype=torch.bool) for name, p in flow.named_parameters()})

    def check(self, flow: Flow) -> None:
        """Raise InputError where a name or a shape is not the flow's."""
        parameters = dict(flow.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise InputError(f"the masks name '{name}', which this flow does not have")
            if mask.shape != parameters[name].shape:
                raise InputError(
                    f"the mask of '{name}' has shape {tuple(mask.shape)}; the flow's is {tuple(parameters[name].shape)}"
                )

    @torch.no_grad()
    def apply_(self, flow: Flow) -> None:
        """Set every masked entry of `flow` to exactly 0, in place; raises as `check`."""
        self.check(flow)
        for name, parameter in flow.named_parameters():
            if name in self._tensors:
                parameter.masked_fill_(~self._tensors[name], 0.0)

    def hold_(self, flow: Flow) -> None:
        """Let no gradient reach a masked entry of `flow` again: neither Adam's moments nor a clipped norm see it."""
        self.check(flow)
        for name, parameter in flow.named_parameters():
            if name in self._tensors:
                parameter.register_hook(partial(_cut, self._tensors[name]))

    def kept(self, flow: Flow) -> int:
        """Params of `flow` that stay; raises as `check`."""
        self.check(flow)
        return sum(int(self[n].sum()) if n in self._tensors else p.numel() for n, p in flow.named_parameters())

    def save(self, path: Path | str) -> None:
        """Write as safetensors."""
        save_file({name: mask.contiguous() for name, mask in self.items()}, str(path))

    @classmethod
    def load(cls, path: Path | str) -> Masks:
        """Read what `save` wrote."""
        try:
            return cls(load_file(str(path)))
        except Exception as error:
            raise InputError(f"{path}: not readable as masks ({' '.join(str(error).split())[:100]})") from None


def _cut(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(~mask, 0.0)


def masks_of_neurons(flow: Flow, keep: Keep) -> Masks:
    """The masks that silence the neurons not in `keep`: row, bias, time gates, and the next layer's column.

    The column matters: σ(0) ≠ 0 for sigmoid and softplus, so a neuron without weights still speaks.
    """
    tensors = dict(Masks.full(flow))
    for layer, kept in zip(check_keep(flow, keep), keep, strict=True):
        for name in layer.rows:
            tensors[name][~kept] = False
        tensors[f"{layer.next_name}.weight"][:, ~kept] = False
    return Masks(tensors)


def neurons_of_masks(flow: Flow, masks: Masks) -> Keep:
    """The neurons that `masks` keep: those whose bias is kept. The tensors are the caller's own to change."""
    masks.check(flow)
    return [masks.get(f"{x.name}.bias", torch.ones(x.size, dtype=torch.bool)).clone() for x in hidden_layers(flow)]
