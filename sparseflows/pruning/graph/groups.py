"""All that belongs to a neuron: its row, its bias, its time gates, and the columns of the next layer that read it."""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import TENSORS, Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.chains import Chain, Link, constants_of
from sparseflows.pruning.graph.fields.chains import field_chains, why_no_neurons
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.specs.methods import Kind


@dataclass(frozen=True)
class HiddenLayer:
    """The neurons of one weight layer, `link`, that another one, `next_link`, reads: those that can go."""

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
    if not isinstance(network, Flow):
        return [follow(network)]
    found: list[Chain] = []
    parameters = {name for name, _ in network.named_parameters()}
    for block, field in enumerate(network.fields()):
        if isinstance(field, MLPField):
            found.append(_field_chain(block, field, parameters))
            continue
        try:
            found += field_chains(field, f"blocks.{block}.field", known_dim(network))
        except InputError as error:
            raise InputError(f"block {block}: {error}") from None
    return found


def known_dim(flow: Flow) -> int | None:
    """D, where the fields or the whitening say it."""
    return flow.dim if flow.whitening is None else len(flow.whitening)


def _field_chain(block: int, field: MLPField, parameters: Container[str]) -> Chain:
    if not field.is_plain():
        raise InputError(
            f"block {block}: its weights are masked, computed or hooked by PyTorch's own means; make them its own "
            "before it is pruned: torch.nn.utils.prune.remove, torch.nn.utils.parametrize.remove_parametrizations, or "
            "flow.compact()"
        )
    sigma, links = ACTIVATIONS[field.activation].value, []
    for index, layer in enumerate(field.linear_layers()):
        name = f"blocks.{block}.field.layers.{index}"
        held = (own for own, tensor in zip(TENSORS, layer.tensors(), strict=True) if tensor is not None)
        missing = next((own for own in held if f"{name}.{own}" not in parameters), None)
        if missing is not None:
            raise InputError(
                f"block {block}: layer {index} shares its {missing} with another layer, or holds it as a buffer or a "
                "plain tensor; give it a parameter of its own before it is pruned, as flow.compact() does"
            )
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
                constants=constants_of(layer, [sigma]),
            )
        )
    return tuple(links)


def vector_names(layer: Layer) -> list[str]:
    """Names of the parameters with one entry a neuron: the bias and whatever conditions it on time."""
    return [name for name, parameter in layer.named_parameters() if parameter.ndim == 1]


def hidden_layers(network: nn.Module) -> list[HiddenLayer]:
    """The hidden layers of all chains, in order."""
    return [HiddenLayer(link, following) for chain in chains(network) for link, following in pairwise(chain)]


def removable_layers(network: nn.Module) -> list[HiddenLayer]:
    """The hidden layers of `network`; raises InputError where there are none."""
    layers = hidden_layers(network)
    if layers:
        return layers
    problem = "the network has no hidden layer"
    if isinstance(network, Flow):
        own = next((field for field in network.fields() if not isinstance(field, MLPField)), None)
        if own is not None:
            why = why_no_neurons(own, known_dim(network))
            problem = f"in this flow no Linear layer alone reads another one's neurons ({why})"
    raise InputError(f"{problem}, so it has no neurons to remove; prune its weights instead")


def weight_names(network: nn.Module) -> list[str]:
    """Names of the weights, the only tensors whose entries are scored."""
    return [link.weight for chain in chains(network) for link in chain]


def count_params(network: nn.Module) -> int:
    """Trainable scalars of `network`, masked or not."""
    return sum(parameter.numel() for parameter in network.parameters())


def params_counter(network: nn.Module) -> Callable[[Sequence[int]], int]:
    """`kept` → trainable scalars that `network` would have with `kept[i]` neurons in its i-th hidden layer."""
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
        return params_counter(network)([1] * len(hidden_layers(network)))
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
