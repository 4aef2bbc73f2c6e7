"""The trainings of one fit: the dense flow first, then after each pruning what is left of it."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparseflows.data.tables.copies import end_at, groups_of, row_hashes, shuffle_groups
from sparseflows.data.whitening import whitening_matrix
from sparseflows.errors import InputError, RunError
from sparseflows.evaluation.likelihood import likelihood, selection_solver, subset
from sparseflows.experiment.stages.stage import held
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample
from sparseflows.rng import numpy_generator, torch_generator
from sparseflows.specs import Spec
from sparseflows.training.batches import InMemory
from sparseflows.training.loop import LR_SCALES, Hooks, Outcome, train
from sparseflows.training.objectives import build_objective
from sparseflows.training.resampling import draw_copies

Array = NDArray[np.float64]
Tell = Callable[[int, Pruned[Flow], Outcome], None]
"""It is told the number of a stage, its flow, and how its training ended."""


@dataclass(frozen=True)
class Part:
    """Some of the rows of a fit.

    Attributes:
        rows: (N, D), standardised.
        weights: (N,), above 0; None: all rows weigh the same.
    """

    rows: Array
    weights: Array | None = None

    def take(self, places: NDArray[np.int64]) -> "Part":
        """The rows at `places` (n,), with their weights."""
        return Part(self.rows[places], None if self.weights is None else self.weights[places])


def untrained(spec: Spec, part: Part, own_field: Callable[[int], nn.Module] | None) -> Flow:
    """The dense flow that a fit to the rows of `part` begins with; `own_field` gives a field for D.

    Raises:
        InputError: `own_field` gives no module, or one without parameters.
    """
    dim, seed = part.rows.shape[1], spec.seeds[0]
    whitening = whitening_matrix(part.rows, part.weights).float() if spec.data.whiten else None
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
        part: the rows to train on.
        chosen_by: those that choose the network's weights in every training; None takes the last step's.
        tell: called after each training.
        history: records of all trainings, each with its stage.
    """

    spec: Spec
    part: Part
    chosen_by: Part | None
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
        settings = settings.model_copy(update={"batch": min(settings.batch, len(self.part.rows))})
        weights = None if self.part.weights is None else torch.as_tensor(self.part.weights)
        batches = InMemory(torch.as_tensor(self.part.rows, dtype=torch.float32), weights)
        for scale in LR_SCALES:
            state = start()
            hooks = Hooks(held(state.flow, state.masks), None if self.chosen_by is None else self._validation_nll)
            state.flow.train()
            outcome = train(
                state.flow,
                build_objective(self.spec, settings),
                batches,
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
        every = np.arange(len(self.chosen_by.rows))
        places = subset(every, self.spec.train.selection_rows, self.spec.seeds[0], "selection")
        few = self.chosen_by.take(places.astype(np.int64))
        found = likelihood(flow, few.rows, selection_solver(self.spec.evaluate), "float32")
        return found.nll if few.weights is None else weighted_nll(found.log_prob, few.weights)

    def _sample(self, method: str) -> Sample | None:
        if not METHODS[method].needs_data:
            return None
        rows, weights, seed = self.part.rows, self.part.weights, self.spec.seeds[0]
        if weights is not None:
            rows = rows[draw_copies(torch.as_tensor(weights), torch_generator(seed, "estimator/criteria/copies"))]
        return Sample(torch.as_tensor(subset(rows, self.spec.prune.sample, seed, "criteria")))


def weighted_nll(log_prob: Array, weights: Array) -> float:
    """−Σ w log p / Σ w, nats, over the rows (N,) whose log p is finite; NaN where none is."""
    finite = np.isfinite(log_prob)
    return float(-np.average(log_prob[finite], weights=weights[finite])) if finite.any() else math.nan


def split(part: Part, fraction: float, seed: int) -> tuple[Part, Part | None]:
    """The rows to train on, and those that choose the weights: a share of `fraction`; None where it is below two.

    Copies of a row are together in one of them. The share is one of rows, whatever they weigh: the share of the weight
    is then the same on average, where one of the weight would take in the heaviest rows too often.
    """
    rows = part.rows
    held = round(fraction * len(rows))
    if held < 2:
        return part, None
    groups = groups_of([row_hashes(rows)])
    order, ends = shuffle_groups(groups, numpy_generator(seed, "estimator/validation"))
    held = end_at(ends, held)
    if held == len(rows):
        return part, None
    return part.take(order[held:]), part.take(order[:held])
