"""What the criteria need to know of a layer, gathered from what was observed there. Tensors in, tensors out.

Shapes: N examples; S evaluations of the layer an example (positions of a convolution, time points of a flow, and
the tangents that its divergence needs); C columns of the weight matrix; n_out its rows; n_in the neurons of the layer
before, C = n_in · per_neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.pruning.observing.shares import check_shapes, largest_shares

ELEMENTS = 2**22
"""Entries of per-example gradients held at once."""


ExampleLoss = Callable[[Tensor], Tensor]
"""What a network that is no density gives for N examples → each example's loss (N,)."""


@dataclass(frozen=True)
class Observed:
    """A chunk of the sample, as one weight layer saw it.

    Attributes:
        inputs: what the weight matrix multiplied, (N, S, C).
        gradients: of the example's *own* loss with respect to the products W a, (N, S, n_out); None without a loss.
        values: the first so many of S are values of the network. The others are tangents, which count in gradients
            but are no activations: no shares and no means are taken of them.
    """

    inputs: Tensor
    gradients: Tensor | None
    values: int


@dataclass(frozen=True)
class Statistics:
    """One layer over the whole sample.

    Attributes:
        weight, per_neuron: the layer's matrix (n_out, C), and how many of its columns read one neuron.
        examples: N.
        means: mean activation over examples and values, (C,).
        inputs: the activations themselves, (N · values, C).
        mean_gradient: mean over examples of G_n = Σ_s δ_s a_sᵀ, (n_out, C); None without a loss, as the next two.
        squared_gradients: Σ_n G_n², (n_out, C).
        contributions: Σ over s and over a neuron's columns of a · (Wᵀδ), (N, n_in): the derivative of each example's
            loss by a gate on that neuron of the layer before.
    """

    weight: Tensor
    per_neuron: int
    examples: int
    means: Tensor
    inputs: Tensor
    mean_gradient: Tensor | None = None
    squared_gradients: Tensor | None = None
    contributions: Tensor | None = None

    @cached_property
    def shares(self) -> Tensor:
        """Largest share of each weight over examples and values, (n_out, C); computed when first asked for."""
        return largest_shares(self.weight, self.inputs)

    @cached_property
    def neuron_shares(self) -> Tensor:
        """The same of whole neurons of the layer before, (n_out, n_in)."""
        return self.shares if self.per_neuron == 1 else largest_shares(self.weight, self.inputs, self.per_neuron)

    @classmethod
    def of(cls, weight: Tensor, observed: Observed, per_neuron: int = 1) -> Statistics:
        """The statistics of one chunk.

        Args:
            weight: (n_out, C), the columns that read one neuron of the layer before side by side.
            observed: at this layer.
            per_neuron: columns of one neuron: 1 for neurons, a kernel's size for channels.

        Raises:
            InputError: shapes that do not go together, or an observation that is not finite.
        """
        _check(weight, observed)
        weight = weight.detach()
        inputs = observed.inputs[:, : observed.values].detach().flatten(0, 1)
        check_shapes(weight, inputs, per_neuron)
        found = cls(weight, per_neuron, len(observed.inputs), inputs.mean(0), inputs)
        if observed.gradients is None:
            return found
        size = max(1, ELEMENTS // weight.numel())
        pairs = zip(observed.gradients.detach().split(size), observed.inputs.detach().split(size), strict=True)
        return found.with_gradients(delta.transpose(1, 2) @ a for delta, a in pairs)

    def with_gradients(self, chunks: Iterable[Tensor]) -> Statistics:
        """The same, and what they lacked of gradients: `chunks` of all examples' G_n are (n, n_out, C)."""
        total, squares = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        parts = []
        for own in chunks:
            total += own.sum(0)
            squares += own.square().sum(0)
            # Σ_s a_sc (Wᵀδ_s)_c = Σ_i W_ic G_n,ic: no second pass over the positions.
            parts.append((self.weight * own).sum(1).unflatten(1, (-1, self.per_neuron)).sum(2))
        mean, contributions = total / self.examples, torch.cat(parts)
        return replace(self, mean_gradient=mean, squared_gradients=squares, contributions=contributions)

    def merged(self, other: Statistics) -> Statistics:
        """The statistics of this chunk and, after it, of `other`: those of one chunk, to rounding.

        Raises:
            InputError: the two are of different layers, or only one has gradients.
        """
        if self.weight.shape != other.weight.shape or self.per_neuron != other.per_neuron:
            raise InputError(
                f"statistics of a layer of shape {tuple(self.weight.shape)} cannot be merged with those of one "
                f"of shape {tuple(other.weight.shape)}; merge chunks of one layer"
            )
        if (self.mean_gradient is None) != (other.mean_gradient is None):
            raise InputError("one chunk has gradients and the other has none; give a loss for all or for none")
        examples = self.examples + other.examples
        share = self.examples / examples
        rows = len(self.inputs) / (len(self.inputs) + len(other.inputs))
        return replace(
            self,
            examples=examples,
            mean_gradient=_joined(lambda a, b: torch.lerp(b, a, share), self.mean_gradient, other.mean_gradient),
            squared_gradients=_joined(torch.add, self.squared_gradients, other.squared_gradients),
            contributions=_joined(lambda a, b: torch.cat([a, b]), self.contributions, other.contributions),
            means=torch.lerp(other.means, self.means, rows),
            inputs=torch.cat([self.inputs, other.inputs]),
        )


def _joined(how: Callable[[Tensor, Tensor], Tensor], first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else how(first, second)


def checked_losses(losses: Tensor, examples: int) -> Tensor:
    """`losses` (N,) themselves, once there is one for each of N examples; else InputError."""
    if losses.shape != (examples,):
        raise InputError(f"the loss has shape {tuple(losses.shape)}; give each example's own: ({examples},)")
    return losses


def _check(weight: Tensor, observed: Observed) -> None:
    inputs, gradients = observed.inputs, observed.gradients
    if weight.ndim != 2 or inputs.ndim != 3 or inputs.shape[2] != weight.shape[1]:
        raise InputError(
            f"observed inputs of shape {tuple(inputs.shape)} at a weight matrix of shape {tuple(weight.shape)}; "
            "they must be (N, S, C) and (n_out, C)"
        )
    if not inputs.shape[0] or not 1 <= observed.values <= inputs.shape[1]:
        raise InputError(
            f"{observed.values} values among observed inputs of shape {tuple(inputs.shape)}; "
            "there must be an example, and at least 1 and at most S values"
        )
    if gradients is not None and gradients.shape != (*inputs.shape[:2], weight.shape[0]):
        raise InputError(
            f"observed gradients have shape {tuple(gradients.shape)}; beside inputs of shape {tuple(inputs.shape)} "
            f"they must have {(*inputs.shape[:2], weight.shape[0])}"
        )
    if not inputs.isfinite().all() or (gradients is not None and not gradients.isfinite().all()):
        raise InputError("an observed input or gradient is infinite or not a number; prune a network that is finite")
