"""What every weight layer of a module of Linear and Conv2d layers sees of a sample, and the gradients there."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.pruning.graph.modules.passages import WeightLayer
from sparseflows.pruning.graph.modules.trace import evaluating
from sparseflows.pruning.observing.statistics import ExampleLoss, Observed, checked_losses


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
