"""What the layers of a flow with fields of one's own see of a sample.

Such a field has its tangents by forward-mode differentiation, where the products of its layers with tangents cannot be
told apart. But all that the criteria need of a gradient, they need of each example's gradient with respect to the
weights: G_n itself, and Σ_i W_ic G_n,ic, the derivative by a gate on column c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow import divergence as div
from sparseflows.flow.model import Flow, standard_normal_log_prob
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.transform import DivergenceRule, Transformed
from sparseflows.pruning.observing.statistics import ExampleLoss, Observed, Statistics, checked_losses, of_gradients

Calls = Sequence[tuple[Tensor, Tensor]]
"""Inputs and outputs of every call of one layer."""


def values_of(layer: str, calls: Calls, rows: int) -> Tensor:
    """All that one layer was given, (rows, S, C); what was the same for all rows (t alone) is repeated.

    Raises:
        InputError: the layer was never called, or was given something else than rows.
    """
    if not calls:
        raise InputError(
            f"layer '{layer}' is not evaluated, so nothing can be said of what it sees; prune by magnitude"
        )
    found = []
    for inputs, _ in calls:
        seen = inputs.detach().reshape(-1, inputs.shape[-1])
        if inputs.ndim > 1 and len(inputs) == rows:
            found.append(seen.view(rows, -1, inputs.shape[-1]))
        elif len(seen) == 1:
            found.append(seen.expand(rows, 1, -1))
        else:
            raise InputError(
                f"layer '{layer}' sees {tuple(inputs.shape)} for {rows} points; it must see (B, …, C), or one row"
            )
    return torch.cat(found, dim=1)


def own_statistics(weight: Tensor, values: Tensor, gradients: Tensor | None) -> Statistics:
    """The statistics of one linear layer.

    Args:
        weight: (n_out, C).
        values: what it saw, (N, S, C).
        gradients: of each example's own loss, (N, n_out, C).
    """
    found = Statistics.of(weight, Observed(values, None, values.shape[1]))
    if gradients is None:
        return found
    if not bool(gradients.isfinite().all()):
        raise InputError("an observed gradient is infinite or not a number; prune a network that is finite")
    return replace(found, **of_gradients(weight.detach(), [gradients]))


def solved(flow: Flow, rows: Tensor, solver: Solver, divergence: DivergenceRule | None) -> Transformed:
    """`flow.transform` of rows (N, D); raises InputError where the solve fails."""
    result = flow.transform(rows, solver=solver, divergence=divergence)
    if result.status is not Status.DONE:
        raise InputError(f"the flow cannot be observed on this sample: {result.status.value}")
    return result


def losses_by_row(
    flow: Flow, rows: Tensor, solver: Solver, loss: ExampleLoss | None, divergence: DivergenceRule
) -> Tensor:
    """Each row's own loss, (N,), of rows (N, D): −log p by `divergence` where no loss is given; raises as `solved`."""
    result = solved(flow, rows, solver, divergence if loss is None else None)
    losses = -(standard_normal_log_prob(result.points) + result.trace) if loss is None else loss(result.points)
    return checked_losses(losses, len(rows))


def gradients_by_row(
    flow: Flow, weights: Sequence[Tensor], rows: Tensor, solver: Solver, loss: ExampleLoss | None
) -> list[Tensor]:
    """Each row's own gradient of its loss (−log p where none is given) with respect to every weight: (N, n_out, C).

    Raises:
        InputError: the solve fails, or the loss is not one value a row.
    """
    with torch.enable_grad():
        losses = losses_by_row(flow, rows, solver, loss, div.exact)
        # One pass back for all of them, batched over the rows: a loop of passes took twenty times as long.
        each = torch.eye(len(rows), dtype=losses.dtype, device=losses.device)
        found = torch.autograd.grad(losses, list(weights), each, is_grads_batched=True, allow_unused=True)
    return [
        weight.new_zeros(len(rows), *weight.shape) if gradient is None else gradient
        for weight, gradient in zip(weights, found, strict=True)
    ]
