"""One pass of a small sample through a network: the statistics of every weight layer, which the criteria need.

A flow is observed along a fixed solve of 8 rk4 steps: the evaluations of its fields are extra sample points. Its
loss is −log p with the exact divergence, whose tangents pass through the same weights; for a classifier it is the
cross-entropy. All is computed in float64, on a copy.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparseflows.errors import InputError
from sparseflows.flow.divergence import Divergence
from sparseflows.flow.fields import Field, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.graph.groups import chains, weight_names
from sparseflows.pruning.observing.own_fields import (
    Calls,
    gradients_by_row,
    losses_by_row,
    own_statistics,
    solved,
    values_of,
)
from sparseflows.pruning.observing.recording import record
from sparseflows.pruning.observing.statistics import ExampleLoss, Observed, Statistics

STEPS = 8
OBSERVED = Solver("rk4", steps=STEPS, norm="batch")
OWN_ROWS = 32  # of fields of one's own, whose gradients are held for each row
ENTRIES = 2**24  # of recorded products held at once


@dataclass(frozen=True)
class Sample:
    """What a criterion may look at.

    Attributes:
        rows: (N, D) inputs.
        loss: see `ExampleLoss`. None: a flow is judged by −log p, any other network is observed without gradients.
        fresh: rows (M, D) that no criterion looks at: sipp and pfp check there what they promise.
    """

    rows: Tensor
    loss: ExampleLoss | None = None
    fresh: Tensor | None = None


def classification_loss(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of each example (B,), for labels (N,): the loss of a `Sample` whose rows come in that order."""
    return functools.partial(_cross_entropy, labels=labels.long())


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    if len(labels) != len(logits):
        raise InputError(f"{len(labels)} labels for a sample of {len(logits)} rows; give one a row")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise InputError(f"labels of {logits.shape[1]} classes are 0 to {logits.shape[1] - 1}, not {int(labels.max())}")
    return F.cross_entropy(logits, labels.to(logits.device), reduction="none")


def observe(network: nn.Module, sample: Sample, gradients: bool = True) -> list[Statistics]:
    """Statistics of every weight layer of all chains of `network`, in order. `network` is left as it is.

    Args:
        network: a flow, or a module that can be followed.
        sample: its rows are observed.
        gradients: of the loss too, where there is one; they cost a backward pass.

    Raises:
        InputError: an empty sample, rows that do not fit, layers that cannot be followed, or values that are not
            finite.
    """
    if not isinstance(sample.rows, Tensor):
        raise InputError(f"the sample's rows are a {type(sample.rows).__name__}; give a tensor: torch.as_tensor(rows)")
    if sample.rows.ndim < 2 or len(sample.rows) == 0:
        raise InputError(f"the sample has shape {tuple(sample.rows.shape)}; give rows (N, D), N at least 1")
    if not bool(torch.isfinite(sample.rows).all()):
        raise InputError("a row of the sample is not finite; leave it out")
    network = copy.deepcopy(network).double().cpu().requires_grad_(True)
    rows = sample.rows.detach().double().cpu()
    if isinstance(network, Flow):
        if all(isinstance(own, MLPField) for own in network.fields()):
            return _observe_flow(network, rows, sample.loss, gradients)
        return _observe_own(network, rows, sample.loss, gradients)
    links = [link for chain in chains(network) for link in chain]
    return [
        Statistics.of(network.get_parameter(link.weight).flatten(1), seen, link.per_neuron)
        for link, seen in zip(links, record(network, rows, sample.loss if gradients else None), strict=True)
    ]


