"""gpu: the same calls on a GPU and on the CPU, where the compiled engine solves, in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from analysis.curvature.losses import NLL
from analysis.curvature.operators import HessianOperator, Survivors
from benchmarks.context import Context, Skipped
from benchmarks.measure import Measurement, in_turns
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.flow.solvers.ode import Solver
from sparseflows.rng import numpy_generator
from sparseflows.training.objectives import Objective, build_objective
from sparseflows.training.optim import build_optimiser

BATCHES = (512, 8192)
STEPS = 8  # that are timed together: one choice of held steps
ROWS, TOLERANCE = 100_000, 1e-5
PRODUCTS, PRODUCT_ROWS, PRODUCT_TOLERANCE = 4, 4096, 1e-4


def run(context: Context) -> list[Measurement]:
    """A step of either objective, log p of 100,000 rows, products of the Hessian.

    Raises:
        Skipped: there is no GPU here.
    """
    if not torch.cuda.is_available():
        raise Skipped("PyTorch finds no GPU here")
    context.remark(f"gpu: {torch.cuda.get_device_name()}")
    return measure(context, torch.device("cuda"))


def measure(context: Context, device: torch.device) -> list[Measurement]:
    """The same on any `device`."""
    found = []
    for number, batch in enumerate(BATCHES):
        for objective in ("flow_matching", "nll"):
            works = [_steps(context, objective, batch, one) for one in (device, torch.device("cpu"))]
            case, part = f"{objective} step, batch {batch:,}", (0.2 * number, 0.2 * (number + 1))
            found.append(_of(case, works, context, part, "float32", STEPS))
    return [*found, _log_prob(context, device), _product(context, device)]


def _steps(context: Context, name: str, batch: int, device: torch.device) -> Callable[[], None]:
    changes = ("train.objective=flow_matching", "flow.time=concat", "solve.hold_grid=null", "solve.first_tol=null")
    spec = context.nll_spec("train.lr=1e-4", *(changes if name == "flow_matching" else ()))
    flow = as_dtype(context.trained_flow, torch.float32).requires_grad_(True).train().to(device)
    objective: Objective = build_objective(spec, spec.train)
    optimiser = build_optimiser(spec.train, flow.parameters())
    rows = context.rows[:batch].to(device)
    generator = torch.Generator(device).manual_seed(0)

    def steps() -> None:
        with torch.enable_grad():
            for _ in range(STEPS):
                optimiser.zero_grad()
                objective(flow, rows, generator).value.backward()
                optimiser.step()
        _wait(device)

    return steps


@torch.no_grad()
def _log_prob(context: Context, device: torch.device) -> Measurement:
    solver, works, values = Solver().at(TOLERANCE), [], []
    rows = context.rows.repeat(-(-ROWS // len(context.rows)), 1)[:ROWS]
    for one in (device, torch.device("cpu")):
        flow, there = copy.deepcopy(context.trained_flow).to(one), rows.to(one)

        def work(flow=flow, there=there, one=one) -> None:  # type: ignore[no-untyped-def]
            with torch.no_grad():
                flow.log_prob(there, solver=solver)
            _wait(one)

        works.append(work)
        values.append(flow.log_prob(there[:1000], solver=solver).cpu())
    note = (
        f"tol {TOLERANCE:g}, float32; the two differ by {float((values[0] - values[1]).abs().max()):.1g} nats at most"
    )
    return _of(f"log p of {ROWS:,} rows", works, context, (0.4, 0.7), note)


def _product(context: Context, device: torch.device) -> Measurement:
    works = []
    for one in (device, torch.device("cpu")):
        flow = as_dtype(context.trained_flow, torch.float64).requires_grad_(True).to(one)
        loss = NLL.of(flow, context.rows[:PRODUCT_ROWS].double().to(one), PRODUCT_TOLERANCE)
        operator = HessianOperator(flow, loss, Survivors(flow, {}), threads=context.settings.threads)
        vectors = numpy_generator(0, "benchmark/gpu").standard_normal((operator.shape[0], PRODUCTS))
        works.append(lambda operator=operator, vectors=vectors: operator.matmat(vectors))
    return _of(f"Hessian product, {PRODUCT_ROWS:,} rows", works, context, (0.7, 1.0), "float64", PRODUCTS)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _of(
    case: str,
    works: Sequence[Callable[[], object]],
    context: Context,
    part: tuple[float, float],
    note: str,
    among: int = 1,
) -> Measurement:
    turns = in_turns(works, context.settings.repeats, context.part(*part))
    ours, peer = ([took / among for took in one] for one in turns)
    return Measurement("gpu", case, ours, peer, note)
