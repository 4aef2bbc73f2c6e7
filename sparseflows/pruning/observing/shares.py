"""Shares: how much of a neuron's output a weight, or a neuron of the layer before, carries at most.

Weights and activations are each split by sign, so that within each of the four groups (w > 0, a > 0),
(w > 0, a < 0), … nothing cancels, and the products w_ij a_j(x) of a group are parts of a whole (Baykal, Liebenwein
et al. 2019, "SiPPing neural networks"). Biases stay out of it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from sparseflows.errors import InputError

ELEMENTS = 2**19
"""Products held at once: a few MB, so that a block of them stays near the processor."""


def largest_shares(weight: Tensor, inputs: Tensor, per_neuron: int = 1) -> Tensor:
    """max over inputs x and sign groups of |w_ij a_j(x)| / Σ_{k in the group} |w_ik a_k(x)|, (n_out, C / per_neuron).

    With `per_neuron` columns a neuron, the products of a neuron's columns are summed within the group before the
    division; a neuron whose columns lie in several groups counts in each, and its largest share is taken. An empty
    group gives 0.

    Args:
        weight: (n_out, C), the columns of a neuron side by side.
        inputs: what the matrix multiplies, (X, C).
        per_neuron: columns of one neuron.

    Raises:
        InputError: C differs, is no multiple of `per_neuron`, or there is no input.
    """
    check_shapes(weight, inputs, per_neuron)
    weight = weight.detach()
    found = weight.new_zeros(weight.shape[0], weight.shape[1] // per_neuron)
    parts = [weight.clamp(min=0), (-weight).clamp(min=0)]
    for values in _blocks_of_one_sign(inputs.detach(), per_neuron):
        for part in parts:
            for neuron, row in enumerate(part):
                _raise_to_shares(found[neuron], row.view(-1, per_neuron), values)
    return found


def check_shapes(weight: Tensor, inputs: Tensor, per_neuron: int) -> None:
    """Raise InputError unless `inputs` (X, C), X ≥ 1, go with `weight` (n_out, C) and C is full neurons."""
    if weight.ndim != 2 or inputs.ndim != 2 or inputs.shape[1] != weight.shape[1] or not len(inputs):
        raise InputError(
            f"inputs of shape {tuple(inputs.shape)} for a weight matrix of shape {tuple(weight.shape)}; "
            "they must be (X, C) and (n_out, C), X at least 1"
        )
    if per_neuron < 1 or weight.shape[1] % per_neuron:
        raise InputError(f"a weight matrix of {weight.shape[1]} columns has no neurons of {per_neuron} columns each")


def _blocks_of_one_sign(inputs: Tensor, per_neuron: int) -> Iterator[Tensor]:
    """|a| of the positive activations, then of the negative ones, a few inputs at a time: (neurons, per_neuron, x)."""
    size = max(1, ELEMENTS // inputs.shape[1])
    for chunk in inputs.T.contiguous().split(size, dim=1):
        for part in (chunk.clamp(min=0), (-chunk).clamp(min=0)):
            if part.any():
                yield part.view(-1, per_neuron, part.shape[1])


def _raise_to_shares(found: Tensor, row: Tensor, values: Tensor) -> None:
    """Lift `found` (n_in,) to the shares in a sign group: row (n_in, per_neuron) ≥ 0, values (n_in, per_neuron, x)."""
    used = row.any(1).nonzero().squeeze(1)
    if not len(used):
        return
    products = values.index_select(0, used).mul_(row[used].unsqueeze(2))  # (used, per_neuron, x)
    products = products.sum(1) if row.shape[1] > 1 else products.squeeze(1)
    totals = products.sum(0)
    totals.masked_fill_(totals == 0, torch.inf)  # an empty group: its shares become 0
    found[used] = torch.maximum(found[used], products.div_(totals).amax(1).clamp_(max=1))
