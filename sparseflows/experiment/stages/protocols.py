"""The ways to get a small network, and what each is to be compared with. Every one is a sequence of stages.

The k-th stage of every sequence belongs to the k-th keep ratio. `cascade` prunes a bit more and retrains, again and
again; `one_shot` prunes the dense network at each ratio and leaves it at that; `gradual` prunes while it retrains;
`scratch` and `rewind` train what was pruned anew, from fresh or from its original initial weights, for as many steps
as stand behind the pruned weights; `reduced` trains a narrower dense network of that size for as long; `control` is
the dense network trained on for as long as the pruned one was retrained. (From scratch: Liu et al. 2019; rewinding:
Frankle and Carbin 2019; gradual: Zhu and Gupta 2018.)
"""

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from sparseflows.errors import DiskError
from sparseflows.evaluation.classification import labelled_subset
from sparseflows.evaluation.likelihood import subset
from sparseflows.experiment.folder.records import CASCADE, Record
from sparseflows.experiment.folder.sequences import StageName, dense_stage, stages_of
from sparseflows.experiment.stages.context import SeedContext
from sparseflows.experiment.stages.gradual import Gradual
from sparseflows.experiment.stages.reduced import narrowed
from sparseflows.experiment.stages.stage import Work, find_stage, finish, make_stage, read_pruned
from sparseflows.pruning.cutting.structured import shrink
from sparseflows.pruning.graph.masks import neurons_of_masks
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample, classification_loss
from sparseflows.rng import numpy_generator
from sparseflows.specs import TrainSpec
from sparseflows.specs.choices import CONTROL, GRADUAL, ONE_SHOT, REDUCED, REWIND, SCRATCH

FRESH_ROWS = 200  # validation rows at which sipp and pfp check what they promise


