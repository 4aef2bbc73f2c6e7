"""The pruning methods by name: each takes a network one step down the cascade."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.pruning.criteria import CRITERIA, score
from sparseflows.pruning.groups import Keep, by_unit, chains, count_params, hidden_layers, params_with
from sparseflows.pruning.masks import Masks, masks_of_neurons, neurons_of_masks
from sparseflows.pruning.observe import Sample, observe
from sparseflows.pruning.sampling import arrivals, draw_units, hybrid, reweighting, top_then_random
from sparseflows.pruning.scores import pfp
from sparseflows.pruning.structured import Network, choose_neurons, floor_of, shrink
from sparseflows.pruning.unit_budget import allocate_units
from sparseflows.pruning.unstructured import Scores, prune_weights
from sparseflows.rng import torch_generator


@dataclass(frozen=True)
class Pruned(Generic[Network]):
    """A network after pruning.

    Attributes:
        flow: masked, or shrunk.
        masks: of its own parameters, to be applied after every step of retraining; None where it was shrunk.
        dense_masks: what is left of the *dense* network, in the dense network's shapes: can be applied to any
            network of that architecture.
    """

    flow: Network
    masks: Masks | None
    dense_masks: Masks

    @property
    def params(self) -> int:
        """Params that are kept."""
        return count_params(self.flow) if self.masks is None else self.masks.kept(self.flow)


def unpruned(network: Network) -> Pruned[Network]:
    """The dense network as the start of a cascade."""
    return Pruned(network, None, Masks.full(network))


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        kind: weights are masked, units are removed.
        criterion: one of `criteria.CRITERIA`.
        choice: `top` keeps what scores highest. `sampled` keeps weights (sipp) or units (pfp) at random in proportion
            and reweights them; `mixed` is sipp's hybrid, or pfp's top-then-random.
    """

    kind: Literal["weights", "units"]
    criterion: str
    choice: Literal["top", "sampled", "mixed"] = "top"

    @property
    def needs_data(self) -> bool:
        """Whether it looks at a sample."""
        return CRITERIA[self.criterion].needs != "nothing"


METHODS: dict[str, Method] = {
    "unstructured": Method("weights", "magnitude"),
    "structured": Method("units", "neuron_l1"),
    **{name: Method(criterion.kind, name) for name, criterion in CRITERIA.items()},
    "sipp_randomised": Method("weights", "sipp", "sampled"),
    "sipp_hybrid": Method("weights", "sipp", "mixed"),
    "pfp_randomised": Method("units", "pfp", "sampled"),
    "pfp_top_random": Method("units", "pfp", "mixed"),
}


def prune(
    method: str,
    state: Pruned[Network],
    dense: Network,
    target: int,
    allocation: str | None = None,
    *,
    sample: Sample | None = None,
    floor: float = 0.0,
    seed: int = 0,
) -> Pruned[Network]:
    """One step of a cascade: `state` pruned to `target` params.

    Args:
        method: one of `METHODS`; `unstructured` is magnitude, `structured` is neuron_l1.
        state: the stage before; left as it is.
        dense: the dense network, for the shapes of `dense_masks`.
        target: params to keep.
        allocation: uniform or global. By default weights are ranked globally, units uniformly; pfp has an
            allocation of its own, by the error that it promises.
        sample: of the methods that look at data.
        floor: share of each layer's weights or units that stays whatever their score.
        seed: of the methods that draw.

    Raises:
        InputError: an unknown method or allocation, a method that needs data without data, or a network that cannot
            be followed.
    """
    chosen = lookup("pruning method", method, METHODS)
    if chosen.needs_data and sample is None:
        raise InputError(f"method '{method}' looks at data; give sample=Sample(rows, …)")
    if chosen.kind == "units":
        return _prune_units(chosen, state, dense, target, allocation, sample, floor, seed)
    network = copy.deepcopy(state.flow)
    if chosen.choice == "top":
        scores = score(chosen.criterion, network, sample, seed=seed)
        masks = prune_weights(network, state.dense_masks, target, scores, allocation or "global", floor)
    else:
        draw = _SampledWeights(network, sample, seed, chosen.choice == "mixed")
        masks = prune_weights(network, state.dense_masks, target, draw.scores, "global", floor, draw.settle)
    return Pruned(network, masks, masks)


def prune_by_scores(network: Network, scores: Scores, target: int, allocation: str | None = None) -> Pruned[Network]:
    """A copy of `network` pruned to `target` params by scores of one's own.

    Args:
        network: left as it is.
        scores: as `criteria.score` gives them: name of each weight → a tensor of its shape (weights are masked), or
            name of each hidden layer's weight → (size,) (units are removed). Higher stays.
        target: params to keep.
        allocation: see `prune`.

    Raises:
        InputError: scores that fit neither the weights nor the hidden layers.
    """
    hidden = [layer.link.weight for layer in hidden_layers(network)]
    if set(scores) == set(hidden) and all(score.ndim == 1 for score in scores.values()):
        keep = choose_neurons(network, target, allocation or "uniform", [scores[name] for name in hidden])
        return Pruned(shrink(network, keep), None, masks_of_neurons(network, keep))
    masked = copy.deepcopy(network)
    masks = prune_weights(masked, Masks.full(masked), target, scores, allocation or "global")
    return Pruned(masked, masks, masks)


