"""The pruning methods by name: each takes a flow one step down the cascade."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from sparseflows.errors import lookup
from sparseflows.flow.model import Flow
from sparseflows.pruning.groups import count_params
from sparseflows.pruning.masks import Masks, masks_of_neurons, neurons_of_masks
from sparseflows.pruning.structured import choose_neurons, shrink
from sparseflows.pruning.unstructured import prune_weights


@dataclass(frozen=True)
class Pruned:
    """A flow after pruning.

    Attributes:
        flow: masked, or shrunk.
        masks: of its own parameters, to be applied after every step of retraining; None where it was shrunk.
        dense_masks: what is left of the *dense* flow, in the dense flow's shapes: can be applied to any
            flow of that architecture.
    """

    flow: Flow
    masks: Masks | None
    dense_masks: Masks

    @property
    def params(self) -> int:
        """Params that are kept."""
        return count_params(self.flow) if self.masks is None else self.masks.kept(self.flow)


def unpruned(flow: Flow) -> Pruned:
    """The dense flow as the start of a cascade."""
    return Pruned(flow, None, Masks.full(flow))


def _unstructured(state: Pruned, dense: Flow, target: int, allocation: str) -> Pruned:
    flow = copy.deepcopy(state.flow)
    masks = prune_weights(flow, state.dense_masks, target)
    return Pruned(flow, masks, masks)


def _structured(state: Pruned, dense: Flow, target: int, allocation: str) -> Pruned:
    keep = choose_neurons(state.flow, target, allocation)
    in_dense = neurons_of_masks(dense, state.dense_masks)
    for whole, kept in zip(in_dense, keep, strict=True):
        whole[whole.clone()] = kept
    return Pruned(shrink(state.flow, keep), None, masks_of_neurons(dense, in_dense))


METHODS: dict[str, Callable[[Pruned, Flow, int, str], Pruned]] = {
    "unstructured": _unstructured,
    "structured": _structured,
}


def prune(method: str, state: Pruned, dense: Flow, target: int, allocation: str = "uniform") -> Pruned:
    """One step of a cascade: `state` pruned to `target` params.

    Args:
        method: `unstructured` (global magnitude of weights) or `structured` (ℓ₁ norm of neurons).
        state: the stage before; left as it is.
        dense: the dense flow, for the shapes of `dense_masks`.
        target: params to keep.
        allocation: of `structured`: uniform or global.
    """
    return lookup("pruning method", method, METHODS)(state, dense, target, allocation)
