"""Structured pruning: whole neurons are removed, and the network gets physically smaller."""

from __future__ import annotations

import torch

from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.allocation import nearest_prefix, put_first, rank
from sparseflows.pruning.groups import Keep, check_keep, hidden_layers, mlp_fields, params_with
from sparseflows.pruning.scores import neuron_l1


def choose_neurons(flow: Flow, target: int, allocation: str = "uniform") -> Keep:
    """Which neurons stay, so that the flow would have `target` params, or as near as whole neurons allow.

    Args:
        flow: scored by the ℓ₁ norm of each neuron's incoming weights.
        target: params to keep.
        allocation: `uniform`, the same share of every hidden layer, or `global`, one ranking over all.
            The best neuron of a layer always stays.
    """
    layers = hidden_layers(flow)
    parameters = dict(flow.named_parameters())
    scores = [neuron_l1(parameters[f"{layer.name}.weight"]) for layer in layers]
    sizes = [layer.size for layer in layers]
    starts = torch.tensor([0, *sizes]).cumsum(0)[:-1]
    best = torch.stack([start + score.argmax() for start, score in zip(starts, scores, strict=True)])
    order = put_first(rank(scores, allocation), best)

    def keep_for(n: int) -> Keep:
        flat = torch.zeros(len(order), dtype=torch.bool)
        flat[order[:n]] = True
        return list(flat.split(sizes))

    def count(n: int) -> int:
        return params_with(flow, [int(kept.sum()) for kept in keep_for(n)])

    return keep_for(nearest_prefix(len(layers), len(order), count, target))


def shrink(flow: Flow, keep: Keep) -> Flow:
    """A new, smaller flow without the neurons not in `keep`: rows, biases, time gates and next columns cut out.

    It computes what `masks_of_neurons(flow, keep)` applied to `flow` computes. `flow` is left as it is.

    Raises:
        InputError: `keep` does not fit the flow, or empties a layer.
    """
    check_keep(flow, keep)
    remaining = iter(keep)
    fields = [_shrink_field(f, [next(remaining) for _ in f.hidden]) for f in mlp_fields(flow)]
    blocks = flow.chain()
    smaller = Flow(
        fields,
        train_end_time=blocks[0].sqrt_end_time is not None,
        whitening=None if flow.whitening is None else flow.whitening.clone(),
        solver=flow.solver,
    ).to(next(flow.parameters()))  # before the end times are copied: they would be rounded to float32
    for old, new in zip(blocks, smaller.chain(), strict=True):
        if old.sqrt_end_time is not None and new.sqrt_end_time is not None:
            new.sqrt_end_time.data.copy_(old.sqrt_end_time.data)
    smaller.standardiser = flow.standardiser
    return smaller


@torch.no_grad()
def _shrink_field(field: MLPField, keep: Keep) -> MLPField:
    layers = field.linear_layers()
    everything = [torch.ones(n, dtype=torch.bool) for n in (field.dim, layers[-1].bias.shape[0])]
    inputs, outputs = [everything[0], *keep], [*keep, everything[1]]
    smaller = MLPField(field.dim, [int(kept.sum()) for kept in keep], field.activation, field.time, field.base)
    smaller.to(layers[0].weight)
    for old, new, columns, rows in zip(layers, smaller.linear_layers(), inputs, outputs, strict=True):
        _copy_layer(old, new, rows, columns)
    return smaller


def _copy_layer(old: Layer, new: Layer, rows: torch.Tensor, columns: torch.Tensor) -> None:
    for name, parameter in old.named_parameters():
        kept = parameter[rows.to(parameter.device)]
        new.get_parameter(name).copy_(kept[:, columns.to(parameter.device)] if parameter.ndim == 2 else kept)
