"""Shares: how much of a neuron's output a weight, or a unit of the layer before, carries at most.

Weights and activations are each split by sign, so that within each of the four groups (w > 0, a > 0),
(w > 0, a < 0), … nothing cancels, and the products w_ij a_j(x) of a group are parts of a whole (Baykal, Liebenwein
et al. 2019, "SiPPing neural networks"). Biases stay out of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparseflows.errors import InputError

ELEMENTS = 2**19
"""Products held at once: a few MB, so that a block of them stays near the processor."""


def largest_shares(weight: Tensor, inputs: Tensor, per_unit: int = 1) -> Tensor:
    """max over inputs x and sign groups of |w_ij a_j(x)| / Σ_{k in the group} |w_ik a_k(x)|, (n_out, C / per_unit).

    With `per_unit` columns a unit, the products of a unit's columns are summed within the group before the division;
    a unit whose columns lie in several groups counts in each, and its largest share is taken. An empty group gives 0.

    Args:
        weight: (n_out, C), the columns of a unit side by side.
        inputs: what the matrix multiplies, (X, C).
        per_unit: columns of one unit.

    Raises:
        InputError: C differs, is no multiple of `per_unit`, or there is no input.
    """
    check_shapes(weight, inputs, per_unit)
    weight = weight.detach()
    found = weight.new_zeros(weight.shape[0], weight.shape[1] // per_unit)
    parts = [weight.clamp(min=0), (-weight).clamp(min=0)]
    for values in _blocks_of_one_sign(inputs.detach(), per_unit):
        for part in parts:
            for neuron, row in enumerate(part):
                _raise_to_shares(found[neuron], row.view(-1, per_unit), values)
    return found


def check_shapes(weight: Tensor, inputs: Tensor, per_unit: int) -> None:
    """Raise InputError unless `inputs` (X, C), X ≥ 1, go with `weight` (n_out, C) and C is full units."""
    if weight.ndim != 2 or inputs.ndim != 2 or inputs.shape[1] != weight.shape[1] or not len(inputs):
        raise InputError(
            f"inputs of shape {tuple(inputs.shape)} for a weight matrix of shape {tuple(weight.shape)}; "
            "they must be (X, C) and (n_out, C), X at least 1"
        )
    if per_unit < 1 or weight.shape[1] % per_unit:
        raise InputError(f"a weight matrix of {weight.shape[1]} columns has no units of {per_unit} columns each")


def _blocks_of_one_sign(inputs: Tensor, per_unit: int) -> Iterator[Tensor]:
    """|a| of the positive activations, then of the negative ones, a few inputs at a time: (units, per_unit, x)."""
    size = max(1, ELEMENTS // inputs.shape[1])
    for chunk in inputs.T.contiguous().split(size, dim=1):
        for part in (chunk.clamp(min=0), (-chunk).clamp(min=0)):
            if part.any():
                yield part.view(-1, per_unit, part.shape[1])


def _raise_to_shares(found: Tensor, row: Tensor, values: Tensor) -> None:
    """Lift `found` (units,) to the shares in one sign group: row (units, per_unit) ≥ 0, values (units, per_unit, x)."""
    used = row.any(1).nonzero().squeeze(1)
    if not len(used):
        return
    products = values.index_select(0, used).mul_(row[used].unsqueeze(2))  # (used, per_unit, x)
    products = products.sum(1) if row.shape[1] > 1 else products.squeeze(1)
    totals = products.sum(0)
    totals.masked_fill_(totals == 0, torch.inf)  # an empty group: its shares become 0
    found[used] = torch.maximum(found[used], products.div_(totals).amax(1).clamp_(max=1))
