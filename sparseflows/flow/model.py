"""`Flow`: the density that a chain of vector fields defines, and what can be made from it."""

from __future__ import annotations

from importlib import import_module
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
        columns: names of the data's columns where the flow was loaded from the run of a table that has them, else None.

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

    def plot(self, ax: Any = None, kind: str | None = None, **options: Any) -> Any:
        """Draw this flow on matplotlib's axes `ax`, or on new ones, and give them back; no `plt.show()` is called.

        Args:
            ax: axes to draw on; None takes a new figure of pyplot's.
            kind: `density`, `samples`, `field` or `paths` (`sparseflows.plot`); None takes the density of one or two
                columns, samples in pairs of columns of more.
            options: of the figure: `plot_density`, `plot_samples`, `plot_field`, `plot_paths` of `sparseflows.plot`.

        Raises:
            InputError: an unknown kind, or one that such a flow has no picture of.
        """
        # By its name, as the package finds its public names: the room of figures stands above this one.
        return import_module("sparseflows.plot").plot_flow(self, ax, kind, **options)

    def compact(self) -> Flow:
        """A new flow without the dead neurons, its outputs the same to rounding; see `flow.smaller.compact`."""
        return compact(self)

    def to_sparse(self, threshold: float | None = None) -> Flow:
        """A new flow, for inference only, that skips the zeros of its matrices; see `flow.smaller.sparse.to_sparse`.

        Its outputs are the same to rounding.
        """
        return to_sparse(self, threshold)
