"""`Flow`: the density that a chain of vector fields defines, and what can be made from it."""

from __future__ import annotations

from typing import Any

from sparseflows.flow.base import BaseFlow, Block, seeded_initialise
from sparseflows.flow.distribution import FlowDistribution
from sparseflows.flow.smaller.compact import compact
from sparseflows.flow.smaller.sparse import to_sparse
from sparseflows.flow.transform import standard_normal_log_prob

__all__ = ["Block", "Flow", "seeded_initialise", "standard_normal_log_prob"]  # files of 0.1 name all four here


class Flow(BaseFlow):
    """A continuous normalizing flow: x = z(0) is carried to z(T) ~ N(0, I) by dz/dt = f(t, z; θ).

    log p(x) = log N(z(T); 0, I) + Σ_blocks ∫₀ᵀ tr ∂f/∂z dt (Chen et al. 2018; Grathwohl et al. 2019), in
    nats, in the coordinates the flow was trained in (standardised ones; see `standardiser`).

    Args:
        fields: vector fields in the order data → noise. Any module f(t, z) will do; one that has
            `tangents` (see `fields.Field`) is faster.
        train_end_time: give each block a trained end time.
        whitening: (D, D) matrix W of a fixed linear first step z(0) = W x, counted by log|det W|.
        solver: default solver of all methods.

    Attributes:
        standardiser: shift, scale of the run's data where the flow was loaded from a run, else None:
            x_standardised = (x − shift)/scale.

    Example:
        >>> import torch
        >>> from sparseflows.flow.fields import MLPField
        >>> flow = Flow(MLPField(dim=2, hidden=[16]))
        >>> x = torch.zeros(5, 2)
        >>> flow.log_prob(x).shape, flow.to_noise(x).shape, flow.sample(3).shape
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([3, 2]))
    """

    def distribution(self, **options: Any) -> FlowDistribution:
        """This density as a `torch.distributions.Distribution`; options as `flow.distribution.FlowDistribution`."""
        return FlowDistribution(self, **options)

    def compact(self) -> Flow:
        """A new flow without the dead neurons, its outputs the same to rounding; see `flow.smaller.compact`."""
        return compact(self)

    def to_sparse(self, threshold: float | None = None) -> Flow:
        """A new flow, for inference only, that skips the zeros of its matrices; see `flow.smaller.sparse.to_sparse`.

        Its outputs are the same to rounding.
        """
        return to_sparse(self, threshold)
