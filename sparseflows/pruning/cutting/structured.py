"""Structured pruning: whole neurons are removed, and the network gets physically smaller."""

import copy
import math
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.compact import with_fields
from sparseflows.pruning.cutting.removal import cut_chain
from sparseflows.pruning.graph.groups import HiddenLayer, Keep, chains, check_keep, params_counter, removable_layers
from sparseflows.pruning.scoring.allocation import best_of_layers, nearest_prefix, put_first, rank
from sparseflows.pruning.scoring.criteria.formulas import neuron_l1

Network = TypeVar("Network", bound=nn.Module)


def choose_neurons(
    network: nn.Module,
    target: int,
    allocation: str = "uniform",
    scores: Sequence[Tensor] | None = None,
    at_least: Sequence[int] | None = None,
) -> Keep:
    """Which neurons stay, so that the network would have `target` params, or as near as whole neurons allow.

    Args:
        network: a flow, or any module that can be followed.
        target: params to keep.
        allocation: `uniform`, the same share of every hidden layer, or `global`, one ranking over all.
        scores: one tensor (size,) a hidden layer, higher stays; the ℓ₁ norm of a neuron's incoming weights by default.
        at_least: neurons that stay in each hidden layer whatever their rank; 1 by default.

    Raises:
        InputError: scores that do not fit the network.
    """
    layers = removable_layers(network)
    if scores is None:
        parameters = dict(network.named_parameters())
        scores = [neuron_l1(parameters[layer.link.weight].flatten(1)) for layer in layers]
    scores = [score.detach().cpu() for score in scores]  # chosen there, wherever the network is
    _check_scores(layers, scores)
    sizes = [layer.size for layer in layers]
    least = [min(max(n, 1), size) for n, size in zip(at_least or [1] * len(sizes), sizes, strict=True)]
    order = put_first(rank(scores, allocation), best_of_layers(scores, least))

    def keep_for(n: int) -> Keep:
        flat = torch.zeros(len(order), dtype=torch.bool)
        flat[order[:n]] = True
        return list(flat.split(sizes))

    params = params_counter(network)
    n = nearest_prefix(sum(least), len(order), lambda n: params([int(kept.sum()) for kept in keep_for(n)]), target)
    return keep_for(n)


def _check_scores(layers: Sequence[HiddenLayer], scores: Sequence[Tensor]) -> None:
    if len(scores) != len(layers):
        raise InputError(f"scores of {len(scores)} layers were given; the network has {len(layers)} hidden ones")
    for layer, score in zip(layers, scores, strict=True):
        if score.shape != (layer.size,):
            raise InputError(f"the scores of {layer.name} have shape {tuple(score.shape)}, not ({layer.size},)")
        if not bool(torch.isfinite(score).all()):
            raise InputError(f"a score of {layer.name} is not finite; every neuron needs a number")


def floor_of(sizes: Sequence[int], share: float) -> list[int]:
    """Neurons that each layer keeps at least: `share` of its `sizes`, rounded up, never less than 1."""
    return [max(1, math.ceil(share * size - 1e-9)) for size in sizes]


def shrink(network: Network, keep: Keep) -> Network:
    """A smaller copy of `network`: rows, biases, time gates, batch norms' entries and next columns are cut out.

    It computes what `masks_of_neurons(network, keep)` applied to `network` computes.

    Args:
        network: left as it is.
        keep: for every hidden layer a bool tensor (size,): which neurons stay.

    Returns:
        The same classes and names; parameters require gradients where they did.

    Raises:
        InputError: `keep` does not fit the network, or empties a layer, or the network cannot be followed, or a field
            of one's own needs the old sizes.
    """
    check_keep(network, keep)
    if isinstance(network, Flow):  # what is no tensor, its solver and standardiser, is the same object
        smaller = cast(Network, with_fields(network, [copy.deepcopy(field) for field in network.fields()]))
    else:
        smaller = copy.deepcopy(network)
    remaining = iter(keep)
    for chain in chains(network):
        cut_chain(smaller, chain, [next(remaining) for _ in chain[1:]])
    chains(smaller)  # evaluates fields of one's own: one that needs the old sizes is refused here
    return smaller
