"""Classifiers as layers by name: multilayer perceptrons, and small convolutional networks on square images."""

from __future__ import annotations

import math
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


def dense_network(
    dim: int, hidden: Sequence[int], classes: int, activation: str = "relu", batch_norm: bool = False
) -> nn.Sequential:
    """A multilayer perceptron, rows (B, dim) → logits (B, classes).

    For k = 1, 2, …: linear<k>, its norm and its activation; the last linear layer stands alone.

    Args:
        dim: columns that the first layer reads.
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
        layers[f"linear{number}"] = nn.Linear(dim, width)
        if batch_norm:
            layers[f"linear{number}_norm"] = nn.BatchNorm1d(width)
        layers[f"linear{number}_{activation}"] = make()
        dim = width
    layers[f"linear{len(hidden) + 1}"] = nn.Linear(dim, classes)
    return nn.Sequential(layers)


def conv_network(
    dim: int,
    channels: Sequence[int],
    hidden: Sequence[int],
    classes: int,
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Sequential:
    """A convolutional network, rows (B, dim) that are square images of one channel → logits (B, classes).

    For k = 1, 2, …: conv<k> (3 × 3, zero padding 1), its norm, activation and maximum over 2 × 2; then the layers of
    `dense_network`. Every maximum halves the side, rounded down. Rows are folded into images inside, so that the
    network takes what all others take.

    Args:
        dim: the pixels, a square number.
        channels: of each convolution.
        hidden, classes, activation, batch_norm: as of `dense_network`.
    """
    side, n_in = math.isqrt(dim), 1
    layers: Layers = OrderedDict(image=nn.Unflatten(1, (1, side, side)))
    make = lookup("activation", activation, ACTIVATIONS)
    for number, width in enumerate(channels, 1):
        layers[f"conv{number}"] = nn.Conv2d(n_in, width, 3, padding=1)
        if batch_norm:
            layers[f"conv{number}_norm"] = nn.BatchNorm2d(width)
        layers[f"conv{number}_{activation}"] = make()
        layers[f"conv{number}_pool"] = nn.MaxPool2d(2)
        n_in, side = width, side // 2
    layers["flat"] = nn.Flatten()
    layers.update(dense_network(n_in * side * side, hidden, classes, activation, batch_norm).named_children())
    return nn.Sequential(layers)
