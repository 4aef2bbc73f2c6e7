"""The trainings of one fit: the dense flow first, then after each pruning what is left of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparseflows.data.tables.copies import end_at, groups_of, row_hashes, shuffle_groups
from sparseflows.data.whitening import whitening_matrix
from sparseflows.errors import InputError, RunError
from sparseflows.evaluation.likelihood import likelihood, selection_solver, subset
from sparseflows.experiment.stages.stage import held
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.integrations.weights import drawn_by_weight
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample
from sparseflows.rng import numpy_generator
from sparseflows.specs import Spec
from sparseflows.training.batches import Batches, Resampled
from sparseflows.training.loop import LR_SCALES, Hooks, Outcome, train
from sparseflows.training.objectives import build_objective

Array = NDArray[np.float64]
Tell = Callable[[int, Pruned[Flow], Outcome], None]
"""It is told the number of a stage, its flow, and how its training ended."""


@dataclass(frozen=True)
class Weighted:
    """Standardised rows (N, D), and weights (N,) of mean 1 where they differ."""

    rows: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, chosen: NDArray[np.int64]) -> Weighted:
        """The rows of those numbers (n,)."""
        return Weighted(self.rows[chosen], None if self.weights is None else self.weights[chosen])

    def at_most(self, n: int | None, seed: int, purpose: str) -> Weighted:
        """All rows, or a seeded choice of n of them."""
        if self.weights is None:
            return Weighted(subset(self.rows, n, seed, purpose))
        both = subset(np.column_stack([self.rows, self.weights]), n, seed, purpose)
        return Weighted(both[:, :-1], both[:, -1])

    def batches(self) -> Tensor | Batches:
        """What a training takes: the rows, or draws of them by their weights, in float32."""
        rows = torch.as_tensor(self.rows, dtype=torch.float32)
        return rows if self.weights is None else Resampled(rows, self.weights)


def untrained(spec: Spec, given: Weighted, own_field: Callable[[int], nn.Module] | None) -> Flow:
    """The dense flow that a fit to standardised rows (N, D) begins with; `own_field` gives a field for D.

    Raises:
        InputError: `own_field` gives no module, or one without parameters.
    """
    dim, seed = given.rows.shape[1], spec.seeds[0]
    whitening = None
    if spec.data.whiten and given.weights is None:
        whitening = whitening_matrix(given.rows).float()
    elif spec.data.whiten and given.weights is not None:  # standardised by weight, so their weighted mean is 0
        whitening = whitening_matrix(given.rows * np.sqrt(given.weights)[:, None], centred=True).float()
    if own_field is None:
        return build_flow(spec, dim, seed=seed, whitening=whitening)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = own_field(dim)
    if not isinstance(module, nn.Module):
        raise InputError(f"field gave a {type(module).__name__} for dim={dim}; it must give an nn.Module f(t, z)")
    flow = Flow(module, whitening=whitening).float()
    if not any(parameter.requires_grad for parameter in flow.parameters()):
        raise InputError(f"field gave a {type(module).__name__} without parameters; there is nothing to train")
    return flow


@dataclass
class Fit:
    """One fit of a flow.

    Attributes:
        spec: its settings.
        given: standardised rows (N, D) to train on.
        chosen_by: rows (M, D) that choose the weights of every training; None takes the last step's.
        tell: called after each training.
        history: records of all trainings, each with its stage.
    """

    spec: Spec
    given: Weighted
    chosen_by: Weighted | None
    tell: Tell
    history: list[dict[str, Any]] = field(default_factory=list)

    def run(self, dense: Flow) -> Pruned[Flow]:
        """Train `dense` (which is left as it is), then prune and retrain it to every keep ratio; the last stage.

        Raises:
            RunError: every attempt at a training diverged.
        """
        settings, seed = self.spec.prune, self.spec.seeds[0]
        state = self._trained(0, lambda: unpruned(copy.deepcopy(dense)))
        for stage, ratio in enumerate(settings.keep_ratios, 1):
            (method,), target = settings.methods, round(ratio * count_params(dense))
            sample = self._sample(method)
            state = self._trained(
                stage, partial(prune, method, state, dense, target, sample=sample, seed=seed, nearest=True)
            )
        return state

    def _trained(self, stage: int, start: Callable[[], Pruned[Flow]]) -> Pruned[Flow]:
        """What `start` gives, trained; one that diverges begins again at a lower rate, as in a run."""
        settings = self.spec.retrain_spec() if stage else self.spec.train
        settings = settings.model_copy(update={"batch": min(settings.batch, len(self.given))})
        for scale in LR_SCALES:
            state = start()
            hooks = Hooks(held(state.flow, state.masks), None if self.chosen_by is None else self._validation_nll)
            state.flow.train()
            outcome = train(
                state.flow,
                build_objective(self.spec, settings),
                self.given.batches(),
                settings,
                seed=self.spec.seeds[0],
                purpose=f"estimator/{stage}",
                hooks=hooks,
                lr_scale=scale,
            )
            state.flow.eval()
            if outcome.status is Status.DONE:
                self.history += [{"stage": stage, **record} for record in outcome.history]
                self.tell(stage, state, outcome)
                return state
        raise RunError(
            f"training stopped at step {outcome.steps}: {outcome.status.value}; try a lower lr or other settings"
        )

    def _validation_nll(self, flow: nn.Module) -> float:
        assert isinstance(flow, Flow)
        assert self.chosen_by is not None
        few = self.chosen_by.at_most(self.spec.train.selection_rows, self.spec.seeds[0], "selection")
        found = likelihood(flow, few.rows, selection_solver(self.spec.evaluate), "float32")
        if few.weights is None or not len(found.finite):
            return found.nll
        known = np.isfinite(found.log_prob)
        return -float(np.average(found.log_prob[known], weights=few.weights[known]))

    def _sample(self, method: str) -> Sample | None:
        if not METHODS[method].needs_data:
            return None
        many, seed = self.spec.prune.sample, self.spec.seeds[0]
        if self.given.weights is None:
            return Sample(torch.as_tensor(subset(self.given.rows, many, seed, "criteria")))
        return Sample(torch.as_tensor(drawn_by_weight(self.given.rows, self.given.weights, many, seed, "criteria")))


def split(given: Weighted, fraction: float, seed: int) -> tuple[Weighted, Weighted | None]:
    """Rows (N, D) to train on, and those that choose the weights: a share of `fraction`; None where it is below two.

    Copies of a row are together in one of them. Where rows have weights, the share is one of their weight.
    """
    held = round(fraction * len(given))
    if held < 2:
        return given, None
    groups = groups_of([row_hashes(given.rows)])
    order, ends = shuffle_groups(groups, numpy_generator(seed, "estimator/validation"))
    if given.weights is None:
        held = end_at(ends, held)
    else:
        reached = np.cumsum(given.weights[order])[ends - 1]
        held = int(ends[np.searchsorted(reached, min(held, reached[-1]), side="left")])
    if held == len(given):
        return given, None
    return given.some(order[held:]), given.some(order[:held])
