"""All that belongs to a neuron: its row, its bias, its time gates, and the next layer's column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow


@dataclass(frozen=True)
class HiddenLayer:
    """The neurons of one hidden layer of one block.

    Attributes:
        block, index: its place in the flow.
        name: prefix of its parameters in `Flow.state_dict()`.
        next_name: prefix of the layer that reads it.
        size: how many neurons it has.
        rows: names of the parameters that hold one row or entry a neuron.
    """

    block: int
    index: int
    name: str
    next_name: str
    size: int
    rows: tuple[str, ...]


Keep = list[Tensor]
"""For each hidden layer, in the order of `hidden_layers`, a bool tensor (size,): which neurons stay."""


def mlp_fields(flow: Flow) -> list[MLPField]:
    """The fields of `flow`.

    Raises:
        InputError: one of them is no `MLPField`, so that its layers cannot be followed.
    """
    fields = []
    for index, field in enumerate(flow.fields()):
        if not isinstance(field, MLPField):
            raise InputError(f"block {index} is a {type(field).__name__}; pruning follows the layers of an MLPField")
        fields.append(field)
    return fields


def layer_name(block: int, index: int) -> str:
    """Prefix of a layer's parameters in `Flow.state_dict()`."""
    return f"blocks.{block}.field.layers.{index}"


def vector_names(layer: Layer) -> list[str]:
    """Names of the parameters with one entry a neuron: the bias and whatever conditions it on time."""
    return [name for name, parameter in layer.named_parameters() if parameter.ndim == 1]


def hidden_layers(flow: Flow) -> list[HiddenLayer]:
    """The hidden layers of all blocks, in order."""
    found = []
    for block, field in enumerate(mlp_fields(flow)):
        for index, layer in enumerate(field.linear_layers()[:-1]):
            name = layer_name(block, index)
            rows = tuple(f"{name}.{own}" for own in ("weight", *vector_names(layer)))
            found.append(HiddenLayer(block, index, name, layer_name(block, index + 1), layer.bias.shape[0], rows))
    return found


def weight_names(flow: Flow) -> list[str]:
    """Names of the weight matrices, the only tensors whose entries are scored."""
    return [
        f"{layer_name(block, index)}.weight"
        for block, field in enumerate(mlp_fields(flow))
        for index in range(len(field.linear_layers()))
    ]


def count_params(flow: Flow) -> int:
    """Trainable scalars of `flow`, masked or not."""
    return sum(parameter.numel() for parameter in flow.parameters())


def params_with(flow: Flow, kept: Sequence[int]) -> int:
    """Trainable scalars that `flow` would have with `kept[i]` neurons in its i-th hidden layer."""
    remaining = iter(kept)
    total = sum(p.numel() for block in flow.chain() for n, p in block.named_parameters() if "field." not in n)
    for field in mlp_fields(flow):
        layers = field.linear_layers()
        n_in = layers[0].weight.shape[1]
        for layer in layers:
            n_out = next(remaining) if layer is not layers[-1] else layer.bias.shape[0]
            total += n_out * (n_in + len(vector_names(layer)))
            n_in = n_out
    return total


def check_keep(flow: Flow, keep: Keep) -> list[HiddenLayer]:
    """The hidden layers of `flow`, once `keep` is known to fit them.

    Raises:
        InputError: another number of layers or neurons, or a layer that would vanish.
    """
    layers = hidden_layers(flow)
    if len(keep) != len(layers):
        raise InputError(f"keep has {len(keep)} layers; the flow has {len(layers)} hidden ones")
    for layer, kept in zip(layers, keep, strict=True):
        if kept.shape != (layer.size,) or kept.dtype != torch.bool:
            raise InputError(f"keep of {layer.name} must be a bool tensor of shape ({layer.size},)")
        if not kept.any():
            raise InputError(f"{layer.name} would lose all its neurons; keep one at least")
    return layers
