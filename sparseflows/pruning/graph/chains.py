"""What pruning sees of a network: chains of weight layers, each with all that belongs to its neurons.

A "neuron" here is either a neuron of a linear layer or a channel of a convolution. Whatever computes scores, chooses,
masks or removes works on chains, never on a kind of network.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from sparseflows.errors import InputError
from sparseflows.flow.calls import MAKERS
from sparseflows.flow.fields import Layer

ACTIVATIONS = frozenset(
    ("relu", "relu_", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh", "tanh_", "sigmoid", "sigmoid_")
)
"""Functions and methods of PyTorch that treat every value alike, wherever they stand in a network."""

Step = Callable[[Tensor], Tensor]
"""(n_out,) → (n_out,): what comes out of an operation where every neuron's value is the same everywhere."""


@dataclass(frozen=True)
class Link:
    """One weight layer of a chain.

    Attributes:
        name: of the layer, for messages.
        kind: linear or conv.
        weight: name of its weight among the network's parameters, (n_out, …); seen as a matrix it is
            (n_out, n_in · per_neuron), the columns that read one neuron of the layer before side by side.
        vectors: names of the parameters with one entry a neuron: bias, time gates, a batch norm's weight and bias.
        norms: names of the batch norms that its neurons pass before the next layer.
        n_in, n_out: neurons of the layer before, and its own.
        per_neuron: columns that read one neuron: a kernel's size, or the pixels of a channel that was flattened.
        bias: name of the bias that takes up folded constants; None where there is none.
        sees_time: a neuron that reads no other neuron is not constant, for it reads t.
        foldable: what a constant neuron of the layer before sends here is the same for every output, so that the
            bias can take it up exactly (no zero padding, and there is a bias).
        constants: () → (n_out,), what each neuron would send on were its weights 0.
    """

    name: str
    kind: Literal["linear", "conv"]
    weight: str
    vectors: tuple[str, ...]
    n_in: int
    n_out: int
    per_neuron: int = 1
    norms: tuple[str, ...] = ()
    bias: str | None = None
    sees_time: bool = False
    foldable: bool = True
    constants: Callable[[], Tensor] | None = None


Chain = tuple[Link, ...]
"""Weight layers from input to output; those of all but the last have neurons that can go."""


def constants_of(layer: nn.Linear | nn.Conv2d | Layer, steps: Sequence[Step]) -> Callable[[], Tensor]:
    """() → (n_out,): what each neuron of `layer` sends on through `steps` were its weights 0; read when called."""

    @torch.no_grad()
    def constants() -> Tensor:
        values = layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()
        for step in steps:
            values = step(values)
        return values

    return constants


def check_owned(where: str, layer: nn.Linear | nn.Conv2d, names: Sequence[str], parameters: Container[str]) -> None:
    """Raise InputError unless `layer` has weights, and the `names` of its own are among the network's `parameters`."""
    if isinstance(layer.weight, UninitializedParameter):
        raise InputError(f"{where} has no weights yet: pass one batch through the network first")
    state = vars(layer)
    if "forward" in state or any(state[name] for name in ("_forward_hooks", "_forward_pre_hooks")):
        made = any(isinstance(hook, MAKERS) for hook in state["_forward_pre_hooks"].values())
        if not made:
            raise InputError(
                f"{where} has hooks or a forward of its own, which pruning does not follow; remove them, or make what "
                "they do a module of its own"
            )
    if any(name not in parameters for name in names):
        kinds = " or ".join(name.rpartition(".")[2] for name in names)
        raise InputError(
            f"{where} shares its {kinds} or computes it (a parametrization); pruning follows layers that own "
            "them: give it its own, or remove the parametrization"
        )
