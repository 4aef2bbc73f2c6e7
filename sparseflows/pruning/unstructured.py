"""Unstructured pruning: single weights go; what they leave without a path goes with them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.allocation import largest_prefix, put_first, rank
from sparseflows.pruning.groups import count_params, layer_name, mlp_fields, vector_names, weight_names
from sparseflows.pruning.masks import Masks
from sparseflows.pruning.scores import magnitude


def prune_weights(flow: Flow, masks: Masks, target: int) -> Masks:
    """Mask the smallest weights of `flow`, over all layers together, until `target` params are left.

    Counted are all params. A neuron without a path to the output is masked whole; so is one without a path
    from the input, after its constant output has been folded into the next bias, which leaves the function
    as it was. Time is an input: a neuron that sees t is not constant. The strongest path through each
    block is kept, so no layer vanishes; where `target` cannot be reached (biases alone may exceed it) the
    nearest count is taken.

    Args:
        flow: changed in place: masked entries become 0, biases take up folded constants.
        masks: of the stage before; what they mask stays masked.
        target: params to keep.

    Returns:
        The new masks.
    """
    parameters = dict(flow.named_parameters())
    names = weight_names(flow)
    scores = [magnitude(parameters[name]).masked_fill(~masks[name], -1.0) for name in names]
    protected = _strongest_paths(flow, scores)
    order = put_first(rank(scores, "global"), protected)
    alive = sum(int((score >= 0).sum()) for score in scores)

    def masks_for(entries: Tensor) -> Masks:
        flat = torch.zeros(len(order), dtype=torch.bool)
        flat[entries] = True
        parts = flat.split([score.numel() for score in scores])
        return Masks({name: part.view_as(s) for name, part, s in zip(names, parts, scores, strict=True)})

    def left_by(entries: Tensor) -> Masks:
        return _without_dead_neurons(flow, masks_for(entries))

    def count(entries: Tensor) -> int:
        return left_by(entries).kept(flow)

    n = largest_prefix(len(protected), alive, lambda n: count(order[:n]), target)
    chosen, missing = order[:n], target - count(order[:n])
    if missing > 0 and n < alive:
        # The next weight would bring a whole neuron back: pass over it to those between neurons that live anyway.
        living = _between_living(flow, left_by(chosen))[order[n:alive]]
        chosen = torch.cat([chosen, order[n:alive][living][:missing]])
        if target - count(chosen) > max(1, count_params(flow) // 1000):
            # They do not suffice: take it, and let the weakest go for it.
            above = order[: n + 1]
            left = left_by(above)
            living = torch.cat([left[name].flatten() for name in names])
            removable = above[len(protected) :].flip(0)
            above = _thinned(above, removable[living[removable]], count, target)
            chosen = min(chosen, above, key=lambda entries: abs(count(entries) - target))
    weights = masks_for(chosen)
    masks = _without_dead_neurons(flow, weights)
    weights.apply_(flow)
    _fold_constants(flow, weights)
    masks.apply_(flow)
    return masks


def _thinned(entries: Tensor, removable: Tensor, count: Callable[[Tensor], int], target: int) -> Tensor:
    """`entries` without those of `removable`, one after the other, that leave a count of `target` at least."""
    for entry in removable:
        fewer = entries[entries != entry]
        counted = count(fewer)
        if counted >= target:
            entries = fewer
        if counted == target:
            break
    return entries


def _strongest_paths(flow: Flow, scores: list[Tensor]) -> Tensor:
    """Indices, into the concatenated scores, of each block's path whose weakest weight is strongest.

    Keeping all weights above a threshold keeps some path exactly as long as it keeps this one, so the
    choice changes nothing until the last path would break.
    """
    chosen: list[int] = []
    offset, position = 0, 0
    for field in mlp_fields(flow):
        layers = scores[position : position + len(field.linear_layers())]
        best = torch.full((layers[0].shape[1],), torch.inf, dtype=layers[0].dtype)
        choices = []
        for score in layers:
            best, choice = torch.minimum(best, score).max(1)
            choices.append(choice)
        neuron = int(best.argmax())
        ends = offset + torch.tensor([0, *[s.numel() for s in layers]]).cumsum(0)
        for score, choice, start in reversed(list(zip(layers, choices, ends.tolist(), strict=False))):
            source = int(choice[neuron])
            chosen.append(start + neuron * score.shape[1] + source)
            neuron = source
        offset = int(ends[-1])
        position += len(layers)
    return torch.tensor(chosen)


def _without_dead_neurons(flow: Flow, weights: Masks) -> Masks:
    """Masks over all parameters: `weights`, less everything on no path from the inputs to the outputs."""
    tensors: dict[str, Tensor] = {}
    for block, field in enumerate(mlp_fields(flow)):
        names = [layer_name(block, i) for i in range(len(field.linear_layers()))]
        masks = [weights[f"{name}.weight"] for name in names]
        reached = _reached(field, masks)
        alive = [torch.ones(masks[0].shape[1], dtype=torch.bool)]  # the inputs
        needed = torch.ones(masks[-1].shape[0], dtype=torch.bool)  # the outputs
        backwards = [needed]
        for mask in reversed(masks[1:]):
            needed = mask[needed].any(0)
            backwards.append(needed)
        for r, n in zip(reached[:-1], reversed(backwards[1:]), strict=True):
            alive.append(r & n)
        alive.append(backwards[0])
        for layer, name, mask, before, after in zip(
            field.linear_layers(), names, masks, alive, alive[1:], strict=False
        ):
            tensors[f"{name}.weight"] = mask & after[:, None] & before[None, :]
            for own in vector_names(layer):
                tensors[f"{name}.{own}"] = after.clone()
    return Masks(tensors)


def _between_living(flow: Flow, masks: Masks) -> Tensor:
    """For every entry of the concatenated weight matrices: do both of its ends still live under `masks`?"""
    parts = []
    for block, field in enumerate(mlp_fields(flow)):
        before = torch.ones(field.dim, dtype=torch.bool)
        for index in range(len(field.linear_layers())):
            after = masks[f"{layer_name(block, index)}.bias"]
            parts.append((after[:, None] & before[None, :]).flatten())
            before = after
    return torch.cat(parts)


def _reached(field: MLPField, masks: list[Tensor]) -> list[Tensor]:
    """For each layer, which of its neurons see an input: a coordinate of z, or t."""
    reached = []
    seen = torch.ones(masks[0].shape[1], dtype=torch.bool)
    for layer, mask in zip(field.linear_layers(), masks, strict=True):
        seen = mask[:, seen].any(1)
        if layer.time_bias is not None:
            seen = torch.ones_like(seen)
        reached.append(seen)
    return reached


@torch.no_grad()
def _fold_constants(flow: Flow, weights: Masks) -> None:
    """Add the output of every neuron that sees no input to the biases that read it, and cut it off."""
    for block, field in enumerate(mlp_fields(flow)):
        sigma = ACTIVATIONS[field.activation].value
        layers = field.linear_layers()
        reached = _reached(field, [weights[f"{layer_name(block, i)}.weight"] for i in range(len(layers))])
        for layer, following, seen in zip(layers, layers[1:], reached, strict=False):
            constant = ~seen
            following.bias.add_(following.weight[:, constant] @ sigma(layer.bias[constant]))
            following.weight[:, constant] = 0.0
