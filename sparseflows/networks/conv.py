"""Small convolutional networks: rows (B, D) that are square images of one channel → logits (B, classes)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from sparseflows.errors import lookup
from sparseflows.networks.dense import ACTIVATIONS, Layers, dense_layers


def conv_network(
    dim: int,
    channels: Sequence[int],
    hidden: Sequence[int],
    classes: int,
    activation: str = "relu",
    batch_norm: bool = False,
) -> nn.Sequential:
    """For k = 1, 2, …: conv<k> (3 × 3, zero padding 1), its norm, activation and maximum over 2 × 2; then dense layers.

    Every maximum halves the side, rounded down. Rows are folded into images inside, so that the network takes what
    all others take.

    Args:
        dim: D, the pixels: a square number.
        channels: of each convolution.
        hidden: neurons of each hidden dense layer that follows.
        classes: logits.
        activation: relu, tanh, sigmoid, softplus or silu.
        batch_norm: between a convolution or hidden layer and its activation.
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
    layers.update(dense_layers(n_in * side * side, hidden, classes, activation, batch_norm))
    return nn.Sequential(layers)
