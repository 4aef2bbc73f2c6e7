"""One pass of a small sample through a network: the statistics of every weight layer, which the criteria need.

The loss of a flow is −log p; for a classifier it is the cross-entropy. All is computed in float64, on a copy.
"""

import copy
import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.groups import chains, hidden_layers, weight_names
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.pruning.graph.modules.passages import WeightLayer
from sparseflows.pruning.graph.modules.trace import evaluating
from sparseflows.pruning.observing.flows import observe_flow
from sparseflows.pruning.observing.statistics import ExampleLoss, Observed, Statistics, checked_losses


@dataclass(frozen=True)
class Sample:
    """What a criterion may look at.

    Attributes:
        rows: (N, D) inputs.
        loss: see `ExampleLoss`. None: a flow is judged by −log p, any other network is observed without gradients.
        fresh: rows (M, D) that no criterion looks at: sipp and pfp check there what they promise.
    """

    rows: Tensor
    loss: ExampleLoss | None = None
    fresh: Tensor | None = None


def classification_loss(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of each example (B,), for labels (N,): the loss of a `Sample` whose rows come in that order."""
    return functools.partial(_cross_entropy, labels=labels.long())


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if len(labels) != len(logits):
        raise InputError(f"{len(labels)} labels for a sample of {len(logits)} rows; give one a row")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise InputError(f"labels of {logits.shape[1]} classes are 0 to {logits.shape[1] - 1}, not {int(labels.max())}")
    return F.cross_entropy(logits, labels.to(logits.device), reduction="none")


def observe(network: nn.Module, sample: Sample, gradients: bool = True) -> list[Statistics]:
    """Statistics of every weight layer of all chains of `network`, in order. `network` is left as it is.

    Args:
        network: a flow, or a module that can be followed.
        sample: its rows are observed.
        gradients: of the loss too, where there is one; they cost a backward pass.

    Raises:
        InputError: an empty sample, rows that do not fit, layers that cannot be followed, or values that are not
            finite.
    """
    if not isinstance(sample.rows, Tensor):
        raise InputError(f"the sample's rows are a {type(sample.rows).__name__}; give a tensor: torch.as_tensor(rows)")
    if sample.rows.ndim < 2 or len(sample.rows) == 0:
        raise InputError(f"the sample has shape {tuple(sample.rows.shape)}; give rows (N, D), N at least 1")
    if not bool(torch.isfinite(sample.rows).all()):
        raise InputError("a row of the sample is not finite; leave it out")
    network = copy.deepcopy(network).double().cpu().requires_grad_(True)
    rows = sample.rows.detach().double().cpu()
    if isinstance(network, Flow):
        return observe_flow(network, rows, sample.loss, gradients)
    links = [link for chain in chains(network) for link in chain]
    return [
        Statistics.of(network.get_parameter(link.weight).flatten(1), seen, link.per_neuron)
        for link, seen in zip(links, record(network, rows, sample.loss if gradients else None), strict=True)
    ]


def observe_readers(network: nn.Module, sample: Sample) -> list[Statistics]:
    """Statistics of the layer that reads each hidden layer, in the order of `hidden_layers`, without gradients."""
    found = dict(zip(weight_names(network), observe(network, sample, gradients=False), strict=True))
    return [found[layer.next_link.weight] for layer in hidden_layers(network)]


class _Watch:
    """Hooks that keep a layer's input, and a zero added to its output to take the gradient at."""

    def __init__(self, name: str, layer: WeightLayer, gradients: bool) -> None:
        self.name, self.layer, self.gradients = name, layer, gradients
        self.input, self.probe = torch.empty(0), torch.empty(0)

    def seen(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        self.input = inputs[0].detach().clone()  # the first one is the caller's own memory
        if not torch.isfinite(self.input).all() or not torch.isfinite(output).all():
            raise InputError(f"the activations at layer '{self.name}' are not finite; check inputs and weights")
        if not self.gradients:
            return None
        self.probe = torch.zeros_like(output, requires_grad=True)
        return output + self.probe


def record(module: nn.Module, inputs: Tensor, loss: ExampleLoss | None = None) -> list[Observed]:
    """One pass of `inputs` through `module` in eval mode, as each of its weight layers saw it.

    In eval mode no example depends on another, so that one backward pass of the summed losses gives every example's
    own gradients, and chunks of a sample give chunks of its result.

    Args:
        module: a chain of Linear and Conv2d layers (`follow`); modes, gradients and hooks are left as they are.
        inputs: (N, …), on the module's device.
        loss: each example's own loss (N,) of the module's output, where gradients are wanted.

    Returns:
        For every link, in order, inputs (N, S, C): S = 1 for a linear layer on (N, C), the positions of a
        convolution, whose patches have the columns of its weight matrix, padding included; and gradients
        (N, S, n_out) with respect to the products W a, which the bias does not change.

    Raises:
        InputError: the module cannot be followed or does not take the inputs, an activation or a gradient is not
            finite (its layer is named), or the loss is not one value an example.
    """
    if inputs.ndim < 2 or len(inputs) == 0:
        raise InputError(f"inputs have shape {tuple(inputs.shape)}; give at least one example: (N, …)")
    watches = []
    for link in follow(module):
        layer = module.get_submodule(link.name)
        assert isinstance(layer, WeightLayer)
        watches.append(_Watch(link.name, layer, loss is not None))
    with ExitStack() as stack:
        stack.enter_context(evaluating(module))
        stack.enter_context(torch.set_grad_enabled(loss is not None))
        for watch in watches:
            stack.callback(watch.layer.register_forward_hook(watch.seen).remove)
        outputs = _outputs(module, inputs)
        gradients = [None] * len(watches) if loss is None else _gradients(loss, outputs, watches)
    return [_observed(watch, gradient) for watch, gradient in zip(watches, gradients, strict=True)]


def _outputs(module: nn.Module, inputs: Tensor) -> Tensor:
    try:
        outputs: Tensor = module(inputs)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{type(module).__name__} does not take inputs {tuple(inputs.shape)} of {inputs.dtype} ({reason})"
        ) from None
    return outputs


def _gradients(loss: ExampleLoss, outputs: Tensor, watches: list[_Watch]) -> list[Tensor | None]:
    losses = checked_losses(loss(outputs), len(outputs))
    if not losses.requires_grad:
        raise InputError("the loss does not depend on the outputs; compute it from them, with gradients on")
    found = torch.autograd.grad(losses.sum(), [watch.probe for watch in watches])
    for watch, gradient in zip(watches, found, strict=True):
        if not torch.isfinite(gradient).all():
            raise InputError(f"the loss's gradients at layer '{watch.name}' are not finite; check loss and weights")
    return list(found)


def _observed(watch: _Watch, gradient: Tensor | None) -> Observed:
    layer, seen = watch.layer, watch.input
    if isinstance(layer, nn.Conv2d):
        seen = patches(layer, seen)
        gradient = None if gradient is None else gradient.flatten(2).transpose(1, 2)
    else:
        seen = seen.reshape(len(seen), -1, layer.in_features)
        gradient = None if gradient is None else gradient.reshape(len(seen), -1, layer.out_features)
    return Observed(seen, gradient, seen.shape[1])


def patches(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """What a convolution's weight matrix (n_out, C) multiplies: (N, channels, H, W) → (N, positions, C).

    C = channels · kernel size, as `weight.flatten(1)` orders them; padding (of any mode), stride and dilation included.
    """
    kernel, dilation = layer.kernel_size, layer.dilation
    if layer.padding == "same":  # an odd number goes below and to the right
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        sides = [(n // 2, n - n // 2) for n in total]
    else:
        sides = [(0, 0)] * 2 if isinstance(layer.padding, str) else [(n, n) for n in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(maps, (*sides[1], *sides[0]), mode=mode)
    return F.unfold(padded, kernel, dilation, stride=layer.stride).transpose(1, 2)
