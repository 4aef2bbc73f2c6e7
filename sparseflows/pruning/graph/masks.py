"""`Masks`: which parameters of a network are kept, as an object that can be saved, loaded, counted and applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.pruning.graph.groups import Keep, by_neuron, check_keep, hidden_layers


class Masks(Mapping[str, Tensor]):
    """Parameter name → bool tensor of its shape, True where the entry is kept. Names left out are kept whole.

    Example:
        >>> network = nn.Linear(3, 2)
        >>> masks = Masks({"weight": torch.tensor([[True, False, True], [False, True, True]])})
        >>> masks
        <Masks: 4 of 6 entries kept>
        >>> masks.kept(network)  # four weights, two biases
        6
        >>> masks.apply_(network)
        >>> int((network.weight == 0).sum())
        2
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: tensor.to(torch.bool) for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        kept = sum(int(tensor.sum()) for tensor in self._tensors.values())
        entries = sum(tensor.numel() for tensor in self._tensors.values())
        return f"<Masks: {kept:,} of {entries:,} entries kept>"

    @classmethod
    def full(cls, network: nn.Module) -> Masks:
        """Masks that keep everything."""
        return cls({name: torch.ones_like(p, dtype=torch.bool) for name, p in network.named_parameters()})

    def check(self, network: nn.Module) -> None:
        """Raise InputError where a name or a shape is not the network's."""
        parameters = dict(network.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise InputError(f"the masks name '{name}', which this network does not have")
            if mask.shape != parameters[name].shape:
                wanted = tuple(parameters[name].shape)
                raise InputError(f"the mask of '{name}' has shape {tuple(mask.shape)}; the network's is {wanted}")

    def apply_(self, network: nn.Module) -> None:
        """Set every masked entry of `network` to exactly 0, in place; raises as `check`."""
        self.keeper(network)(network)

    def keeper(self, network: nn.Module) -> Callable[[nn.Module], None]:
        """`apply_` to `network` for every step of a training: what goes is looked up once. Raises as `check`."""
        pairs = self._masked(network)

        @torch.no_grad()
        def keep(same: nn.Module) -> None:
            for parameter, gone in pairs:
                parameter.masked_fill_(gone, 0.0)

        return keep

    def hold_(self, network: nn.Module) -> None:
        """Let no gradient reach a masked entry of `network` again: neither Adam's moments nor a clipped norm see it."""
        for parameter, gone in self._masked(network):
            parameter.register_hook(partial(torch.masked_fill, mask=gone, value=0.0))

    def _masked(self, network: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters of `network` of which something goes, each with what goes."""
        self.check(network)
        named = [(p, self[name]) for name, p in network.named_parameters() if name in self]
        return [(parameter, ~mask.to(parameter.device)) for parameter, mask in named if not bool(mask.all())]

    def kept(self, network: nn.Module) -> int:
        """Params of `network` that stay; raises as `check`."""
        self.check(network)
        return sum(int(self[n].sum()) if n in self._tensors else p.numel() for n, p in network.named_parameters())

    def to(self, device: torch.device) -> Masks:
        """The same masks on `device`."""
        return Masks({name: mask.to(device) for name, mask in self.items()})

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


def masks_of_neurons(network: nn.Module, keep: Keep) -> Masks:
    """The masks that silence the neurons not in `keep`: row, bias, time gates, and the next layer's columns.

    The columns matter: σ(0) ≠ 0 for sigmoid and softplus, so a neuron without weights still speaks.
    """
    tensors = dict(Masks.full(network))
    for layer, kept in zip(check_keep(network, keep), keep, strict=True):
        for name in layer.rows:
            tensors[name][~kept] = False
        by_neuron(layer.next_link, tensors[layer.next_link.weight])[:, ~kept] = False
    return Masks(tensors)


def neurons_of_masks(network: nn.Module, masks: Masks) -> Keep:
    """The neurons that `masks` keep: those whose bias is kept (without one: any of whose weights is).

    The tensors are the caller's own to change.
    """
    masks.check(network)
    whole = {**Masks.full(network), **masks}
    return [
        whole[link.vectors[0]].clone() if link.vectors else whole[link.weight].flatten(1).any(1)
        for link in (layer.link for layer in hidden_layers(network))
    ]