def _observe_flow(flow: Flow, rows: Tensor, loss: ExampleLoss | None, gradients: bool) -> list[Statistics]:
    weights = [flow.get_parameter(name) for name in weight_names(flow)]
    tangents = rows.shape[1] if gradients and loss is None else 0
    chunk = max(1, ENTRIES // (4 * STEPS * (1 + tangents) * sum(sum(w.shape) for w in weights)))
    if loss is not None:
        chunk = len(rows)  # its labels belong to all the rows
    total: list[Statistics] = []
    for part in rows.split(chunk):
        found = [
            Statistics.of(weight, seen)
            for weight, seen in zip(weights, _seen(flow, weights, part, loss, gradients), strict=True)
        ]
        total = found if not total else [a.merged(b) for a, b in zip(total, found, strict=True)]
    return total


def _observe_own(flow: Flow, rows: Tensor, loss: ExampleLoss | None, gradients: bool) -> list[Statistics]:
    """The same of a flow with fields of one's own."""
    links = [link for chain in chains(flow) for link in chain]
    weights = [flow.get_parameter(link.weight) for link in links]
    products = _Products(weights)
    with torch.no_grad(), products:
        solved(flow, rows, OBSERVED, None)
    found: list[list[Tensor]] = [[] for _ in links]
    size = len(rows) if loss is not None else OWN_ROWS
    for part in rows.split(size) if gradients else []:
        for place, own in zip(found, gradients_by_row(flow, weights, part, OBSERVED, loss), strict=True):
            place.append(own)
    return [
        own_statistics(weight, values_of(link.name, calls, len(rows)), torch.cat(own) if own else None)
        for link, weight, calls, own in zip(links, weights, products.calls, found, strict=True)
    ]


def _seen(
    flow: Flow, weights: Sequence[Tensor], rows: Tensor, loss: ExampleLoss | None, gradients: bool
) -> list[Observed]:
    products = _Products(weights)
    with torch.set_grad_enabled(gradients), products:
        if not gradients:
            solved(flow, rows, OBSERVED, None)
            return [_observed(calls, len(rows), None) for calls in products.calls]
        total = losses_by_row(flow, rows, OBSERVED, loss, exact_by_row).sum()
    outputs = [out for calls in products.calls for _, out in calls]
    # One example's loss depends on its own rows of every product, so the gradient of the sum is everyone's own.
    found = iter(torch.autograd.grad(total, outputs, allow_unused=True))
    return [_observed(calls, len(rows), found) for calls in products.calls]


def exact_by_row(field: Field, t: Tensor, z: Tensor) -> Divergence:
    """The exact divergence, with tangents (D, B, D) of each row's own, so that gradients can be told apart by row."""
    dim = z.shape[1]
    basis = torch.eye(dim, dtype=z.dtype, device=z.device)[:, None, :].expand(dim, len(z), dim)
    velocity, columns = field.tangents(t, z, basis)
    trace = torch.diagonal(columns, dim1=0, dim2=2).sum(-1)
    return Divergence(velocity, trace, columns.square().sum((0, 2)))


def _observed(calls: Calls, rows: int, gradients: Iterator[Tensor | None] | None) -> Observed:
    values: list[list[Tensor]] = [[], []]
    tangents: list[list[Tensor]] = [[], []]
    for inputs, outputs in calls:
        gradient = None if gradients is None else next(gradients)
        gradient = torch.zeros_like(outputs) if gradient is None else gradient
        kind = values if inputs.ndim == 2 else tangents
        for place, tensor in enumerate((inputs, gradient)):
            kind[place].append(tensor.detach().reshape(-1, rows, tensor.shape[-1]))
    found = [torch.cat(a + b).transpose(0, 1) for a, b in zip(values, tangents, strict=True)]
    return Observed(found[0], None if gradients is None else found[1], len(values[0]))


class _Products(TorchFunctionMode):
    """Keeps the inputs (…, C) and outputs (…, n_out) of every call of `linear` with one of `weights`."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[list[tuple[Tensor, Tensor]]] = [[] for _ in weights]
        self._of = {id(weight): calls for weight, calls in zip(weights, self.calls, strict=True)}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.linear and id(args[1]) in self._of:
            self._of[id(args[1])].append((args[0], result))
        return result
