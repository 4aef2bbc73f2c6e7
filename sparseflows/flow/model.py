"""`Flow`: the density that a chain of vector fields defines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow import divergence as div
from sparseflows.flow.fields import Field, MLPField, as_field
from sparseflows.flow.solvers.ode import SolveFailed, Solver, Status
from sparseflows.flow.transform import DivergenceRule, Transformed, transform
from sparseflows.rng import torch_generator
from sparseflows.specs.choices import DivergenceKind

if TYPE_CHECKING:
    from sparseflows.flow.distribution import FlowDistribution


class Block(nn.Module):
    """One CNF of the chain: a field and its end time T = s², trained (s starts at 1) or fixed at 1."""

    sqrt_end_time: Tensor | None

    def __init__(self, field: nn.Module, train_end_time: bool = False) -> None:
        super().__init__()
        self.field = as_field(field)
        self.register_parameter("sqrt_end_time", nn.Parameter(torch.ones(())) if train_end_time else None)

    def end_time(self, like: Tensor) -> Tensor:
        """T as a scalar tensor of `like`'s precision."""
        return torch.ones_like(like[0, 0]) if self.sqrt_end_time is None else self.sqrt_end_time**2


class Flow(nn.Module):
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
    """

    whitening: Tensor | None

    def __init__(
        self,
        fields: nn.Module | Sequence[nn.Module],
        *,
        train_end_time: bool = False,
        whitening: Tensor | None = None,
        solver: Solver | None = None,
    ) -> None:
        super().__init__()
        fields = [fields] if isinstance(fields, nn.Module) else list(fields)
        if not fields:
            raise InputError("a flow needs at least one vector field")
        self.blocks = nn.ModuleList(Block(field, train_end_time) for field in fields)
        self.register_buffer("whitening", whitening)
        self.solver = solver or Solver()
        self.standardiser: object | None = None

    @property
    def dim(self) -> int | None:
        """D, where a field says so."""
        return next((d for field in self.fields() if isinstance(d := getattr(field, "dim", None), int)), None)

    def chain(self) -> list[Block]:
        """The blocks in the order data → noise, typed."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def fields(self) -> Iterator[nn.Module]:
        """The vector fields in order."""
        return (block.field for block in self.chain())

    def transform(
        self,
        points: Tensor,
        *,
        reverse: bool = False,
        solver: Solver | None = None,
        divergence: DivergenceKind | DivergenceRule | None = "exact",
        noise: str | div.Drawer = "rademacher",
        generator: torch.Generator | None = None,
        regularise: bool = False,
    ) -> Transformed:
        """Carry points (B, D) from data to noise, or from noise to data with `reverse`; never raises on failure.

        Args:
            points: (B, D).
            reverse: noise to data.
            solver: instead of the flow's own.
            divergence: exact, hutchinson, a rule of one's own, or None to leave the trace out.
            noise: of hutchinson: rademacher, gaussian, or a function that draws; once a block and solve.
            generator: of hutchinson's noise.
            regularise: accumulate the RNODE integrals too.

        Returns:
            Points, integrals and NFE summed over the blocks, and the status of the first block that failed.
            `trace` holds log|det ∂z/∂x| whichever the direction.
        """
        self._check(points)
        zeros = torch.zeros_like(points[:, 0])
        total = Transformed(points, zeros, zeros, zeros, 0, Status.DONE)
        if not reverse:
            total = self._whiten(total, reverse=False)
        for block in reversed(self.chain()) if reverse else self.chain():
            field = block.field
            assert isinstance(field, Field)
            step = transform(
                field,
                block.end_time(points),
                total.points,
                solver or self.solver,
                reverse=reverse,
                divergence=self._rule(divergence, noise, points, generator),
                regularise=regularise,
                # Not the block's: T goes in by itself, and the adjoint would count s = √T twice.
                parameters=tuple(p for p in block.field.parameters() if p.requires_grad),
            )
            total = Transformed(
                step.points,
                total.trace + step.trace,
                total.kinetic + step.kinetic,
                total.jacobian + step.jacobian,
                total.nfe + step.nfe,
                step.status,
            )
            if step.status is not Status.DONE:
                return total
        return self._whiten(total, reverse=True) if reverse else total

    def log_prob(
        self,
        points: Tensor,
        *,
        solver: Solver | None = None,
        divergence: DivergenceKind = "exact",
        noise: str = "rademacher",
        generator: torch.Generator | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """log p(x) in nats for points (B, D): (B,).

        Args:
            points: in the flow's own (standardised) coordinates.
            solver: instead of the flow's own.
            divergence: exact, or hutchinson for an unbiased estimate.
            noise: of hutchinson.
            generator: of hutchinson's noise.
            chunk: rows solved together; None solves all at once. An adaptive solver chooses its steps for
                each chunk, so values agree to its tolerance, not to the last bit.

        Raises:
            SolveFailed: the solver did not reach the end.

        Example:
            dz/dt = A z for a diagonal A, whose log-determinant is the sum of the diagonal.

            >>> from sparseflows.flow.fields import LinearField
            >>> flow = Flow(LinearField(torch.diag(torch.tensor([0.5, -0.25], dtype=torch.float64))))
            >>> origin = torch.zeros(1, 2, dtype=torch.float64)
            >>> round(flow.log_prob(origin).item(), 4)  # -log(2 pi) + 0.25
            -1.5879
        """
        self._check(points)
        parts = []
        for part in points.split(chunk or len(points)):
            result = self.transform(part, solver=solver, divergence=divergence, noise=noise, generator=generator)
            if result.status is not Status.DONE:
                raise SolveFailed(result.status, result.nfe)
            parts.append(standard_normal_log_prob(result.points) + result.trace)
        return torch.cat(parts)

    def to_noise(self, points: Tensor, *, solver: Solver | None = None) -> Tensor:
        """z(T) for x (B, D)."""
        return self._carry(points, solver, reverse=False)

    def to_data(self, noise: Tensor, *, solver: Solver | None = None) -> Tensor:
        """x for z(T) (B, D)."""
        return self._carry(noise, solver, reverse=True)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dim: int | None = None,
        solver: Solver | None = None,
    ) -> Tensor:
        """n samples (n, D) in the flow's own coordinates."""
        return self.to_data(self._noise(n, generator, dim), solver=solver)

    @torch.no_grad()
    def sample_and_log_prob(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dim: int | None = None,
        solver: Solver | None = None,
    ) -> tuple[Tensor, Tensor]:
        """n samples (n, D) and their log p (n,), from one solve: log p(x) = log N(z) + ∫₀ᵀ tr dt."""
        noise = self._noise(n, generator, dim)
        result = self.transform(noise, reverse=True, solver=solver)
        if result.status is not Status.DONE:
            raise SolveFailed(result.status, result.nfe)
        return result.points, standard_normal_log_prob(noise) + result.trace

    def distribution(self, **options: Any) -> FlowDistribution:
        """This density as a `torch.distributions.Distribution`; options as `flow.distribution.FlowDistribution`."""
        from sparseflows.flow.distribution import FlowDistribution

        return FlowDistribution(self, **options)

    def compact(self) -> Flow:
        """A new flow without the dead neurons, its outputs the same to rounding; see `flow.compact.compact`."""
        from sparseflows.flow.smaller.compact import compact

        return compact(self)

    def to_sparse(self, threshold: float | None = None) -> Flow:
        """A new flow, for inference only, that skips the zeros of its matrices; see `flow.sparse.to_sparse`.

        Its outputs are the same to rounding. `threshold` is the share of zeros above which a matrix is
        executed as sparse; None takes the measured break-even, `flow.sparse.BREAK_EVEN`.
        """
        from sparseflows.flow.smaller.sparse import to_sparse

        return to_sparse(self, threshold)

    def _carry(self, points: Tensor, solver: Solver | None, reverse: bool) -> Tensor:
        result = self.transform(points, reverse=reverse, solver=solver, divergence=None)
        if result.status is not Status.DONE:
            raise SolveFailed(result.status, result.nfe)
        return result.points

    def _noise(self, n: int, generator: torch.Generator | None, dim: int | None) -> Tensor:
        dim = dim or self.dim
        if dim is None:
            raise InputError("this flow's fields do not say their dimension; pass dim=D")
        like = next(self.parameters(), torch.empty(0))
        return torch.randn(n, dim, generator=generator, dtype=like.dtype, device=like.device)

    @staticmethod
    def _rule(
        kind: DivergenceKind | DivergenceRule | None,
        noise: str | div.Drawer,
        like: Tensor,
        generator: torch.Generator | None,
    ) -> DivergenceRule | None:
        if callable(kind):
            return kind
        if kind == "hutchinson":
            probe = div.draw_noise(noise, like, generator or torch.default_generator)
            return div.Hutchinson(probe)
        if kind not in ("exact", None):
            raise InputError(f"unknown divergence '{kind}' (known: exact, hutchinson)")
        return None if kind is None else div.exact

    def whiten(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """W x for points x (B, D), and log|det W|; the points themselves and 0 where the flow does not whiten."""
        zeros = torch.zeros_like(points[:, 0])
        moved = self._whiten(Transformed(points, zeros, zeros, zeros, 0, Status.DONE), reverse=False)
        return moved.points, moved.trace[0]

    def _whiten(self, state: Transformed, reverse: bool) -> Transformed:
        if self.whitening is None:
            return state
        matrix = self.whitening.to(state.points.dtype)
        moved = torch.linalg.solve(matrix, state.points.T).T if reverse else state.points @ matrix.T
        trace = state.trace + torch.linalg.slogdet(matrix).logabsdet
        return Transformed(moved, trace, state.kinetic, state.jacobian, state.nfe, state.status)

    def _check(self, points: Tensor) -> None:
        if points.ndim != 2 or len(points) == 0 or (self.dim is not None and points.shape[1] != self.dim):
            wanted = f"(B, {self.dim})" if self.dim else "(B, D)"
            raise InputError(f"points have shape {tuple(points.shape)}; the flow takes {wanted}, B at least 1")


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats for z (B, D): (B,)."""
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


def seeded_initialise(flow: Flow, seed: int, gain: float = 1.0) -> None:
    """Draw the weights of all MLP fields of `flow` from `seed`, one generator a block."""
    for index, field in enumerate(flow.fields()):
        if isinstance(field, MLPField):
            field.initialise(torch_generator(seed, f"initialise/{index}"), gain)
