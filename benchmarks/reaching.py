"""How long a training takes to a given exact KL gap: the clock stands still while the gap is checked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_ffjord import BATCH, EPOCHS, PlainFFJORD
from sparseflows.data.splits import Splits
from sparseflows.data.tables.mapped import Rows
from sparseflows.evaluation.likelihood import likelihood
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import torch_generator
from sparseflows.specs import Spec
from sparseflows.training.batches import InMemory
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import build_objective

TARGET = 0.30  # nats
CHECKS = 40  # of one of our trainings
LOOK_ROWS, LOOK_TOLERANCE = 2048, 1e-3
LOOK_MARGIN, KNOWN_MARGIN = 0.03, 0.005  # nats: two standard errors of so many rows; once the bias is known
EXACT = Solver("dopri5", 1e-7, 1e-7, max_nfe=100_000)
PURPOSE = "dense/0"  # of the draws, so that ours are those of `sparseflows run`


def ignore(share: float) -> None:
    """Nobody asked how far it is."""


@dataclass(frozen=True)
class GapCheck:
    """The KL gap of a flow on test rows whose true log density is known."""

    rows: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, splits: Splits) -> GapCheck:
        """On all test rows."""
        assert splits.log_prob_true is not None, f"the density of {splits.name} is not known"
        rows = np.asarray(splits.test)
        return cls(rows, splits.log_prob_true(rows))

    def exact(self, flow: Flow) -> float:
        """On all rows, in float64 at 1e-7 with the exact divergence; NaN where the solve fails."""
        return float((self.true - likelihood(flow, self.rows, EXACT).log_prob).mean())

    def at_a_look(self, flow: Flow) -> float:
        """On some rows at 1e-3: decides only whether the exact gap is worth its time."""
        solver = Solver("dopri5", LOOK_TOLERANCE, LOOK_TOLERANCE, norm="batch")
        found = likelihood(flow, self.rows[:LOOK_ROWS], solver, "float32")
        return float((self.true[:LOOK_ROWS] - found.log_prob).mean())


class Watch:
    """Whether a training has reached its target: a cheap look first, the exact gap where that is near.

    The look's bias (fewer rows, a looser solve) is learnt from every exact gap, so that few of those are needed.
    """

    def __init__(self, check: GapCheck, target: float) -> None:
        self.check, self.target = check, target
        self.bias, self.margin = 0.0, LOOK_MARGIN

    def __call__(self, flow: Flow) -> float | None:
        """The exact gap where it is at most the target, else None."""
        look = self.check.at_a_look(flow)
        if not look + self.bias <= self.target + self.margin:
            return None
        gap = self.check.exact(flow)
        self.bias, self.margin = gap - look, KNOWN_MARGIN
        return gap if gap <= self.target else None


@dataclass
class Reached:
    """A training up to its target.

    Attributes:
        seconds: of training, up to the check that found the target reached, or to the end.
        steps: taken in them.
        gap: the exact KL gap then; NaN where it was not reached and not measured.
        reached: whether it was.
        forward, backward: evaluations of the field by the solves (0 where nobody counted).
    """

    seconds: float = 0.0
    steps: int = 0
    gap: float = math.nan
    reached: bool = False
    forward: int = 0
    backward: int = 0


class _Arrived(Exception):
    """The target is reached: leave the training loop."""


def train_ours(
    spec: Spec,
    rows: Tensor,
    check: GapCheck,
    seed: int,
    target: float = TARGET,
    on_step: Callable[[float], object] = ignore,
) -> Reached:
    """Train a flow by `spec` until its exact KL gap is at most `target`.

    Args:
        spec: the param file.
        rows: standardised training rows (N, D).
        check: of the gap.
        seed: of weights, batches and noise.
        target: nats.
        on_step: told the share of the training that is done.
    """
    flow = build_flow(spec, rows.shape[1], seed=seed).to(rows.dtype)
    found, watch = Reached(), Watch(check, target)
    started = time.perf_counter()

    def after_step(step: int, total: int, loss: float) -> None:
        nonlocal started
        found.seconds += time.perf_counter() - started
        before, found.steps = found.steps, step
        if step == total or (not spec.train.ema and step * CHECKS // total > before * CHECKS // total):
            gap = watch(flow) if step < total or not spec.train.ema else None
            if gap is not None:
                found.gap, found.reached = gap, True
                raise _Arrived
        on_step(step / total)
        started = time.perf_counter()

    try:
        outcome = train(
            flow,
            build_objective(spec, spec.train),
            rows,
            spec.train,
            seed=seed,
            purpose=PURPOSE,
            hooks=Hooks(progress=after_step),
        )
    except _Arrived:
        return found
    if outcome.status is Status.DONE:  # averaged weights are in the flow only now
        found.gap = check.exact(flow)
        found.reached = found.gap <= target
    return found


def train_plain(
    peer: PlainFFJORD,
    rows: Tensor,
    seed: int,
    check: GapCheck | None,
    target: float = TARGET,
    most_steps: int | None = None,
    on_step: Callable[[float], object] = ignore,
) -> Reached:
    """Train the plain FFJORD until its exact KL gap, checked after every epoch, is at most `target`.

    Args:
        peer: trained in place.
        rows: standardised training rows (N, D); the batches are the ones that ours would be given.
        seed: of batches and probes.
        check: of the gap; None: train for `most_steps`.
        target: nats.
        most_steps: to give up after; None: the published 100 epochs.
        on_step: told the share of the longest training that is done.
    """
    batches, found = InMemory(rows), Reached()
    watch = None if check is None else Watch(check, target)
    per_epoch = -(-len(rows) // BATCH)
    total = most_steps or EPOCHS * per_epoch
    while found.steps < total:
        started = time.perf_counter()
        epoch, place = divmod(found.steps, per_epoch)
        batch = batches.batch(seed, PURPOSE, epoch, place * BATCH, BATCH)
        peer.step(batch, torch_generator(seed, f"{PURPOSE}/step/{found.steps}"))
        found.seconds += time.perf_counter() - started
        found.steps += 1
        found.forward += peer.forward_evaluations
        found.backward += peer.backward_evaluations
        on_step(found.steps / total)
        if watch is not None and found.steps % per_epoch == 0:
            gap = watch(peer.as_flow())
            if gap is not None:
                found.gap, found.reached = gap, True
                return found
    return found


def trained(spec: Spec, rows: Tensor, seed: int) -> tuple[Flow, float]:
    """A flow trained to the end by `spec`, and the seconds it took.

    Raises:
        RuntimeError: the training diverged.
    """
    flow = build_flow(spec, rows.shape[1], seed=seed).to(rows.dtype)
    outcome = train(flow, build_objective(spec, spec.train), rows, spec.train, seed=seed, purpose=PURPOSE)
    if outcome.status is not Status.DONE:
        raise RuntimeError(f"the training stopped at step {outcome.steps}: {outcome.status.value}")
    return flow, outcome.seconds


def float32(rows: Rows) -> Tensor:
    """Rows as trainings take them."""
    return torch.as_tensor(np.asarray(rows), dtype=torch.float32)
