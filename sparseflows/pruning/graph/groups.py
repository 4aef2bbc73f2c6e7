"""All that belongs to a neuron: its row, its bias, its time gates, and the columns of the next layer that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.chains import Chain, Link
from sparseflows.specs.methods import Kind


@dataclass(frozen=True)
class HiddenLayer:
    """The neurons of one weight layer that another one reads: those that can go.

    Attributes:
        block, index: its chain (a flow's block), and its place there.
        link: the layer.
        next_link: the layer that reads it.
    """

    block: int
    index: int
    link: Link
    next_link: Link

    @property
    def name(self) -> str:
        """Prefix of its parameters."""
        return self.link.name

    @property
    def size(self) -> int:
        """How many neurons it has."""
        return self.link.n_out

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the parameters that hold one row or entry a neuron."""
        return (self.link.weight, *self.link.vectors)


Keep = list[Tensor]
"""For each hidden layer, in the order of `hidden_layers`, a bool tensor (size,): which neurons stay."""


def chains(network: nn.Module) -> list[Chain]:
    """The chains of weight layers of `network`: of a flow's fields in order, or the one of any other module.

    An `MLPField` is one chain; a field of one's own may have several (see `field_chains`).

    Raises:
        InputError: layers that cannot be followed; the first is named.
    """
    if isinstance(network, Flow):
        return [chain for block in range(len(network.blocks)) for chain in block_chains(network, block)]
    from sparseflows.pruning.graph.modules.chains import follow  # torch.fx loads slowly, and flows do not need it

    return [follow(network).links]


def block_chains(flow: Flow, block: int) -> list[Chain]:
    """The chains of one block of a flow; raises as `chains`."""
    field = flow.chain()[block].field
    if isinstance(field, MLPField):
        return [_field_chain(block, field)]
    from sparseflows.pruning.graph.fields.chains import field_chains  # torch.fx takes a while to load here too

    try:
        return field_chains(field, f"blocks.{block}.field", known_dim(flow))
    except InputError as error:
        raise InputError(f"block {block}: {error}") from None


def known_dim(flow: Flow) -> int | None:
    """D, where the fields or the whitening say it."""
    return flow.dim if flow.whitening is None else len(flow.whitening)


def _field_chain(block: int, field: MLPField) -> Chain:
    if not field.is_plain():
        raise InputError(
            f"block {block}: its weights are masked, computed or hooked by PyTorch's own means; make them its own "
            "before it is pruned: torch.nn.utils.prune.remove, torch.nn.utils.parametrize.remove_parametrizations, or "
            "flow.compact()"
        )
    layers, sigma = field.linear_layers(), ACTIVATIONS[field.activation].value
    links = []
    for index, layer in enumerate(layers):
        name = layer_name(block, index)
        links.append(
            Link(
                name=name,
                kind="linear",
                weight=f"{name}.weight",
                vectors=tuple(f"{name}.{own}" for own in vector_names(layer)),
                n_in=layer.weight.shape[1],
                n_out=layer.weight.shape[0],
                bias=f"{name}.bias",
                sees_time=layer.time_bias is not None,
                constants=partial(_constants, layer, sigma),
            )
        )
    return tuple(links)


def _constants(layer: Layer, sigma: Callable[[Tensor], Tensor]) -> Tensor:
    return sigma(layer.bias.detach())


def layer_name(block: int, index: int) -> str:
    """Prefix of a layer's parameters in `Flow.state_dict()`."""
    return f"blocks.{block}.field.layers.{index}"


def vector_names(layer: Layer) -> list[str]:
    """Names of the parameters with one entry a neuron: the bias and whatever conditions it on time."""
    return [name for name, parameter in layer.named_parameters() if parameter.ndim == 1]


def hidden_layers(network: nn.Module) -> list[HiddenLayer]:
    """The hidden layers of all chains, in order."""
    return [
        HiddenLayer(block, index, link, following)
        for block, chain in enumerate(chains(network))
        for index, (link, following) in enumerate(pairwise(chain))
    ]


def weight_names(network: nn.Module) -> list[str]:
    """Names of the weights, the only tensors whose entries are scored."""
    return [link.weight for chain in chains(network) for link in chain]


def count_params(network: nn.Module) -> int:
    """Trainable scalars of `network`, masked or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def params_with(network: nn.Module, kept: Sequence[int]) -> int:
    """Trainable scalars that `network` would have with `kept[i]` neurons in its i-th hidden layer."""
    return params_counter(network)(kept)


def params_counter(network: nn.Module) -> Callable[[Sequence[int]], int]:
    """`params_with` for many counts: `network` is followed once."""
    whole, ways = count_params(network), chains(network)

    def params(kept: Sequence[int]) -> int:
        remaining = iter(kept)
        total = whole
        for chain in ways:
            n_in = chain[0].n_in
            for link in chain:
                n_out = link.n_out if link is chain[-1] else next(remaining)
                total += _link_params(link, n_in, n_out) - _link_params(link, link.n_in, link.n_out)
                n_in = n_out
        return total

    return params


def least_params(network: nn.Module, kind: Kind) -> int:
    """The fewest params that leave no layer empty: one neuron a layer, or one path of single weights a chain.

    Every output keeps its bias, whether a weight leads to it or not.
    """
    if kind == "neurons":
        return params_with(network, [1] * len(hidden_layers(network)))
    total = count_params(network)
    for chain in chains(network):
        for link in chain:
            neurons = link.n_out if link is chain[-1] else 1
            total += 1 + neurons * len(link.vectors) - _link_params(link, link.n_in, link.n_out)
    return total


def _link_params(link: Link, n_in: int, n_out: int) -> int:
    return n_out * (n_in * link.per_neuron + len(link.vectors))


def by_neuron(link: Link, tensor: Tensor) -> Tensor:
    """A tensor of the weight's shape (n_out, …) as (n_out, n_in, per_neuron): the same memory where contiguous."""
    return tensor.view(link.n_out, link.n_in, link.per_neuron)


def check_keep(network: nn.Module, keep: Keep) -> list[HiddenLayer]:
    """The hidden layers of `network`, once `keep` is known to fit them.

    Raises:
        InputError: another number of layers or neurons, or a layer that would vanish.
    """
    layers = hidden_layers(network)
    if len(keep) != len(layers):
        raise InputError(f"keep has {len(keep)} layers; the network has {len(layers)} hidden ones")
    for layer, kept in zip(layers, keep, strict=True):
        if kept.shape != (layer.size,) or kept.dtype != torch.bool:
            raise InputError(f"keep of {layer.name} must be a bool tensor of shape ({layer.size},)")
        if not kept.any():
            raise InputError(f"{layer.name} would lose all its neurons; keep one at least")
    return layers
