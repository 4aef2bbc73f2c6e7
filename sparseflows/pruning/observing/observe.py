"""One pass of a small sample through a network: the statistics of every weight layer, which the criteria need.

The loss of a flow is −log p; for a classifier it is the cross-entropy. All is computed in float64, on a copy.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.groups import chains
from sparseflows.pruning.observing.flows import observe_flow
from sparseflows.pruning.observing.recording import record
from sparseflows.pruning.observing.statistics import ExampleLoss, Statistics


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
        return observe_flow(network, rows, sample.loss, gradients)
    links = [link for chain in chains(network) for link in chain]
    return [
        Statistics.of(network.get_parameter(link.weight).flatten(1), seen, link.per_neuron)
        for link, seen in zip(links, record(network, rows, sample.loss if gradients else None), strict=True)
    ]
