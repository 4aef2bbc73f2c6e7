"""What the validation rows decide while a network is trained, and how far its solver can be trusted there."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sparseflows.evaluation.classification import labelled_subset, logits_of
from sparseflows.evaluation.likelihood import Array, likelihood, reporting_solver, selection_solver, subset
from sparseflows.experiment.stages.context import SeedContext
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import torch_generator
from sparseflows.training.objectives import held_steps, training_solver

SOLVED = 0.99  # of the validation rows must have a number, or the weights are not chosen


def selection_rows(context: SeedContext) -> Array:
    """The seeded validation rows (N, D) that weights are chosen by, N at most `train.selection_rows`."""
    return subset(context.splits.validation, context.spec.train.selection_rows, context.data_seed, "selection")


def validation_loss(context: SeedContext, network: nn.Module) -> float:
    """What weights are chosen by, on the seeded rows: a flow's exact NLL at tolerance 1e-4, a classifier's loss.

    NaN where more than a hundredth of the rows have no number.
    """
    solver = selection_solver(context.spec.evaluate)
    if context.spec.train.objective == "cross_entropy":
        return context.processes.first(lambda: _validation_cross_entropy(context, network, solver))
    assert isinstance(network, Flow)
    rows = selection_rows(context)
    found = likelihood(network, rows, solver, context.spec.dtype, processes=context.processes)
    if len(found.finite) < SOLVED * len(found.log_prob):
        return math.nan
    # Where the flow sees columns through maps, in the standardised coordinates of the columns themselves.
    return replace(found, log_prob=found.log_prob + context.splits.standardiser.log_slope(rows)).nll


def _validation_cross_entropy(context: SeedContext, network: nn.Module, solver: Solver) -> float:
    splits, most = context.splits, context.spec.train.selection_rows
    labels = np.asarray(splits.labels_validation)
    rows, labels = labelled_subset(splits.validation, labels, most, context.data_seed, "selection")
    found, status, _ = logits_of(network, rows, solver, context.spec.dtype)
    wanted = torch.as_tensor(labels, device=found.device)
    return float(F.cross_entropy(found, wanted)) if status is Status.DONE else math.nan


def solver_discrepancy(context: SeedContext, flow: Flow) -> float | None:
    """Training solver's NLL less the exact one, nats, on the same validation rows: a fixed grid can be cheated.

    None where one of the solves fails.
    """
    rows = selection_rows(context)
    settings = context.spec.evaluate
    exact = likelihood(flow, rows, reporting_solver(settings), settings.dtype, processes=context.processes)
    difference = _trained_nll(context, flow, rows) - exact.nll
    if not exact.usable or math.isnan(difference):
        return None
    if abs(difference) > 0.05:
        context.progress.say(
            f"  the training solver's own NLL is {difference:+.3f} nats off the exact one; "
            "the reported numbers are exact, but train with an adaptive solver or more steps"
        )
    return difference


@torch.no_grad()
def _trained_nll(context: SeedContext, flow: Flow, rows: Array) -> float:
    """The NLL as the training solves it at its end: on held steps where it holds them, else by its solver; or NaN."""
    solve = context.spec.solve
    if solve.hold_grid is None:
        solver = replace(training_solver(solve), gradient="backprop")
        return likelihood(flow, rows, solver, context.spec.dtype, processes=context.processes).nll
    points = torch.as_tensor(rows, dtype=context.rows.dtype, device=context.rows.device)
    generator = torch_generator(context.data_seed, "discrepancy", str(context.rows.device))
    loss = held_steps(solve)(flow, points, generator)
    return loss.value.item() if loss.status is Status.DONE else math.nan
