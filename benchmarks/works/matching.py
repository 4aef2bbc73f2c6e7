"""step-fm: one training step by flow matching, many of them in a call of the engine, against the loop and autograd."""

from __future__ import annotations

import copy

from benchmarks.context import Context
from benchmarks.measure import Goal, Measurement, seconds
from benchmarks.stepping import RATE, blocks_of_steps
from sparseflows.flow.build import build_flow
from sparseflows.training.loop import train
from sparseflows.training.objectives import FlowMatching

BATCHES = (128, 512)
STEPS = 200  # that are timed together: a few milliseconds of the engine are too short a time


def step_fm(context: Context) -> list[Measurement]:
    """The network and the settings of quick.yaml, its masks left out; the same draws on both sides."""
    return [_against_autograd(context, number, batch) for number, batch in enumerate(BATCHES)]


def _against_autograd(context: Context, number: int, batch: int) -> Measurement:
    repeats = context.settings.repeats
    spec = context.spec(
        "quick.yaml",
        f"train.batch={batch}",
        f"train.steps={STEPS * (repeats + 1)}",
        f"train.lr={RATE!r}",
        "train.schedule=constant",
    )
    flow = build_flow(spec, context.rows.shape[1], seed=0).to(context.rows.dtype)
    peer, few = copy.deepcopy(flow).train(), spec.train.model_copy(update={"steps": STEPS})
    plain = FlowMatching(spec.train.time_power, compiled=False)
    taken: list[float] = []

    def its_turn() -> None:
        taken.append(seconds(lambda: train(peer, plain, context.rows, few, seed=0, purpose="benchmark")) / STEPS)
        context.tell((number + len(taken) / (repeats + 1)) / len(BATCHES))

    ours = blocks_of_steps(spec, flow, context.rows, its_turn, STEPS)
    return Measurement(
        "step-fm",
        f"batch {batch}",
        ours.seconds,
        taken[1:],
        "the peer: the same loop, step by step, with autograd and torch.optim",
        goal=Goal("at least", 2),
    )
