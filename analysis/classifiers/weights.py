"""Histograms of the weights and of the unit norms that pruning left, over the stages of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.classifiers.plane import Array, Sweep
from analysis.runs.study import survivors
from sparseflows.experiment.loading import load_masks, load_network
from sparseflows.pruning.graph.groups import hidden_layers, weight_names

WEIGHT_BINS, NORM_BINS = 80, 40


@dataclass(frozen=True)
class Left:
    """What is left of a network: the surviving weights of each layer, and the `norms` of each hidden one.

    A norm is ‖w_i‖₁ = Σ_j |w_ij| over the incoming weights, of neurons or channels that have any (Li et al. 2017,
    "Pruning filters for efficient convnets", the criterion l1).
    """

    weights: tuple[Tensor, ...]
    norms: tuple[Tensor, ...]


def left_of(network: nn.Module, masks: Mapping[str, Tensor]) -> Left:
    """The surviving weights of `network`, dense, masked or shrunk, and the norms of its neurons or channels."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    kept = survivors(network, masks)
    norms = []
    for layer in hidden_layers(network):
        name = layer.link.weight
        surviving = kept[name].flatten(1)
        sums = (parameters[name].flatten(1).abs() * surviving).sum(1)
        norms.append(sums[surviving.any(1)])
    return Left(tuple(parameters[name][kept[name]] for name in weight_names(network)), tuple(norms))


def histograms(sweeps: Sequence[Sweep]) -> dict[str, np.ndarray]:
    """Counts of weights and of the norms of neurons, on bins that all stages share.

    Keys, one entry a stage (S of them; a dense network once in every sweep that starts from it): `sweep` (its label),
    `stage`, `prune_ratio`, `params`, `accuracy` (fractions; NaN where not known); `weight_counts`
    (S, layers, weight bins), `norm_counts` (S, hidden layers, norm bins). The rest: `weight_edges`, `norm_edges`
    (bins + 1,), `layers` (names).
    """
    stages = [(sweep.label, subject) for sweep in sweeps for subject in sweep.subjects]
    known: dict[str, Left] = {}
    names: list[str] = []
    for _, subject in stages:
        if subject.name not in known:
            network = load_network(subject.folder.path, subject.name)
            known[subject.name] = left_of(network, load_masks(subject.folder.path, subject.name))
            names = names or [f"layer {number + 1}" for number in range(len(weight_names(network)))]
    weights = [tensor for left in known.values() for tensor in left.weights]
    norms = [tensor for left in known.values() for tensor in left.norms]
    weight_edges, norm_edges = _edges(weights, WEIGHT_BINS, symmetric=True), _edges(norms, NORM_BINS, symmetric=False)
    found = [known[subject.name] for _, subject in stages]
    records = [subject.record for _, subject in stages]
    columns = {"prune_ratio": "prune_ratio", "params": "params", "accuracy": "accuracy_test"}
    return {
        "sweep": np.array([label for label, _ in stages], dtype=str),
        "stage": np.array([record.stage for record in records], dtype=np.int64),
        **{name: np.array([getattr(one, cell) for one in records], np.float64) for name, cell in columns.items()},
        "weight_edges": weight_edges,
        "norm_edges": norm_edges,
        "weight_counts": np.stack([_counts(left.weights, weight_edges) for left in found]),
        "norm_counts": np.stack([_counts(left.norms, norm_edges) for left in found]),
        "layers": np.array(names, dtype=str),
    }


def _edges(tensors: Sequence[Tensor], bins: int, *, symmetric: bool) -> Array:
    """Bins from −m to m, or from 0 to m, m the largest magnitude of all: nothing falls outside."""
    largest = max((float(tensor.abs().max()) for tensor in tensors if tensor.numel()), default=0.0) or 1.0
    # Edges that are rounded to double precision hold what was rounded to single precision before.
    return np.linspace(-largest if symmetric else 0.0, largest, bins + 1)


def _counts(tensors: Sequence[Tensor], edges: Array) -> NDArray[np.int64]:
    if not tensors:
        return np.zeros((0, len(edges) - 1), dtype=np.int64)
    return np.stack([np.histogram(tensor.double().cpu().numpy(), edges)[0] for tensor in tensors])
