"""Multilayer perceptrons: rows (B, D) → logits (B, classes)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from sparseflows.errors import lookup

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}

Layers = OrderedDict[str, nn.Module]


def dense_layers(n_in: int, hidden: Sequence[int], classes: int, activation: str, batch_norm: bool) -> Layers:
    """The layers by name: for k = 1, 2, …, linear<k>, its norm and its activation; the last linear layer stands alone.

    Args:
        n_in: columns that the first layer reads.
        hidden: neurons of each hidden layer.
        classes: neurons of the last layer, which gives the logits.
        activation: relu, tanh, sigmoid, softplus or silu.
        batch_norm: between a hidden layer and its activation (Ioffe & Szegedy 2015).

    Raises:
        InputError: an unknown activation.
    """
    make = lookup("activation", activation, ACTIVATIONS)
    layers: Layers = OrderedDict()
    for number, width in enumerate(hidden, 1):
        # With a bias under batch norm, too: it takes up what constant neurons of the layer before sent.
        layers[f"linear{number}"] = nn.Linear(n_in, width)
        if batch_norm:
            layers[f"linear{number}_norm"] = nn.BatchNorm1d(width)
        layers[f"linear{number}_{activation}"] = make()
        n_in = width
    layers[f"linear{len(hidden) + 1}"] = nn.Linear(n_in, classes)
    return layers


def dense_network(
    dim: int, hidden: Sequence[int], classes: int, activation: str = "relu", batch_norm: bool = False
) -> nn.Sequential:
    """A multilayer perceptron: (B, dim) → (B, classes); arguments as of `dense_layers`."""
    return nn.Sequential(dense_layers(dim, hidden, classes, activation, batch_norm))
