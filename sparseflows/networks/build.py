"""Classifiers as layers by name: multilayer perceptrons, and small convolutional networks on square images.

They are made from settings or from stored tensors; this is the only place that knows their architecture by name.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.rng import torch_generator
from sparseflows.specs import NetworkSpec

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
}

FOREIGN = "these tensors do not belong to a network of these settings"


def build_network(spec: NetworkSpec, dim: int, classes: int, seed: int) -> nn.Module:
    """A dense classifier (B, dim) → logits (B, classes) as the settings describe it, its weights drawn from `seed`.

    Raises:
        InputError: fewer than two classes; a conv network on rows that are no square images, or too small for it.
    """
    if classes < 2:
        raise InputError(f"a classifier of {classes} classes: at least 2 are needed")
    network = _empty(spec, dim, spec.channels, spec.hidden, classes)
    seeded_initialise(network, seed)
    return network


def network_from_tensors(spec: NetworkSpec, tensors: Mapping[str, Tensor], dim: int | None = None) -> nn.Module:
    """The network whose `state_dict` is `tensors`: widths come from the tensors, so shrunk networks load too.

    Args:
        spec: kind, activation, batch norm and the number of layers.
        tensors: as `state_dict` gave them.
        dim: D. A conv network's tensors do not tell it where a side is odd; None takes the smallest that fits.

    Raises:
        InputError: the tensors are not those of such a network.
    """
    convs, linears = (_weights(tensors, kind) for kind in ("conv", "linear"))
    if (len(convs), len(linears)) != (len(spec.channels), len(spec.hidden) + 1):
        raise InputError(
            f"{FOREIGN}: {len(convs)} conv and {len(linears)} linear layers, wanted {len(spec.channels)} and "
            f"{len(spec.hidden) + 1}"
        )
    channels, widths = ([len(weight) for weight in weights] for weights in (convs, linears))
    if dim is None:
        dim = linears[0].shape[-1]
        if convs:
            dim = (math.isqrt(dim // channels[-1]) << len(channels)) ** 2
    network = _empty(spec, dim, channels, widths[:-1], widths[-1]).to(linears[-1].dtype)
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise InputError(f"{FOREIGN} ({' '.join(str(error).split())})") from None
    return network


def seeded_initialise(network: nn.Module, seed: int) -> None:
    """Draw all weights and biases, uniform in ±1/√fan-in (PyTorch's own rule), a generator of its own for each layer.

    Batch norms start at weight 1, bias 0 and fresh statistics.
    """
    weighted = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for index, layer in enumerate(weighted):
            bound, generator = 1 / math.sqrt(layer.weight[0].numel()), torch_generator(seed, f"initialise/{index}")
            for parameter in (layer.weight, layer.bias):
                if parameter is not None:
                    parameter.uniform_(-bound, bound, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()


def _weights(tensors: Mapping[str, Tensor], kind: str) -> list[Tensor]:
    """The weights of conv1, conv2, … or linear1, linear2, …, in their order."""
    found = {
        int(m[1]): tensor for name, tensor in tensors.items() if (m := re.fullmatch(rf"{kind}(\d+)\.weight", name))
    }
    return [found[number] for number in sorted(found)]


def _empty(spec: NetworkSpec, dim: int, channels: Sequence[int], hidden: Sequence[int], classes: int) -> nn.Module:
    """Its weights are whatever PyTorch's global generator gives; its state is put back."""
    with torch.random.fork_rng(devices=[]):
        if spec.kind == "dense":
            return dense_network(dim, hidden, classes, spec.activation, spec.batch_norm)
        try:
            spec.sides(dim)
        except ValueError as error:
            raise InputError(str(error)) from None
        return conv_network(dim, channels, hidden, classes, spec.activation, spec.batch_norm)


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
    layers: OrderedDict[str, nn.Module] = OrderedDict()
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
    layers: OrderedDict[str, nn.Module] = OrderedDict(image=nn.Unflatten(1, (1, side, side)))
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
