"""The ways to get a small network, and what each is to be compared with. Every one is a sequence of stages.

The k-th stage of every sequence belongs to the k-th keep ratio. `cascade` prunes a bit more and retrains, again and
again; `one_shot` prunes the dense network at each ratio and leaves it at that; `gradual` prunes while it retrains;
`scratch` and `rewind` train what was pruned anew, from fresh or from its original initial weights, for as many steps
as stand behind the pruned weights; `reduced` trains a narrower dense network of that size for as long; `control` is
the dense network trained on for as long as the pruned one was retrained. (From scratch: Liu et al. 2019; rewinding:
Frankle and Carbin 2019; gradual: Zhu and Gupta 2018.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sparseflows.evaluation.classification import labelled_subset
from sparseflows.evaluation.likelihood import subset
from sparseflows.experiment.folder.records import CASCADE, DENSE, DONE, FAILED, Record
from sparseflows.experiment.networks import untrained
from sparseflows.experiment.stages.gradual import Gradual
from sparseflows.experiment.stages.reduced import narrowed
from sparseflows.experiment.stages.stage import Bench, StageName, Work, find_stage, finish, make_stage, read_pruned
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
    """The stages of one protocol, method and seed.

    Attributes:
        bench: what the stages of the seed share.
        protocol, method: which.
        dense: the untrained dense network of the seed.
        params_dense: its params.
    """

    bench: Bench
    protocol: str
    method: str
    seed: int
    dense: nn.Module
    params_dense: int

    def run(self) -> None:
        """Make every stage that is not there yet, each from the last good one it can stand on."""
        last_good = self._dense_name()
        for name in self._names():
            record = find_stage(self.bench, name)
            if record:
                self.bench.progress.found(record)
            else:
                record = self._make(name, last_good)
            if record.status == DONE and self.protocol in (CASCADE, GRADUAL, CONTROL):
                last_good = name

    def _names(self) -> Iterator[StageName]:
        for stage, ratio in enumerate(self.bench.spec.prune.keep_ratios, 1):
            yield StageName(self.method, self.seed, stage, ratio, self.protocol)

    def _dense_name(self) -> StageName | None:
        name = StageName(DENSE, self.seed, 0)
        record = self.bench.run.read_stage(name.cascade, 0)
        return name if record and record.status == DONE else None

    def _make(self, name: StageName, before: StageName | None) -> Record:
        if before is None:
            return self._fail(name, "the dense flow of this seed failed")
        source = None
        if self.protocol in (SCRATCH, REWIND):
            source = self._source(name)
            if source is None:
                return self._fail(name, "the stage whose architecture it takes failed")
        return make_stage(self.bench, name, self._work(name, before, source), self.params_dense)

    def _work(self, name: StageName, before: StageName, source: StageName | None) -> Work:
        bench, retrain = self.bench, self.bench.spec.retrain_spec()
        so_far = self._steps_behind(before)
        if self.protocol == CASCADE:
            return Work(lambda: self._pruned(before, name), retrain, so_far)
        if self.protocol == ONE_SHOT:
            return Work(lambda: self._pruned(before, name), None, so_far)
        if self.protocol == CONTROL:
            return Work(lambda: read_pruned(bench, before), retrain, so_far)
        if self.protocol == GRADUAL:
            gradual = self._gradual(name)
            steps = gradual.steps(read_pruned(bench, before))
            # What is reported must be what is left at the end: neither an earlier moment nor an average of several.
            settings = lasting(retrain, steps, self._rows()).model_copy(update={"select": "last", "ema": None})
            return Work(lambda: read_pruned(bench, before), settings, so_far, gradual)
        if source is not None:
            whole = lasting(bench.spec.train, self._steps_behind(source), self._rows())
            return Work(lambda: self._again(source), whole)
        assert self.protocol == REDUCED
        whole = lasting(bench.spec.train, self._steps_of_pruned(name), self._rows())
        return Work(lambda: unpruned(self._narrow(name)), whole)

    # --- what a stage begins with

    def _pruned(self, before: StageName, name: StageName) -> Pruned[nn.Module]:
        state, settings = read_pruned(self.bench, before), self.bench.spec.prune
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
            seed=_draw(self.seed, f"prune/{name.purpose}"),
        )

    def _again(self, source: StageName) -> Pruned[nn.Module]:
        """The architecture that `source` was pruned to, untrained."""
        masks = read_pruned(self.bench, source).dense_masks
        seed = self.seed if self.protocol == REWIND else _draw(self.seed, "scratch/initialise")
        network = self._untrained(seed)
        if METHODS[self.method].kind == "neurons":
            return Pruned(shrink(network, neurons_of_masks(network, masks)), None, masks)
        masks.apply_(network)
        return Pruned(network, masks, masks)

    def _narrow(self, name: StageName) -> nn.Module:
        bench = self.bench
        dim, classes = bench.splits.train.shape[1], bench.splits.classes
        spec = narrowed(bench.spec, dim, classes, self._target(name))
        network = untrained(spec, dim, classes, _draw(self.seed, "reduced/initialise"), bench.whitening)
        return network.to(bench.rows.dtype)

    def _untrained(self, seed: int) -> nn.Module:
        splits = self.bench.splits
        network = untrained(self.bench.spec, splits.train.shape[1], splits.classes, seed, self.bench.whitening)
        return network.to(self.bench.rows.dtype)

    def _gradual(self, name: StageName) -> Gradual:
        settings, retrain = self.bench.spec.prune, self.bench.spec.retrain_spec()
        return Gradual(
            self.method,
            self.dense,
            self._target(name),
            settings.gradual_every,
            retrain.steps_for(self._rows())[0],
            self._sample(),
            settings.weight_allocation,
            settings.floor,
            _draw(self.seed, f"prune/{name.purpose}"),
        )

    def _sample(self) -> Sample | None:
        method = METHODS[self.method]
        if not method.needs_data and not (self.bench.spec.prune.compensate and method.kind == "neurons"):
            return None
        bench = self.bench
        train, most = bench.splits.train, bench.spec.prune.sample
        fresh = torch.as_tensor(subset(bench.splits.validation, FRESH_ROWS, bench.data_seed, "fresh"))
        if bench.spec.train.objective != "cross_entropy" or bench.splits.labels_train is None:
            return Sample(torch.as_tensor(subset(train, most, bench.data_seed, "criteria")), fresh=fresh)
        rows, labels = labelled_subset(train, bench.splits.labels_train, most, bench.data_seed, "criteria")
        return Sample(torch.as_tensor(rows), classification_loss(torch.as_tensor(labels)), fresh)

    # --- how far, and for how long

    def _target(self, name: StageName) -> int:
        return round((name.keep_ratio or 1.0) * self.params_dense)

    def _rows(self) -> int:
        return len(self.bench.rows)

    def _source(self, name: StageName) -> StageName | None:
        """The stage whose architecture is trained again: the cascade's, or else the one-shot's."""
        protocol = CASCADE if CASCADE in self.bench.spec.prune.protocols else ONE_SHOT
        source = StageName(self.method, self.seed, name.stage, name.keep_ratio, protocol)
        record = self.bench.run.read_stage(source.cascade, source.stage)
        return source if record and record.status == DONE else None

    def _steps_behind(self, name: StageName) -> int:
        record = self.bench.run.read_stage(name.cascade, name.stage)
        if record is None:
            return 0
        return record.train_steps or 0 if record.steps_total is None else record.steps_total

    def _steps_of_pruned(self, name: StageName) -> int:
        """Steps behind the k-th pruned stage, by the settings: no method is privileged."""
        spec = self.bench.spec
        steps = spec.train.steps_for(self._rows())[0]
        retrained = {CASCADE, GRADUAL, CONTROL} & set(spec.prune.protocols)
        return steps + (name.stage * spec.retrain_spec().steps_for(self._rows())[0] if retrained else 0)

    def _fail(self, name: StageName, reason: str) -> Record:
        record = Record(
            dataset=self.bench.splits.name,
            objective=self.bench.spec.train.objective,
            protocol=name.protocol,
            method=name.method,
            seed=name.seed,
            stage=name.stage,
            status=FAILED,
            reason=reason,
            keep_ratio_target=name.keep_ratio,
            params_dense=self.params_dense,
        )
        finish(self.bench, record, None, [])
        return record


def lasting(settings: TrainSpec, steps: int, rows: int) -> TrainSpec:
    """`settings` with a training of that many steps; the rate drops at the same shares of it.

    Args:
        settings: of a training on `rows` rows.
        steps: wanted.
        rows: training rows.
    """
    total, per_epoch = settings.steps_for(rows)
    if steps == total:
        return settings
    unit = per_epoch if settings.epochs else 1
    drops = [max(1, round(milestone * unit * steps / total)) for milestone in settings.milestones]
    drops = [key for key, _ in itertools.groupby(drops)]
    return settings.model_copy(update={"epochs": None, "steps": steps, "milestones": drops})


def _draw(seed: int, purpose: str) -> int:
    return int(numpy_generator(seed, purpose).integers(2**31))
