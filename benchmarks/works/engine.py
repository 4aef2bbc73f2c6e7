"""engine: what the compiled engine is worth. The same calls with it and on the plain path, in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from analysis.curvature.losses import NLL
from analysis.curvature.operators import HessianOperator, Survivors
from benchmarks.context import Context, Skipped
from benchmarks.measure import Measurement, in_turns
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.flow.compiled.build import why_not
from sparseflows.flow.solvers.ode import Solver
from sparseflows.rng import numpy_generator
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.objectives import FlowMatching, held_steps
from sparseflows.training.optim import build_optimiser

MATCHED, LIKELY = 512, 128  # rows of a batch, as param/quick.yaml and nll.yaml have them
STEPS = 16  # that are timed together: two choices of held steps
ROWS, TOLERANCE = 4096, 1e-5
PRODUCTS, PRODUCT_ROWS, PRODUCT_TOLERANCE = 4, 256, 1e-4


def run(context: Context) -> list[Measurement]:
    """A step of either objective, log p of 4,096 rows, a product of the Hessian.

    Raises:
        Skipped: there is no engine here.
    """
    for dtype in (torch.float32, torch.float64):
        if (missing := why_not(dtype)) is not None:
            raise Skipped(missing)
    return [_matching(context), _likelihood(context), _log_prob(context), _product(context)]


def _matching(context: Context) -> Measurement:
    works = [_steps(context, FlowMatching(2.0, compiled), MATCHED) for compiled in (True, False)]
    return _of("flow-matching step", works, context, (0.0, 0.2), f"batch {MATCHED}", STEPS)


def _likelihood(context: Context) -> Measurement:
    chosen = held_steps(context.nll_spec("solve.first_tol=null").solve)
    works = [_steps(context, replace(chosen, compiled=compiled), LIKELY) for compiled in (True, False)]
    note = f"batch {LIKELY}, {chosen.method} at {chosen.tol:g}, held for {chosen.hold} steps"
    return _of("likelihood step", works, context, (0.2, 0.5), note, STEPS)


def _steps(context: Context, objective: FlowMatching | HeldStepsLikelihood, batch: int) -> Callable[[], None]:
    """Training steps of a copy of the trained flow: loss, gradient, optimiser."""
    flow = as_dtype(context.trained_flow, torch.float32).requires_grad_(True).train()
    optimiser = build_optimiser(context.nll_spec("train.lr=1e-4").train, flow.parameters())
    batches, generator = context.rows[: STEPS * batch].split(batch), torch.Generator().manual_seed(0)

    def steps() -> None:
        with torch.enable_grad():
            for number, rows in enumerate(batches):
                if isinstance(objective, HeldStepsLikelihood):
                    objective.begin_step(number, len(batches))
                optimiser.zero_grad()
                objective(flow, rows, generator).value.backward()
                optimiser.step()

    return steps


@torch.no_grad()
def _log_prob(context: Context) -> Measurement:
    flow, rows = context.trained_flow, context.rows[:ROWS]
    solvers = [Solver(compiled=compiled).at(TOLERANCE) for compiled in (True, False)]
    ours, plain = (flow.log_prob(rows, solver=solver) for solver in solvers)
    works = [lambda solver=solver: flow.log_prob(rows, solver=solver) for solver in solvers]
    note = f"tol {TOLERANCE:g}; the two differ by {float((ours - plain).abs().max()):.1g} nats at most"
    return _of(f"log p of {ROWS:,} rows", works, context, (0.5, 0.7), note)


def _product(context: Context) -> Measurement:
    flow = as_dtype(context.trained_flow, torch.float64).requires_grad_(True)
    loss = NLL.of(flow, context.rows[:PRODUCT_ROWS].double(), PRODUCT_TOLERANCE)
    threads = context.settings.threads
    operators = [
        HessianOperator(flow, loss, Survivors(flow, {}), threads=threads, compiled=compiled)
        for compiled in (True, False)
    ]
    vectors = numpy_generator(0, "benchmark/engine").standard_normal((operators[0].shape[0], PRODUCTS))
    works = [lambda operator=operator: operator.matmat(vectors) for operator in operators]
    note = f"{PRODUCT_ROWS} rows, {PRODUCTS} products together, float64"
    return _of("Hessian product", works, context, (0.7, 1.0), note, PRODUCTS)


def _of(
    case: str,
    works: Sequence[Callable[[], object]],
    context: Context,
    part: tuple[float, float],
    note: str,
    among: int = 1,
) -> Measurement:
    """Seconds of the first of `works`, ours, and of the second, each divided by what it does `among` times."""
    turns = in_turns(works, context.settings.repeats, context.part(*part))
    ours, plain = ([took / among for took in one] for one in turns)
    return Measurement("engine", case, ours, plain, note)
