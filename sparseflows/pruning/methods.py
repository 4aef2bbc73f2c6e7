"""The pruning methods by name: each takes a network one step down the cascade."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Generic, cast

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.pruning.cutting.removal import compensate
from sparseflows.pruning.cutting.structured import Network, choose_neurons, floor_of, shrink
from sparseflows.pruning.cutting.unstructured import Scores, prune_weights
from sparseflows.pruning.graph.groups import (
    Keep,
    count_params,
    hidden_layers,
    least_params,
    params_counter,
    removable_layers,
    weight_names,
)
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons, neurons_of_masks
from sparseflows.pruning.observing.observe import Sample, observe_readers
from sparseflows.pruning.scoring.bounds import Promise
from sparseflows.pruning.scoring.criteria import score
from sparseflows.pruning.scoring.criteria.pfp import choose_by_pfp
from sparseflows.pruning.scoring.criteria.sipp import Sipp
from sparseflows.specs.choices import ALLOCATIONS
from sparseflows.specs.methods import METHODS, Kind, Method


@dataclass(frozen=True)
class Pruned(Generic[Network]):
    """A network after pruning.

    Attributes:
        flow: masked, or shrunk.
        masks: of its own parameters, to be applied after every step of retraining; None where it was shrunk.
        dense_masks: what is left of the *dense* network, in the dense network's shapes: can be applied to any
            network of that architecture.
        promises: of sipp and pfp: what each layer's error was promised to stay below, and what it is.
        asked: the params that were asked for; None where nothing was. What came of it is `params`.
    """

    flow: Network
    masks: Masks | None
    dense_masks: Masks
    promises: tuple[Promise, ...] = ()
    asked: int | None = None

    @property
    def params(self) -> int:
        """Params that are kept."""
        return count_params(self.flow) if self.masks is None else self.masks.kept(self.flow)


def unpruned(network: Network) -> Pruned[Network]:
    """The dense network as the start of a cascade."""
    return Pruned(network, None, Masks.full(network))


def prune(
    method: str,
    state: Pruned[Network],
    dense: Network,
    target: int,
    allocation: str | None = None,
    *,
    sample: Sample | None = None,
    floor: float = 0.0,
    compensated: bool = False,
    seed: int = 0,
    nearest: bool = False,
) -> Pruned[Network]:
    """One step of a cascade: `state` pruned to `target` params.

    Args:
        method: one of `METHODS`; `unstructured` is magnitude, `structured` is neuron_l1.
        state: the stage before; left as it is.
        dense: the dense network, for the shapes of `dense_masks`.
        target: params to keep, at most those of `state`. Whole neurons come as near as one neuron allows.
        allocation: uniform or global. By default weights are ranked globally, neurons uniformly; pfp has an
            allocation of its own, by the error that it promises.
        sample: of the methods that look at data.
        floor: share of each layer's weights or neurons that stays whatever their score.
        compensated: give the biases that read removed neurons those neurons' mean activation on the sample.
        seed: of the methods that draw.
        nearest: where the target cannot be reached, take what comes nearest and leaves no layer empty (`Pruned.asked`
            and `params` say both numbers) instead of refusing it.

    Raises:
        InputError: an unknown method or allocation, a method that needs data without data, a network that cannot be
            followed, or a target that cannot be reached; it names the nearest that can.

    Example:
        >>> from sparseflows.flow.build import build_flow
        >>> from sparseflows.specs import FlowSpec
        >>> dense = build_flow(FlowSpec(hidden=[16, 16], activation="tanh"), seed=0)  # 354 params
        >>> pruned = prune("structured", unpruned(dense), dense, 150)
        >>> [field.hidden for field in pruned.flow.fields()], pruned.params
        ([[10, 9]], 149)
        >>> prune("unstructured", unpruned(dense), dense, 150).params
        150
    """
    chosen = lookup("pruning method", method, METHODS)
    if (chosen.needs_data or compensated) and sample is None:
        who = f"method '{method}'" if chosen.needs_data else "compensation of biases"
        raise InputError(f"{who} looks at data; give sample=Sample(rows, …)")
    _check_options(chosen, allocation, floor, compensated)
    _check_whole(target, least=0 if nearest else 1)
    _check_state(state, chosen.kind)
    if not nearest:
        _check_target(state, target, chosen.kind)
    home = _device_of(state.flow)
    if home.type != "cpu":  # scores and choices are many small steps, and draws are those of the CPU
        state, dense = _moved(state, torch.device("cpu")), copy.deepcopy(dense).cpu()
    found = _pruned(chosen, state, dense, target, allocation, sample, floor, compensated, seed)
    if not nearest and abs(found.params - target) > _grain(state.flow):
        raise InputError(
            f"{target:,} params cannot be reached by {method}: the nearest is {found.params:,}; ask for that, or take "
            "nearest=True"
        )
    return replace(_moved(found, home), asked=int(target))


def _device_of(network: nn.Module) -> torch.device:
    like = next(network.parameters(), None)
    return torch.device("cpu") if like is None else like.device


def _moved(state: Pruned[Network], device: torch.device) -> Pruned[Network]:
    """`state` itself where it is on `device`, else a copy there."""
    if _device_of(state.flow) == device:
        return state
    masks = None if state.masks is None else state.masks.to(device)
    return replace(
        state, flow=copy.deepcopy(state.flow).to(device), masks=masks, dense_masks=state.dense_masks.to(device)
    )


def _check_options(chosen: Method, allocation: str | None, floor: object, compensated: bool) -> None:
    """Refuse what the method would pass over without a word."""
    if isinstance(floor, bool) or not isinstance(floor, Real) or not 0 <= float(floor) <= 1:
        raise InputError(f"floor is {floor!r}; it is the share of each layer that stays, from 0 to 1")
    if compensated and chosen.kind != "neurons":
        raise InputError("compensated takes up removed neurons' means, and this method removes weights; leave it out")
    if allocation is not None:
        lookup("allocation", allocation, ALLOCATIONS)


def _check_whole(target: object, least: int = 1) -> None:
    if isinstance(target, bool) or not isinstance(target, Integral) or int(target) < least:
        raise InputError(f"target is {target!r}; it is a number of params to keep, a whole number from 1 on")


def _check_state(state: object, kind: Kind) -> None:
    if not isinstance(state, Pruned):
        raise InputError(f"the state before is a {type(state).__name__}; start a cascade with unpruned(network)")
    if kind == "neurons":
        removable_layers(state.flow)
        if state.masks is not None and not all(bool(mask.all()) for mask in state.masks.values()):
            raise InputError(
                "the state before has masked weights, which removing neurons would let go; start from "
                "unpruned(network), or from unpruned(flow.compact())"
            )
        return
    shapes = {name: parameter.shape for name, parameter in state.flow.named_parameters()}
    if any(mask.shape != shapes[name] for name, mask in state.dense_masks.items() if name in weight_names(state.flow)):
        raise InputError(
            "the state before has lost neurons, so its masks are not those of its own weights; go on from "
            "unpruned(state.flow)"
        )


def _check_target(state: Pruned[Network], target: int, kind: Kind) -> None:
    if target > state.params:
        raise InputError(f"target is {target:,}, but the network has {state.params:,} params; ask for fewer")
    least = least_params(state.flow, kind)
    if target < least < state.params:
        left = "one neuron a layer" if kind == "neurons" else "one path of weights"
        raise InputError(f"{target:,} params would empty a layer: the nearest is {least:,}, with {left}; ask for that")


def _grain(network: nn.Module) -> int:
    """How far from a target pruning may end: by what the largest neuron takes along, as dead ones do, too."""
    sizes, params = [layer.size for layer in hidden_layers(network)], params_counter(network)
    fewer = [[size - (place == index) for place, size in enumerate(sizes)] for index in range(len(sizes))]
    return max((params(sizes) - params(some) for some in fewer), default=1)


def _pruned(
    chosen: Method,
    state: Pruned[Network],
    dense: Network,
    target: int,
    allocation: str | None,
    sample: Sample | None,
    floor: float,
    compensated: bool,
    seed: int,
) -> Pruned[Network]:
    network = copy.deepcopy(state.flow)
    if chosen.kind == "neurons":
        least = floor_of([layer.size for layer in removable_layers(dense)], floor)
        promises: tuple[Promise, ...] = ()
        if chosen.criterion == "pfp" and sample is not None:
            keep, promises = choose_by_pfp(network, target, sample, chosen.choice, least, seed)
        else:
            ranks = list(score(chosen.criterion, network, sample, seed=seed).values())
            keep = choose_neurons(network, target, allocation or "uniform", ranks, least)
        if compensated and sample is not None:
            means = [statistics.means for statistics in observe_readers(network, sample)]
            network = cast(Network, compensate(network, keep, means))
        return without_neurons(network, keep, state, dense, promises)
    if chosen.criterion != "sipp" or sample is None:
        scores = score(chosen.criterion, network, sample, seed=seed)
        masks = prune_weights(network, state.dense_masks, target, scores, allocation or "global", floor)
        return Pruned(network, masks, masks)
    sipp = Sipp(network, sample, chosen.choice, seed)
    ranked = allocation or "global" if chosen.choice == "top" else "global"
    choose = sipp.mixed if chosen.choice == "mixed" else None
    masks = prune_weights(network, state.dense_masks, target, sipp.scores, ranked, floor, choose, sipp.settle)
    return Pruned(network, masks, masks, tuple(sipp.promises))


def prune_by_scores(network: Network, scores: Scores, target: int, allocation: str | None = None) -> Pruned[Network]:
    """A copy of `network` pruned to `target` params by scores of one's own.

    Args:
        network: left as it is.
        scores: as `criteria.score` gives them: name of each weight → a tensor of its shape (weights are masked), or
            name of each hidden layer's weight → (size,) (neurons are removed). Higher stays.
        target: params to keep.
        allocation: see `prune`.

    Raises:
        InputError: scores that fit neither the weights nor the hidden layers, or a target that empties a layer.
    """
    hidden = [layer.link.weight for layer in hidden_layers(network)]
    unknown = next((name for name in scores if name not in {*hidden, *weight_names(network)}), None)
    if unknown is not None:
        raise InputError(f"the scores name '{unknown}', which is no weight of this network that can be pruned")
    by_neurons = set(scores) == set(hidden)
    least = least_params(network, "neurons" if by_neurons else "weights")
    _check_whole(target)
    if target > count_params(network):
        raise InputError(f"target is {target:,}, but the network has {count_params(network):,} params; ask for fewer")
    if target < least:
        left = "one neuron a layer" if by_neurons else "one path of weights"
        raise InputError(f"{target} params would empty a layer: {left} takes {least}; keep more")
    if by_neurons and all(score.ndim == 1 for score in scores.values()):
        keep = choose_neurons(network, target, allocation or "uniform", [scores[name] for name in hidden])
        return replace(without_neurons(network, keep, unpruned(network), network), asked=target)
    masked = copy.deepcopy(network)
    masks = prune_weights(masked, Masks.full(masked), target, scores, allocation or "global").to(_device_of(network))
    return Pruned(masked, masks, masks, asked=target)


def prune_by_masks(network: Network, masks: Mapping[str, Tensor]) -> Pruned[Network]:
    """A copy of `network` with masks of one's own applied.

    Args:
        network: left as it is.
        masks: parameter name → bool tensor of its shape, True where the entry is kept; names left out are kept whole.

    Raises:
        InputError: a mask that does not fit, or that leaves nothing of a layer's weights.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))  # 13 params
        >>> prune_by_masks(network, {"0.weight": torch.tensor([[True, False], [True, True], [False, True]])}).params
        11
    """
    Masks(masks).check(network)
    for name in weight_names(network):
        if name in masks and not masks[name].any():
            raise InputError(f"the mask of '{name}' leaves none of its weights; keep one at least")
    masked = copy.deepcopy(network)
    whole = Masks({**Masks.full(network), **masks}).to(_device_of(network))
    whole.apply_(masked)
    return Pruned(masked, whole, whole)


def without_neurons(
    network: Network, keep: Keep, state: Pruned[Network], dense: Network, promises: tuple[Promise, ...] = ()
) -> Pruned[Network]:
    """`network`, whose neurons are those that `state` has left of the `dense` one, without those not in `keep`."""
    in_dense = neurons_of_masks(dense, state.dense_masks)
    for whole, kept in zip(in_dense, keep, strict=True):
        whole[whole.clone()] = kept.to(whole.device)
    return Pruned(shrink(network, keep), None, masks_of_neurons(dense, in_dense), promises)
