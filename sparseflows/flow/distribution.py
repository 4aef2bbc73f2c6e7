"""A flow where a `torch.distributions.Distribution` is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from sparseflows.errors import InputError
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.coordinates import coordinates_of
from sparseflows.flow.draws import draw
from sparseflows.flow.inputs import check_on_failure
from sparseflows.flow.options import EXAMPLE, check_chunk, check_kind
from sparseflows.flow.solvers.ode import Solver
from sparseflows.flow.transform import standard_normal_log_prob
from sparseflows.specs.choices import Coordinates

ENTROPY_SAMPLES = 4096


class Entropy(NamedTuple):
    """A Monte Carlo estimate in nats and its standard error, tensors of the distribution's batch shape."""

    value: Tensor
    error: Tensor


class FlowDistribution(Distribution):
    """The density of a flow: batch shape () at first, event shape (D,).

    The flow is held, not copied: what changes its parameters changes the distribution, and gradients reach them.

    Args:
        flow: the flow.
        coordinates: `standardised`, or `data`, which `flow.standardiser` leads to; there log p is less by Σ log s, so
            that it integrates to 1 over the data's own space. Of a flow that sees columns through maps
            (`data.transform`) `standardised` is what it sees, while `data` has the slopes of the maps in it: values,
            samples and log p are float64 then, what a map does not take has log p −inf, and a circular column has its
            density over one period, where its samples lie.
        dim: D, of flows whose fields do not say it.
        solver: instead of the flow's own.
        generator: of all draws; None takes PyTorch's own.
        chunk: rows solved together; None solves all at once.
        validate_args: as everywhere in `torch.distributions`; None takes the default that is set there.
        on_failure: of rows whose log p cannot be solved: `raise`, or `nan` (see `Flow.log_prob`).

    Raises:
        InputError: unknown coordinates, `data` of a flow without a standardiser, or a dimension that is missing or
            contradicts the flow's.

    >>> import torch
    >>> from sparseflows.flow.fields import LinearField
    >>> from sparseflows.flow.model import Flow
    >>> p = Flow(LinearField(torch.zeros(2, 2))).distribution(dim=2)  # the field that stands still: N(0, I)
    >>> p.batch_shape, p.event_shape
    (torch.Size([]), torch.Size([2]))
    >>> p.log_prob(torch.zeros(5, 2)).shape
    torch.Size([5])
    >>> copies = p.expand((3,))
    >>> copies.sample((4,)).shape
    torch.Size([4, 3, 2])
    >>> f"{p.entropy().item():.4f}"  # log 2πe
    '2.8379'
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own classes have it so)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        flow: BaseFlow,
        *,
        coordinates: Coordinates = "standardised",
        dim: int | None = None,
        solver: Solver | None = None,
        generator: torch.Generator | None = None,
        chunk: int | None = None,
        validate_args: bool | None = None,
        on_failure: str = "raise",
    ) -> None:
        if coordinates not in ("standardised", "data"):
            raise InputError(f"unknown coordinates '{coordinates}' (known: data, standardised)")
        self.flow, self.coordinates, self.solver, self.chunk = flow, coordinates, solver, chunk
        check_on_failure(on_failure)
        check_chunk(chunk)
        check_kind("solver", solver, Solver, EXAMPLE)
        self.generator, self.on_failure = generator, on_failure
        self._own = coordinates_of(flow.standardiser) if coordinates == "data" else None
        super().__init__(Size(), Size((flow.dimension(dim),)), validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """Independent copies, in `batch_shape`; the flow is shared."""
        shape = torch.empty(self.batch_shape).expand(torch.Size(batch_shape)).shape  # refuses what does not fit
        new = cast(FlowDistribution, self._get_checked_instance(FlowDistribution, _instance))
        for name in ("flow", "coordinates", "solver", "chunk", "generator", "on_failure", "_own"):
            setattr(new, name, getattr(self, name))
        super(FlowDistribution, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p in nats of value (…, D), in the shape of … broadcast with the batch shape.

        Gradients reach the value and the flow's parameters.

        Raises:
            ValueError: a value of another shape, or NaN, where arguments are validated.
            SolveFailed: the solver did not reach the end, unless `on_failure` is nan.
        """
        if self._validate_args:
            self._validate_sample(value)
        dtype = next(self.flow.parameters(), value).dtype
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        points, log_slope, taken = value.reshape(-1, value.shape[-1]), torch.zeros(()), None
        if self._own is None:
            points = points.to(dtype)
        else:
            points, log_slope, taken = self._own.arrive(points, dtype)
        if len(points):
            found = self.flow.log_prob(points, solver=self.solver, chunk=self.chunk, on_failure=self.on_failure)
            found = found + log_slope.to(found.device)
        else:
            found = points.sum(-1) + log_slope
        if taken is not None:  # the others have density 0
            found = found.new_full(taken.shape, -math.inf).index_put((taken,), found)
        return found.view(value.shape[:-1]).expand(shape)

    def rsample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """Samples of sample_shape + batch_shape + (D,), through the solve: gradients reach the flow's parameters.

        `sample` gives the same without gradients.
        """
        shape = self._extended_shape(Size(sample_shape))
        noise = self.flow.draw_noise(shape, self.generator)
        rows = noise.view(-1, shape[-1])
        if len(rows) == 0:
            return noise
        parts = [self.flow.to_data(part, solver=self.solver) for part in rows.split(self.chunk or len(rows))]
        return self._in_coordinates(torch.cat(parts).view(shape))

    def _in_coordinates(self, samples: Tensor) -> Tensor:
        if self._own is None or not samples.numel():
            return samples
        return self._own.leave(samples.reshape(-1, samples.shape[-1])).view(samples.shape)

    def sample(self, sample_shape: Sequence[int] = Size()) -> Tensor:
        """Samples of sample_shape + batch_shape + (D,), without gradients; draws that run off are drawn again."""
        shape = self._extended_shape(Size(sample_shape))
        solver = self.solver or self.flow.solver
        drawn = draw(self.flow, math.prod(shape[:-1]), self.generator, shape[-1], solver, None, self.chunk)
        return self._in_coordinates(drawn.samples.view(shape))

    def entropy(self) -> Tensor:
        """−E log p in nats, of the batch shape, by Monte Carlo over 4,096 samples; see `entropy_with_error`."""
        return self.entropy_with_error().value

    def entropy_with_error(self, n: int = ENTROPY_SAMPLES, generator: torch.Generator | None = None) -> Entropy:
        """The entropy from `n` samples, with its standard error; gradients reach the flow's parameters.

        Samples and log p come from one solve. Where the samples' noise z lies has a known mean, E log N(z; 0, I) =
        −D/2 log 2πe, so log N(z) serves as a control variate (its coefficient is fitted, which costs a bias of order
        1/n): where log p differs from it by a constant, as of any Gaussian, the error is that of the solver alone.

        Args:
            n: samples, at least 3.
            generator: instead of the distribution's own.

        Raises:
            InputError: fewer than 3 samples.
            SolveFailed: the solver did not reach the end.
        """
        if n < 3:
            raise InputError(f"an entropy from {n} samples has no error; give n of at least 3")
        dim = self.event_shape[0]
        noise = self.flow.draw_noise((n, dim), generator or self.generator)
        parts = noise.split(self.chunk or n)
        ends = [self.flow.transform(part, reverse=True, solver=self.solver).require() for part in parts]
        base = standard_normal_log_prob(noise)
        log_prob = base + torch.cat([end.trace for end in ends])
        if self._own is not None:
            log_prob = log_prob + self._own.log_slope(torch.cat([end.points for end in ends]))
            base = base.to(log_prob)
        off = base + 0.5 * dim * math.log(2 * math.pi * math.e)  # of mean 0
        centred = off - off.mean()
        slope = (centred @ log_prob.detach()) / (centred @ centred)
        values = -(log_prob - slope * off)
        error = values.detach().std() * math.sqrt((n - 1) / (n - 2) / n)
        return Entropy(values.mean().expand(self.batch_shape), error.expand(self.batch_shape))

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"FlowDistribution({shapes}, coordinates='{self.coordinates}')"
