"""The training loop. It knows neither masks nor folders: they come in as `after_step` and `save`.

Every random draw is a function of (seed, purpose, step), so a training that resumes from a checkpoint
draws what an undisturbed one draws, and ends with the same numbers.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import InputError
from sparseflows.flow.solvers.ode import SolveFailed, Status
from sparseflows.flow.solvers.shared import agreed
from sparseflows.rng import seed_again
from sparseflows.specs import TrainSpec
from sparseflows.training.averaging import WeightAverage
from sparseflows.training.batches import Batches, InMemory
from sparseflows.training.flat import FlatParameters
from sparseflows.training.many_steps import Drawn, ManySteps
from sparseflows.training.objectives import Objective, Remembers
from sparseflows.training.optim import build_optimiser, learning_rate

Checkpoint = dict[str, Any]
CHECKPOINTS, RECORDS = 20, 40  # a training
KEPT = ("step", "seconds", "loss", "history", "since_record", "best_val", "best")  # in a checkpoint, as they are

# Factors on the learning rate of a training that diverged: at first, again, and once more.
LR_SCALES = (1.0, 0.3, 0.1)


@dataclass(frozen=True)
class Hooks:
    """What the loop calls. None: nobody asked.

    Attributes:
        after_step: after every optimiser step, with the flow (masks are held here).
        validate: the validation NLL of a flow, for `select: best_val`; NaN where it cannot be had.
        save: a checkpoint, every 1/20 of the training. Its tensors are the live ones: write or copy them at once.
        progress: step, total, loss; after every step, or after some tenth of a second of steps that went in one call.
        record: a line of the history, when it is written.
    """

    after_step: Callable[[nn.Module], None] | None = None
    validate: Callable[[nn.Module], float] | None = None
    save: Callable[[Checkpoint], None] | None = None
    progress: Callable[[int, int, float], None] | None = None
    record: Callable[[dict[str, float]], None] | None = None


@dataclass
class Outcome:
    """How a training ended.

    Attributes:
        status: DONE, or why it stopped.
        steps: optimiser steps taken.
        seconds: time spent, over all resumptions.
        history: one line for each 1/40 of the training: step, loss (mean since the last), lr, nfe. Where weights are
            selected, one for each finite value they are selected by: step, val.
        best_val: lowest validation NLL seen, where it was asked for.
    """

    status: Status
    steps: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)
    best_val: float | None = None


def train(
    flow: nn.Module,
    objective: Objective,
    rows: Tensor | Batches,
    settings: TrainSpec,
    *,
    seed: int,
    purpose: str,
    hooks: Hooks | None = None,
    resume: Checkpoint | None = None,
    lr_scale: float = 1.0,
) -> Outcome:
    """Train `flow` in place on `rows` (N, D); at the end it holds the weights that `settings.select` reports.

    Args:
        flow, objective, settings, hooks: see there.
        rows: standardised training rows (N, D), or where they come from.
        seed, purpose: every draw depends on these and the step.
        resume: a checkpoint that `hooks.save` received.
        lr_scale: factor on the learning rate (a retry after divergence).

    Raises:
        InputError: the objective's batches are shared by several processes, and `flow` has batch norm.
    """
    processes = getattr(objective, "processes", ALONE)
    if processes.several and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in flow.modules()):
        raise InputError(
            "network.batch_norm takes the statistics of a whole batch, and several processes share each batch; "
            "train it in one process, or without batch norm"
        )
    flat = FlatParameters(flow)
    processes.copy_first_(flat.vector.data)
    try:
        batches = InMemory(rows) if isinstance(rows, Tensor) else rows
        training = _Training(
            flow, flat, objective, batches, settings, hooks or Hooks(), seed, purpose, lr_scale, processes
        )
        if resume:
            training.restore(resume)
        return training.run()
    finally:
        flat.release()


@dataclass
class _Training:
    """A training between two steps: what it works with, and all that a checkpoint holds."""

    flow: nn.Module
    flat: FlatParameters
    objective: Objective
    batches: Batches
    settings: TrainSpec
    hooks: Hooks
    seed: int
    purpose: str
    lr_scale: float
    processes: Processes
    step: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    history: list[dict[str, float]] = field(default_factory=list)
    since_record: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # losses, NFE (both summed), how many
    best_val: float | None = None
    best: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        self.remembers = self.objective if isinstance(self.objective, Remembers) else None
        self.optimiser = build_optimiser(self.settings, [self.flat.vector])
        self.average = WeightAverage(self.flow, self.settings.ema) if self.settings.ema else None
        self.total, self.per_epoch = self.settings.steps_for(len(self.batches))
        self.noise = torch.Generator(self.batches.device)
        self.engine = ManySteps(
            self.flow, self.flat, self.objective, self.batches, self.settings, self.optimiser, self.average,
            self.hooks.after_step,
        )  # fmt: skip

    def run(self) -> Outcome:
        """All steps that are left, or as many as go well."""
        started, status = time.perf_counter() - self.seconds, Status.DONE
        while self.step < self.total:
            status = self.advance()
            self.seconds = time.perf_counter() - started
            if status is Status.DONE and self.is_due(self.settings.selections):
                self.select()
            if status is Status.DONE and self.is_due(CHECKPOINTS):
                status = self.checkpoint()
            if status is not Status.DONE:
                break
            if self.hooks.progress:
                self.hooks.progress(self.step, self.total, self.loss)
        else:
            self.finish()
            self.seconds = time.perf_counter() - started
        return Outcome(status, self.step, self.seconds, self.history, self.best_val)

    def advance(self) -> Status:
        """One step, or as many as the engine takes until something is due; one that is not DONE changes no weights."""
        count = self.engine.may_take(self.until_due())
        if not count:
            return self.take_step(*self.draw(self.step))
        for value, rate in self.engine.take(map(self.draw, range(self.step, self.step + count))):
            if not math.isfinite(value):
                return Status.NON_FINITE
            self.took(value, rate, nfe=1)
        return Status.DONE

    def draw(self, step: int) -> Drawn:
        """The batch (B, D) of a step, its rate, and the generator of its noise, good until the next step is drawn."""
        (epoch, place), size = divmod(step, self.per_epoch), self.settings.batch
        batch = self.batches.batch(self.seed, self.purpose, epoch, place * size, size)
        rate = self.lr_scale * learning_rate(self.settings, step, self.total, self.per_epoch)
        return batch, rate, seed_again(self.noise, self.seed, f"{self.purpose}/step/{step}")

    def take_step(self, batch: Tensor, rate: float, generator: torch.Generator) -> Status:
        """One optimiser step; anything but DONE leaves the weights as they were."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.flat.zero_gradients()
        if self.remembers:
            self.remembers.begin_step(self.step, self.total)
        loss = self.objective(self.flow, batch, generator)
        value, status = agreed(self.processes, loss.value, loss.status)
        if status is not Status.DONE:
            return status
        if not math.isfinite(value):
            return Status.NON_FINITE
        try:
            loss.value.backward()
        except SolveFailed as failure:
            return failure.status
        except AssertionError:  # torchdiffeq's, from the adjoint's backward solve
            return Status.UNDERFLOW
        self.processes.add_(self.flat.gradient)
        if self.settings.clip:
            self.flat.clip(self.settings.clip)
        self.optimiser.step()
        if self.hooks.after_step:
            self.hooks.after_step(self.flow)
        if self.average:
            self.average.update(self.flow)
        self.took(value, rate, loss.nfe)
        return Status.DONE

    def took(self, loss: float, rate: float, nfe: int) -> None:
        """A step is done."""
        self.step, self.loss = self.step + 1, loss
        self._record(loss, rate, nfe)

    def until_due(self) -> int:
        """Steps to the next one after which something is due, a selection, a checkpoint, a record or the end."""
        nexts = (
            -(-(self.step * times // self.total + 1) * self.total // times)
            for times in (self.settings.selections, CHECKPOINTS, RECORDS, 1)
        )
        return min(nexts) - self.step

    def is_due(self, times: int) -> bool:
        """Is this step one of `times` equally spaced ones?"""
        return self.step * times // self.total > (self.step - 1) * times // self.total

    def checkpoint(self) -> Status:
        """Save, unless the weights are no longer finite."""
        if not all(bool(torch.isfinite(p).all()) for p in self.flow.parameters()):
            return Status.NON_FINITE
        if self.hooks.save:
            self.hooks.save(self._snapshot())
        return Status.DONE

    def finish(self) -> None:
        """Leave in the flow the weights that are to be reported."""
        if self.best is not None:
            self.flow.load_state_dict(self.best)
        elif self.average:
            self.average.copy_to(self.flow)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up where `checkpoint` was saved."""
        self.flow.load_state_dict(checkpoint["model"])
        self.optimiser.load_state_dict(copy.deepcopy(checkpoint["optimiser"]))  # it would go on in these tensors
        if self.average:
            self.average.load_state_dict(checkpoint["average"])
        for name in KEPT:
            setattr(self, name, copy.copy(checkpoint[name]))  # its lists grow on
        if self.remembers:
            self.remembers.load_state_dict(checkpoint["objective"])

    def _snapshot(self) -> Checkpoint:
        return {name: getattr(self, name) for name in KEPT} | {
            "model": self.flow.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "objective": self.remembers.state_dict() if self.remembers else None,
        }

    def select(self) -> None:
        """Remember the weights if their validation NLL is the lowest so far."""
        if self.settings.select != "best_val" or self.hooks.validate is None:
            return
        candidate = self.flow
        if self.average:
            candidate = copy.deepcopy(self.flow)
            self.average.copy_to(candidate)
        nll = self.hooks.validate(candidate)
        if not math.isfinite(nll):
            return
        self._note({"step": self.step, "val": nll})
        if self.best_val is None or nll < self.best_val:
            self.best_val = nll
            self.best = {name: tensor.clone() for name, tensor in candidate.state_dict().items()}

    def _record(self, loss: float, rate: float, nfe: int) -> None:
        losses, evaluations, count = (sum(pair) for pair in zip(self.since_record, (loss, nfe, 1), strict=True))
        self.since_record = [losses, evaluations, count]
        if self.is_due(RECORDS):
            self._note({"step": self.step, "loss": losses / count, "lr": rate, "nfe": evaluations / count})
            self.since_record = [0.0, 0.0, 0.0]

    def _note(self, line: dict[str, float]) -> None:
        self.history.append(line)
        if self.hooks.record:
            self.hooks.record(line)
