"""Training steps of ours, timed inside the real training loop, with something else done between them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.specs import Spec
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import build_objective

BLOCK = 8  # steps: what our loop does only every eighth step is in every block
LOOSE = 1e-4  # tolerance from which on bosh3 is the cheaper method
RATE = 1e-4  # so small that the field stays the trained one while it is measured


@dataclass(frozen=True)
class Blocks:
    """Training steps that were timed.

    Attributes:
        seconds: a step, one figure for each block of steps.
        nfe: evaluations of the field by a step's forward solve, on average; of held grids, with those of their choice.
        least: of the step that needed fewest: where grids are held, those that every step needs.
    """

    seconds: list[float]
    nfe: float
    least: float


def step_changes(tolerance: float, batch: int, repeats: int, block: int = BLOCK) -> tuple[str, ...]:
    """Settings of a param file for steps that are timed: the training's own but for tolerance, batch, length, rate.

    Where the tolerance is tight, dopri5 takes the place of bosh3: it needs half as many evaluations there.
    """
    return (
        f"solve.method={'bosh3' if tolerance >= LOOSE else 'dopri5'}",
        f"solve.rtol={tolerance!r}",
        f"solve.atol={tolerance!r}",
        "solve.first_tol=null",  # the same tolerance from the first step on
        f"train.batch={batch}",
        "train.epochs=null",
        f"train.steps={block * (repeats + 1)}",
        "train.schedule=constant",
        "train.milestones=[]",
        f"train.lr={RATE!r}",
    )


def blocks_of_steps(
    spec: Spec, flow: Flow, rows: Tensor, between: Callable[[], object] = lambda: None, block: int = BLOCK
) -> Blocks:
    """Train a copy of `flow` by `spec`; every `block` steps are timed together, `between` runs after them, untimed.

    The first block warms up and is dropped (`between` is called after it, too).

    Raises:
        RuntimeError: the training diverged.
    """
    found: list[float] = []
    started, before = time.perf_counter(), 0

    def after_step(step: int, total: int, loss: float) -> None:
        nonlocal started, before
        if step - before < block and step < total:  # the engine takes many in one call
            return
        found.append((time.perf_counter() - started) / (step - before))
        between()
        started, before = time.perf_counter(), step

    outcome = train(
        copy.deepcopy(flow).train(),
        build_objective(spec, spec.train),
        rows,
        spec.train,
        seed=0,
        purpose="benchmark",
        hooks=Hooks(progress=after_step),
    )
    if outcome.status is not Status.DONE:
        raise RuntimeError(f"the steps stopped at {outcome.steps}: {outcome.status.value}")
    steps = [record["step"] for record in outcome.history]
    lengths = [last - first for first, last in zip([0, *steps], steps, strict=False)]
    evaluations = sum(length * record["nfe"] for length, record in zip(lengths, outcome.history, strict=True))
    return Blocks(found[1:], evaluations / steps[-1], min(record["nfe"] for record in outcome.history))