def prune_by_masks(network: Network, masks: Masks) -> Pruned[Network]:
    """A copy of `network` with `masks` of one's own applied; raises InputError where one does not fit."""
    masked = copy.deepcopy(network)
    masks.apply_(masked)
    return Pruned(masked, masks, Masks({**Masks.full(network), **masks}))


class _SampledWeights:
    """sipp's random choice as scores, and what has to happen once the choice is made."""

    def __init__(self, network: nn.Module, sample: Sample | None, seed: int, mixed: bool) -> None:
        self.network, self.mixed = network, mixed
        self.shares = score("sipp", network, sample)
        generator = torch_generator(seed, "sipp/arrivals")
        self.times = {name: arrivals(share, generator) for name, share in self.shares.items()}
        lowest = torch.finfo(torch.float64).min
        self.scores = {name: (-time).clamp(min=lowest) for name, time in self.times.items()}

    @torch.no_grad()
    def settle(self, chosen: Masks) -> Masks:
        """Reweight what was chosen in proportion; the hybrid chooses anew, neuron by neuron."""
        tau = self._tau(sum(int(chosen[name].sum()) for name in self.shares))
        settled = {}
        for name, share in self.shares.items():
            weight, kept = self.network.get_parameter(name), chosen[name].flatten(1)
            flat = share.flatten(1)
            # A path that is always kept may have come after τ: it was not left to chance.
            factors = reweighting(flat, kept, tau, kept & (self.times[name].flatten(1) > tau))
            if self.mixed:
                better = hybrid(weight.detach().double().flatten(1), flat, kept, tau)
                kept, factors = better.kept, better.factors
            weight.mul_(torch.where(kept, factors, 1.0).view(weight.shape).to(weight))
            settled[name] = kept.view(weight.shape)
        return Masks(settled)

    def _tau(self, kept: int) -> float:
        """The arrival after the `kept` first ones (see `sampling.threshold`)."""
        times = torch.cat([time.flatten() for time in self.times.values()]).sort().values
        return float(times[kept]) if kept < len(times) else float("inf")


def _prune_units(
    method: Method,
    state: Pruned[Network],
    dense: Network,
    target: int,
    allocation: str | None,
    sample: Sample | None,
    floor: float,
    seed: int,
) -> Pruned[Network]:
    network = state.flow
    least = floor_of([layer.size for layer in hidden_layers(dense)], floor)
    if method.criterion == "pfp":
        assert sample is not None
        network = copy.deepcopy(network)
        keep = _pfp(method, network, target, sample, least, seed)
    else:
        scores = list(score(method.criterion, network, sample, seed=seed).values())
        keep = choose_neurons(network, target, allocation or "uniform", scores, least)
    in_dense = neurons_of_masks(dense, state.dense_masks)
    for whole, kept in zip(in_dense, keep, strict=True):
        whole[whole.clone()] = kept
    return Pruned(shrink(network, keep), None, masks_of_neurons(dense, in_dense))


@torch.no_grad()
def _pfp(method: Method, network: nn.Module, target: int, sample: Sample, least: Sequence[int], seed: int) -> Keep:
    """The units that stay; where they were drawn, the columns that read them are reweighted in place."""
    seen = observe(network, sample)
    layers = hidden_layers(network)
    position = {link.weight: i for i, link in enumerate(link for chain in chains(network) for link in chain)}
    read_by = [seen[position[layer.next_link.weight]] for layer in layers]
    scores = [pfp(statistics.unit_shares) for statistics in read_by]
    counts = allocate_units(
        scores,
        lambda kept: params_with(network, kept),
        target,
        patches=[max(1, len(s.inputs) // s.examples) for s in read_by],
        kernels=[layer.next_link.per_unit for layer in layers],
    )
    generator = torch_generator(seed, "pfp/draws")
    keep: list[Tensor] = []
    for layer, values, count, floor in zip(layers, scores, counts, least, strict=True):
        wanted = min(max(count, floor), layer.size)
        if method.choice == "top":
            kept = torch.zeros(layer.size, dtype=torch.bool)
            kept[values.argsort(descending=True, stable=True)[:wanted]] = True
            keep.append(kept)
            continue
        drawn = (
            draw_units(values, wanted, generator)
            if method.choice == "sampled"
            else top_then_random(values, wanted, layer.next_link.n_out, generator)
        )
        weight = network.get_parameter(layer.next_link.weight)
        factors = torch.where(drawn.kept, drawn.factors, 1.0).to(weight)
        by_unit(layer.next_link, weight).mul_(factors[None, :, None])
        keep.append(drawn.kept)
    return keep
