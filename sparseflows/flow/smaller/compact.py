"""A flow without its dead neurons: those that nothing reads, and those that are constant, folded into the next bias."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.fields import Layer, MLPField

AnyFlow = TypeVar("AnyFlow", bound=BaseFlow)


def compact(flow: AnyFlow) -> AnyFlow:
    """A new flow that computes what `flow` computes, to rounding, without the neurons that do nothing.

    A neuron goes where no path of nonzero weights leads from it to the output. One that sees neither z nor t
    is constant: what it sends on is added to the biases that read it, then it goes too. A layer all of whose
    neurons would go keeps one, which nothing reads. Masks and parametrizations of `torch.nn.utils` are carried
    out first. Fields that are no `MLPField`, and those with hooks that compute more than a weight, are copied as
    they are.

    Args:
        flow: masked or not; it is left as it is.

    Returns:
        A flow of the same class, blocks, end times, whitening, solver and standardiser.
    """
    return with_fields(flow, [_compact(field) for field in flow.fields()])


def _compact(field: nn.Module) -> nn.Module:
    plain = field
    if isinstance(field, MLPField) and not field.is_plain():
        plain = field.plain_copy() or field
    return compact_field(plain) if isinstance(plain, MLPField) and plain.is_plain() else deep_copy(field)


@torch.no_grad()
def compact_field(field: MLPField) -> MLPField:
    """A new field that computes what `field` computes, without the neurons that do nothing; see `compact`."""
    folded = field.with_own_tensors()  # what is folded into one layer must not reach another that shares the tensor
    fold_constants_(folded)
    return cut_field(folded, needed_neurons(folded))


@torch.no_grad()
def fold_constants_(field: MLPField) -> None:
    """Add what the constant neurons send on to the biases that read it, and cut them off, in place.

    y = (W h + b) ⊙ sigmoid(w_g t + b_g) + w_b t: a constant part of h belongs to b, gates or not.
    """
    sigma = ACTIVATIONS[field.activation].value
    for layer, following in pairwise(field.linear_layers()):
        constant, gate = _constant(layer), layer.gate(layer.bias.new_zeros(()))
        at_rest = layer.bias if gate is None else layer.bias * gate  # y for h = 0 and t = 0
        following.bias.add_(following.weight[:, constant] @ sigma(at_rest[constant]))
        following.weight[:, constant] = 0.0


def needed_neurons(field: MLPField) -> list[Tensor]:
    """For each hidden layer, which neurons reach the output over nonzero weights: bool (n,), one True at least."""
    kept: list[Tensor] = []
    needed: Tensor | None = None
    for layer in reversed(field.linear_layers()[1:]):
        weight = layer.weight if needed is None else layer.weight[needed]
        needed = (weight != 0).any(0)
        if not needed.any():
            needed[0] = True  # a layer cannot be empty
        kept.insert(0, needed)
    return kept


@torch.no_grad()
def cut_field(field: MLPField, keep: Sequence[Tensor]) -> MLPField:
    """A new field with the neurons of `keep` only, for each hidden layer a bool tensor (n,)."""
    layers = field.linear_layers()
    ends = torch.ones(field.dim, dtype=torch.bool, device=layers[0].weight.device)
    smaller = MLPField(field.dim, [int(kept.sum()) for kept in keep], field.activation, field.time, field.base)
    smaller.to(layers[0].weight)
    sides = pairwise([ends, *keep, ends])
    for old, new, (columns, rows) in zip(layers, smaller.linear_layers(), sides, strict=True):
        for own, given in zip(new.tensors(), old.tensors(), strict=True):
            if own is not None and given is not None:
                own.copy_(given[rows][:, columns] if given.ndim == 2 else given[rows])
    return smaller


def with_fields(flow: AnyFlow, fields: Sequence[nn.Module]) -> AnyFlow:
    """A new flow of the same class, with `fields` in the place of `flow`'s own; all else is copied."""
    whitening = None if flow.whitening is None else flow.whitening.clone()
    new = type(flow)(list(fields), whitening=whitening, solver=flow.solver)
    for old, block in zip(flow.chain(), new.chain(), strict=True):
        if old.sqrt_end_time is not None:
            block.sqrt_end_time = nn.Parameter(old.sqrt_end_time.detach().clone())
    new.standardiser, new.columns = flow.standardiser, getattr(flow, "columns", None)
    return new.train(flow.training)


def _constant(layer: Layer) -> Tensor:
    """(n,) bool: neurons that read no input and whose value does not change with t."""
    still = (layer.weight == 0).all(1)
    if layer.time_bias is not None:
        still &= layer.time_bias == 0
    if layer.gate_weight is not None:
        still &= (layer.gate_weight == 0) | (layer.bias == 0)
    return still
