"""What the layers of a flow see of a sample, along a fixed solve of 8 rk4 steps: every evaluation is a sample point.

The loss is −log p with the exact divergence, whose tangents pass through the same weights.

A field of one's own has its tangents by forward-mode differentiation, where the products of its layers with tangents
cannot be told apart. But all that the criteria need of a gradient, they need of each example's gradient with respect to
the weights: G_n itself, and Σ_i W_ic G_n,ic, the derivative by a gate on column c.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparseflows.errors import InputError
from sparseflows.flow import divergence as div
from sparseflows.flow.fields import Field, MLPField
from sparseflows.flow.model import Flow, standard_normal_log_prob
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.transform import DivergenceRule, Transformed
from sparseflows.pruning.graph.groups import weight_names
from sparseflows.pruning.observing.statistics import ExampleLoss, Observed, Statistics, checked_losses

STEPS = 8
OBSERVED = Solver("rk4", steps=STEPS, norm="batch")
OWN_ROWS = 32  # of fields of one's own, whose gradients are held for each row
ENTRIES = 2**24  # of recorded products held at once

Calls = list[tuple[Tensor, Tensor]]
"""Inputs (…, C) and outputs (…, n_out) of every call of one layer."""


class _Products(TorchFunctionMode):
    """Keeps every call of `linear` with one of `weights`."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[Calls] = [[] for _ in weights]
        self._of = {id(weight): calls for weight, calls in zip(weights, self.calls, strict=True)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.linear and id(args[1]) in self._of:
            self._of[id(args[1])].append((args[0], result))
        return result


def observe_flow(flow: Flow, rows: Tensor, loss: ExampleLoss | None, gradients: bool) -> list[Statistics]:
    """Statistics of every weight layer of `flow`, in order, on rows (N, D); arguments and errors as of `observe`."""
    own = not all(isinstance(field, MLPField) for field in flow.fields())
    names = weight_names(flow)
    weights = [flow.get_parameter(name) for name in names]
    if own:
        return _observe_own(flow, dict(zip(names, weights, strict=True)), rows, loss, gradients)
    tangents = rows.shape[1] if gradients and loss is None else 0
    chunk = max(1, ENTRIES // (4 * STEPS * (1 + tangents) * sum(sum(w.shape) for w in weights)))
    if loss is not None:
        chunk = len(rows)  # its labels belong to all the rows
    total: list[Statistics] = []
    for part in rows.split(chunk):
        seen = _seen(flow, weights, part, loss, gradients)
        found = [Statistics.of(weight, own) for weight, own in zip(weights, seen, strict=True)]
        total = found if not total else [a.merged(b) for a, b in zip(total, found, strict=True)]
    return total


def _seen(
    flow: Flow, weights: Sequence[Tensor], rows: Tensor, loss: ExampleLoss | None, gradients: bool
) -> list[Observed]:
    products = _Products(weights)
    with torch.set_grad_enabled(gradients), products:
        if not gradients:
            _solved(flow, rows, None)
            return [_observed(calls, len(rows), None) for calls in products.calls]
        total = _losses_by_row(flow, rows, loss, exact_by_row).sum()
    outputs = [out for calls in products.calls for _, out in calls]
    # One example's loss depends on its own rows of every product, so the gradient of the sum is everyone's own.
    found = iter(torch.autograd.grad(total, outputs, materialize_grads=True))
    return [_observed(calls, len(rows), found) for calls in products.calls]


def exact_by_row(field: Field, t: Tensor, z: Tensor) -> div.Divergence:
    """The exact divergence, with tangents (D, B, D) of each row's own, so that gradients can be told apart by row."""
    dim = z.shape[1]
    basis = torch.eye(dim, dtype=z.dtype, device=z.device)[:, None, :].expand(dim, len(z), dim)
    velocity, columns = field.tangents(t, z, basis)
    trace = torch.diagonal(columns, dim1=0, dim2=2).sum(-1)
    return div.Divergence(velocity, trace, columns.square().sum((0, 2)))


def _observed(calls: Calls, rows: int, gradients: Iterator[Tensor] | None) -> Observed:
    pairs = [(inputs, outputs if gradients is None else next(gradients)) for inputs, outputs in calls]
    pairs.sort(key=lambda pair: pair[0].ndim)  # values of the network, (B, C), before tangents, (K, B, C)
    inputs, given = (
        torch.cat([tensor.detach().reshape(-1, rows, tensor.shape[-1]) for tensor in kind]).transpose(0, 1)
        for kind in zip(*pairs, strict=True)
    )
    return Observed(inputs, None if gradients is None else given, sum(inputs.ndim == 2 for inputs, _ in calls))


def _observe_own(
    flow: Flow, weights: dict[str, Tensor], rows: Tensor, loss: ExampleLoss | None, gradients: bool
) -> list[Statistics]:
    """The same where a field is one's own."""
    products = _Products(list(weights.values()))
    with torch.no_grad(), products:
        _solved(flow, rows, None)
    found: list[Statistics] = []
    for (name, weight), calls in zip(weights.items(), products.calls, strict=True):
        values = _values_of(name.removesuffix(".weight"), calls, len(rows))
        found.append(Statistics.of(weight, Observed(values, None, values.shape[1])))
    if not gradients:
        return found
    chunks = rows.split(len(rows) if loss is not None else OWN_ROWS)
    each = zip(*(_gradients_by_row(flow, list(weights.values()), part, loss) for part in chunks), strict=True)
    own = [torch.cat(parts) for parts in each]
    if not all(bool(gradient.isfinite().all()) for gradient in own):
        raise InputError("an observed gradient is infinite or not a number; prune a network that is finite")
    return [one.with_gradients([gradient]) for one, gradient in zip(found, own, strict=True)]


def _values_of(layer: str, calls: Calls, rows: int) -> Tensor:
    """All that one layer was given, (rows, S, C); what was the same for all rows (t alone) is repeated."""
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


def _solved(flow: Flow, rows: Tensor, divergence: DivergenceRule | None) -> Transformed:
    result = flow.transform(rows, solver=OBSERVED, divergence=divergence)
    if result.status is not Status.DONE:
        raise InputError(f"the flow cannot be observed on this sample: {result.status.value}")
    return result


def _losses_by_row(flow: Flow, rows: Tensor, loss: ExampleLoss | None, divergence: DivergenceRule) -> Tensor:
    """Each row's own loss, (N,): −log p by `divergence` where no loss is given."""
    result = _solved(flow, rows, divergence if loss is None else None)
    losses = -(standard_normal_log_prob(result.points) + result.trace) if loss is None else loss(result.points)
    return checked_losses(losses, len(rows))


def _gradients_by_row(flow: Flow, weights: Sequence[Tensor], rows: Tensor, loss: ExampleLoss | None) -> list[Tensor]:
    """Each row's own gradient of its loss with respect to every weight: (N, n_out, C)."""
    with torch.enable_grad():
        losses = _losses_by_row(flow, rows, loss, div.exact)
        # One pass back for all of them, batched over the rows: a loop of passes took twenty times as long.
        each = torch.eye(len(rows), dtype=losses.dtype, device=losses.device)
        found = torch.autograd.grad(losses, list(weights), each, is_grads_batched=True, allow_unused=True)
    return [
        weight.new_zeros(len(rows), *weight.shape) if gradient is None else gradient
        for weight, gradient in zip(weights, found, strict=True)
    ]
