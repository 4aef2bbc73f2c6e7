"""Pruning while training: one neuron, or an equal share of the weights, every few steps.

What is gone already is read off the network itself (its parameters are exactly 0), so a training that resumes
from a checkpoint takes the same things away at the same steps.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparseflows.pruning.cutting.structured import floor_of
from sparseflows.pruning.cutting.unstructured import prune_weights
from sparseflows.pruning.graph.groups import Keep, hidden_layers, params_counter
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons
from sparseflows.pruning.methods import METHODS, Pruned, without_neurons
from sparseflows.pruning.observing.observe import Sample
from sparseflows.pruning.scoring.criteria import score


@dataclass(frozen=True)
class Gradual:
    """How a network is pruned within one training.

    Neurons: each time the lowest-scoring one of the layer that has the largest share of its dense neurons left.
    Weights: the params fall linearly to the target; masked ones stay 0.

    Attributes:
        method: one of `METHODS` that keeps what scores highest.
        dense: the dense network.
        target: params to keep in the end.
        every: training steps from one event to the next.
        weight_steps: training steps that weights are given; neurons take `every` each.
        sample: what the criterion looks at, where it does.
        weight_allocation, floor: see `methods.prune`.
        seed: of the methods that draw.
    """

    method: str
    dense: nn.Module
    target: int
    every: int
    weight_steps: int
    sample: Sample | None = None
    weight_allocation: str = "global"
    floor: float = 0.0
    seed: int = 0

    @property
    def by_neurons(self) -> bool:
        """Whether neurons go, or weights."""
        return METHODS[self.method].kind == "neurons"

    @property
    def spacing(self) -> int:
        """Steps from one event to the next: `every`, and no more than there are steps."""
        return self.every if self.by_neurons else min(self.every, max(1, self.weight_steps))

    def steps(self, before: Pruned[nn.Module]) -> int:
        """Training steps that pruning `before` down to the target takes."""
        if self.by_neurons:
            return self.every * max(1, len(self._leaving(before.flow)))
        return max(1, self.weight_steps)

    def begin(self, before: Pruned[nn.Module], saved: Mapping[str, Any] | None) -> Callable[[nn.Module], None]:
        """What to call after every training step: holds what is gone at 0, and takes more away when it is time.

        Args:
            before: what the stage begins with.
            saved: the checkpoint that its training goes on from; what is gone by then is exactly 0 in it.
        """
        leaving = self._leaving(before.flow) if self.by_neurons else []
        params, masks, step = before.params, before.masks, 0
        if saved is not None:
            names = {name for name, _ in before.flow.named_parameters()}
            masks = Masks({name: tensor != 0 for name, tensor in saved["model"].items() if name in names})
            step = saved["step"]

        def after_step(network: nn.Module) -> None:
            nonlocal masks, step
            step += 1
            if masks is not None:
                masks.apply_(network)
            event, since = divmod(step, self.spacing)
            if since == 0 and not self.by_neurons:
                masks = self._mask(network, event, params)
            elif since == 0 and event <= len(leaving):
                masks = self._silence(network, leaving[event - 1])

        return after_step

    def finish(self, trained: Pruned[nn.Module]) -> Pruned[nn.Module]:
        """What is left at the end of the training: neurons that went are taken out."""
        network = trained.flow
        if not self.by_neurons:
            masks = _of_zeros(network)
            return Pruned(network, masks, masks)
        return without_neurons(network, _living(network), trained, self.dense)

    def _leaving(self, network: nn.Module) -> list[int]:
        """The hidden layer that each event takes a neuron from."""
        whole = [layer.size for layer in hidden_layers(self.dense)]
        least = floor_of(whole, self.floor)
        sizes = [layer.size for layer in hidden_layers(network)]
        params = params_counter(network)
        leaving: list[int] = []
        while params(sizes) > self.target:
            able = [i for i, size in enumerate(sizes) if size > least[i]]
            if not able:
                break
            layer = max(able, key=lambda i: (sizes[i] / whole[i], -i))
            smaller = [size - (i == layer) for i, size in enumerate(sizes)]
            if abs(params(smaller) - self.target) > params(sizes) - self.target:
                break  # this one would lead away from the target
            sizes = smaller
            leaving.append(layer)
        return leaving

    def _silence(self, network: nn.Module, layer: int) -> Masks:
        keep = _living(network)
        scores = list(self._scores(network).values())[layer]
        scores = scores.masked_fill(~keep[layer].cpu(), math.inf)
        keep[layer][int(scores.argmin())] = False
        masks = masks_of_neurons(network, keep)
        masks.apply_(network)
        return masks

    def _mask(self, network: nn.Module, event: int, params: int) -> Masks:
        events = max(1, self.weight_steps // self.spacing)
        target = round(params - (params - self.target) * min(1.0, event / events))
        return prune_weights(
            network, _of_zeros(network), target, self._scores(network), self.weight_allocation, self.floor
        )

    def _scores(self, network: nn.Module) -> dict[str, torch.Tensor]:
        return score(METHODS[self.method].criterion, network, self.sample, seed=self.seed)


def _of_zeros(network: nn.Module) -> Masks:
    return Masks({name: parameter.detach() != 0 for name, parameter in network.named_parameters()})


def _living(network: nn.Module) -> Keep:
    """The neurons of which any parameter is not 0."""
    not_0 = _of_zeros(network)
    return [
        torch.stack([not_0[name].reshape(layer.size, -1).any(1) for name in layer.rows]).any(0)
        for layer in hidden_layers(network)
    ]