@dataclass(frozen=True)
class Sequence:
    """The stages of one protocol, method and seed; `dense` is the untrained dense network of the seed."""

    context: SeedContext
    protocol: str
    method: str
    dense: nn.Module

    def run(self) -> None:
        """Make every stage that is not there yet, each from the last good one it can stand on."""
        context = self.context
        dense = dense_stage(context.seed)
        last_good = dense if self._made(dense).done else None
        for name in stages_of(context.spec, context.seed, self.protocol, self.method):
            record = find_stage(context, name) or self._make(name, last_good)
            if record.done and self.protocol in (CASCADE, GRADUAL, CONTROL):
                last_good = name

    def _make(self, name: StageName, before: StageName | None) -> Record:
        if before is None:
            return finish(self.context, name, "the dense flow of this seed failed")
        source = None
        if self.protocol in (SCRATCH, REWIND):
            source = self._source(name)
            if source is None:
                return finish(self.context, name, "the stage whose architecture it takes failed")
        return make_stage(self.context, name, self._work(name, before, source))

    def _work(self, name: StageName, before: StageName, source: StageName | None) -> Work:
        context, retrain = self.context, self.context.spec.retrain_spec()
        so_far = self._steps_behind(before)
        if self.protocol in (CASCADE, ONE_SHOT):
            return Work(lambda: self._pruned(before, name), retrain if self.protocol == CASCADE else None, so_far)
        if self.protocol == CONTROL:
            return Work(lambda: read_pruned(context, before), retrain, so_far)
        if self.protocol == GRADUAL:
            gradual = self._gradual(name)
            steps = gradual.steps(read_pruned(context, before))
            # What is reported must be what is left at the end: neither an earlier moment nor an average of several.
            settings = lasting(retrain, steps, self._rows()).model_copy(update={"select": "last", "ema": None})
            return Work(lambda: read_pruned(context, before), settings, so_far, gradual)
        if source is not None:
            whole = lasting(context.spec.train, self._steps_behind(source), self._rows())
            return Work(lambda: self._again(source), whole)
        assert self.protocol == REDUCED
        whole = lasting(context.spec.train, self._steps_of_pruned(name), self._rows())
        return Work(lambda: unpruned(self._narrow(name)), whole)

    # --- what a stage begins with

    def _pruned(self, before: StageName, name: StageName) -> Pruned[nn.Module]:
        state, settings = read_pruned(self.context, before), self.context.spec.prune
        kind = METHODS[self.method].kind
        return prune(
            self.method,
            state,
            self.dense,
            self._target(name),
            settings.weight_allocation if kind == "weights" else settings.allocation,
            sample=self._sample(),
            floor=settings.floor,
            compensated=settings.compensate and kind == "neurons",
            seed=_draw(self.context.seed, f"prune/{name.purpose}"),
            nearest=True,
        )

    def _again(self, source: StageName) -> Pruned[nn.Module]:
        """The architecture that `source` was pruned to, untrained."""
        masks = read_pruned(self.context, source).dense_masks
        seed = self.context.seed
        network = self.context.untrained(seed if self.protocol == REWIND else _draw(seed, "scratch/initialise"))
        if METHODS[self.method].kind == "neurons":
            return Pruned(shrink(network, neurons_of_masks(network, masks)), None, masks)
        masks.apply_(network)
        return Pruned(network, masks, masks)

    def _narrow(self, name: StageName) -> nn.Module:
        context, splits = self.context, self.context.splits
        spec = narrowed(context.spec, splits.train.shape[1], splits.classes, self._target(name))
        return context.untrained(_draw(context.seed, "reduced/initialise"), spec)

    def _gradual(self, name: StageName) -> Gradual:
        settings, retrain = self.context.spec.prune, self.context.spec.retrain_spec()
        return Gradual(
            self.method,
            self.dense,
            self._target(name),
            settings.gradual_every,
            retrain.steps_for(self._rows())[0],
            self._sample(),
            settings.weight_allocation,
            settings.floor,
            _draw(self.context.seed, f"prune/{name.purpose}"),
        )

    def _sample(self) -> Sample | None:
        method = METHODS[self.method]
        if not method.needs_data and not (self.context.spec.prune.compensate and method.kind == "neurons"):
            return None
        context = self.context
        train, most = context.splits.train, context.spec.prune.sample
        fresh = torch.as_tensor(subset(context.splits.validation, FRESH_ROWS, context.data_seed, "fresh"))
        if context.spec.train.objective != "cross_entropy" or context.splits.labels_train is None:
            return Sample(torch.as_tensor(subset(train, most, context.data_seed, "criteria")), fresh=fresh)
        rows, labels = labelled_subset(train, context.splits.labels_train, most, context.data_seed, "criteria")
        return Sample(torch.as_tensor(rows), classification_loss(torch.as_tensor(labels)), fresh)

    # --- how far, and for how long

    def _target(self, name: StageName) -> int:
        return round((name.keep_ratio or 1.0) * self.context.params_dense)

    def _rows(self) -> int:
        return len(self.context.rows)

    def _source(self, name: StageName) -> StageName | None:
        """The stage whose architecture is trained again: the cascade's, or else the one-shot's."""
        protocol = CASCADE if CASCADE in self.context.spec.prune.protocols else ONE_SHOT
        source = StageName(self.method, self.context.seed, name.stage, name.keep_ratio, protocol)
        return source if self._made(source).done else None

    def _steps_behind(self, name: StageName) -> int:
        record = self._made(name)
        return record.train_steps or 0 if record.steps_total is None else record.steps_total

    def _steps_of_pruned(self, name: StageName) -> int:
        """Steps behind the k-th pruned stage, by the settings: no method is privileged."""
        spec = self.context.spec
        steps = spec.train.steps_for(self._rows())[0]
        retrained = {CASCADE, GRADUAL, CONTROL} & set(spec.prune.protocols)
        return steps + (name.stage * spec.retrain_spec().steps_for(self._rows())[0] if retrained else 0)

    def _made(self, name: StageName) -> Record:
        """The record of a stage that this sequence stands on, made before it; one that is gone has not failed."""
        record = self.context.run.read_stage(name.cascade, name.stage)
        if record is None:
            folder = self.context.run.stage(name.cascade, name.stage)
            raise DiskError(f"{folder}: no longer there; was it moved or removed while the run was at work?")
        return record


def make_dense(context: SeedContext) -> Record:
    """The unpruned network of a seed, trained once and shared by all methods and protocols."""
    name = dense_stage(context.seed)
    work = Work(lambda: unpruned(context.untrained(context.seed)), context.spec.train)
    return find_stage(context, name) or make_stage(context, name, work)


def run_sequence(context: SeedContext, protocol: str, method: str) -> None:
    """All stages of one protocol and method; those it stands on are there."""
    Sequence(context, protocol, method, context.untrained(context.seed)).run()


def lasting(settings: TrainSpec, steps: int, rows: int) -> TrainSpec:
    """`settings` of a training on `rows` rows, but of that many steps; the rate drops at the same shares of it."""
    total, per_epoch = settings.steps_for(rows)
    if steps == total:
        return settings
    unit = per_epoch if settings.epochs else 1
    drops = [max(1, round(milestone * unit * steps / total)) for milestone in settings.milestones]
    drops = [key for key, _ in itertools.groupby(drops)]
    return settings.model_copy(update={"epochs": None, "steps": steps, "milestones": drops})


def _draw(seed: int, purpose: str) -> int:
    return int(numpy_generator(seed, purpose).integers(2**31))
