"""What every flow is: a chain of blocks that carries points from data to noise and back, and the density it defines.

`Flow`, the public class, adds what is made from such a chain (`flow.model`); what is made from it needs no more.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.calls import values_of_made_tensors
from sparseflows.flow.divergence import DivergenceKind, DivergenceRule, Drawer, check_generator, divergence_rule
from sparseflows.flow.draws import draw
from sparseflows.flow.fields import Field, MLPField, as_field
from sparseflows.flow.inputs import as_rows
from sparseflows.flow.options import EXAMPLE, check_kind, check_options, check_parts
from sparseflows.flow.rows import carried
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.transform import Transformed, standard_normal_log_prob, transform
from sparseflows.rng import torch_generator


class Block(nn.Module):
    """One CNF of the chain: a field and its end time T = s², trained (s starts at 1) or fixed at 1."""

    sqrt_end_time: Tensor | None

    def __init__(self, field: nn.Module, train_end_time: bool = False) -> None:
        super().__init__()
        self.field = as_field(field)
        self.register_parameter("sqrt_end_time", nn.Parameter(torch.ones(())) if train_end_time else None)

    def end_time(self, like: Tensor) -> Tensor:
        """T () in the precision of `like` (B, D)."""
        return torch.ones_like(like[0, 0]) if self.sqrt_end_time is None else self.sqrt_end_time**2


class BaseFlow(nn.Module):
    """A chain of blocks with their density; arguments and attributes are those of `Flow`."""

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
        fields = [fields] if not isinstance(fields, Sequence | nn.ModuleList) else list(fields)
        check_parts(fields, whitening)
        check_kind("solver", solver, Solver, EXAMPLE)
        self.blocks = nn.ModuleList(Block(field, train_end_time) for field in fields)
        self.register_buffer("whitening", whitening)
        self.solver = solver or Solver()
        self.standardiser: object | None = None
        self.columns: tuple[str, ...] | None = None

    @property
    def dim(self) -> int | None:
        """D, where a field says so."""
        return next((d for field in self.fields() if isinstance(d := getattr(field, "dim", None), int)), None)

    @property
    def known_dim(self) -> int | None:
        """D, where a field, the whitening or the standardiser says so."""
        own = self.dim
        if own is not None:
            return own
        if self.whitening is not None:
            return len(self.whitening)
        shift = getattr(self.standardiser, "shift", None)
        return None if shift is None else len(shift)

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
        noise: str | Drawer = "rademacher",
        generator: torch.Generator | None = None,
        regularise: bool = False,
        by_row: bool = False,
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
            by_row: rows that fail are told by `Transformed.failed`, and all others are carried to their end; without
                gradients. (`flow.rows.carry_rows` solves them again.)

        Returns:
            Points, integrals and NFE summed over the blocks, and the status of the first block that failed.
            `trace` holds log|det ∂z/∂x| whichever the direction.
        """
        self._check(points)
        zeros = torch.zeros_like(points[:, 0])
        start, log_det = (points, 0.0) if reverse else self.whiten(points)
        total = Transformed(start, zeros + log_det, zeros, zeros, 0, Status.DONE)
        with_graph = torch.is_grad_enabled()
        for block in reversed(self.chain()) if reverse else self.chain():
            field = cast(Field, block.field)
            # A row that failed in a block before stopped beyond all numbers, perhaps: it goes on from 0.
            begin = total.points if total.failed is None else total.points.masked_fill(total.failed.unsqueeze(1), 0.0)
            step = transform(
                field,
                block.end_time(points),
                begin,
                solver or self.solver,
                reverse=reverse,
                divergence=divergence_rule(divergence, noise, points, generator),
                regularise=regularise,
                # Not the block's: T goes in by itself, and the adjoint would count s = √T twice.
                parameters=tuple(p for p in block.field.parameters() if p.requires_grad) if with_graph else (),
                by_row=by_row,
            )
            total = total.followed_by(step)
            if total.status is not Status.DONE and not by_row:
                return total
        if not reverse:
            return total
        end, log_det = self.whiten(total.points, reverse=True)
        return replace(total, points=end, trace=total.trace + log_det)

    def log_prob(
        self,
        points: Any,
        *,
        solver: Solver | None = None,
        divergence: DivergenceKind = "exact",
        noise: str = "rademacher",
        generator: torch.Generator | None = None,
        chunk: int | None = None,
        on_failure: str = "raise",
    ) -> Tensor:
        """log p(x) in nats for points (B, D): (B,); of one row (D,): ().

        Args:
            points: in the flow's own (standardised) coordinates; arrays and other precisions are converted.
            solver: instead of the flow's own.
            divergence: exact, or hutchinson for an unbiased estimate.
            noise: of hutchinson.
            generator: of hutchinson's noise.
            chunk: rows solved together; None solves all at once. torchdiffeq chooses its steps for each
                chunk, so values agree to its tolerance; the compiled engine's agree to the last bit.
            on_failure: `raise`, or `nan`: rows that cannot be solved are NaN, all others have their value. Without
                gradients a row that fails is first solved again by itself, in float64 (`flow.rows.carry_rows`). A row
                beyond all numbers has −inf either way.

        Raises:
            InputError: other shapes, no numbers, or NaN (unless `on_failure` is nan).
            SolveFailed: the solver did not reach the end; it says for which rows.

        Example:
            dz/dt = A z for a diagonal A, whose log-determinant is the sum of the diagonal.

            >>> from sparseflows import Flow
            >>> from sparseflows.flow.fields import LinearField
            >>> flow = Flow(LinearField(torch.diag(torch.tensor([0.5, -0.25], dtype=torch.float64))))
            >>> origin = torch.zeros(1, 2, dtype=torch.float64)
            >>> round(flow.log_prob(origin).item(), 4)  # -log(2 pi) + 0.25
            -1.5879
        """
        check_options(solver, divergence, noise, generator, chunk)
        rows, alone = as_rows(self, points)
        how: dict[str, Any] = {"divergence": divergence, "noise": noise, "generator": generator}
        parts = [
            carried(self, part, on_failure, solver or self.solver, **how).log_prob()
            for part in rows.split(chunk or len(rows))
        ]
        found = torch.cat(parts)
        return found[0] if alone else found

    def forward(self, points: Any, **options: Any) -> Tensor:
        """The call of the module itself, as `torch.func.functional_call` makes it: log p (B,), as `log_prob` has it."""
        return self.log_prob(points, **options)

    def to_noise(self, points: Any, *, solver: Solver | None = None, on_failure: str = "raise") -> Tensor:
        """z(T) (B, D) for x (B, D), or (D,) for (D,); `points` and `on_failure` as in `log_prob`."""
        check_kind("solver", solver, Solver, EXAMPLE)
        rows, alone = as_rows(self, points)
        found = carried(self, rows, on_failure, solver or self.solver, divergence=None).points
        return found[0] if alone else found

    def to_data(self, noise: Any, *, solver: Solver | None = None, on_failure: str = "raise") -> Tensor:
        """x (B, D) for z(T) (B, D), or (D,) for (D,); `noise` and `on_failure` as `points` in `log_prob`."""
        check_kind("solver", solver, Solver, EXAMPLE)
        rows, alone = as_rows(self, noise)
        found = carried(self, rows, on_failure, solver or self.solver, reverse=True, divergence=None).points
        return found[0] if alone else found

    @torch.no_grad()
    def sample(
        self, n: int, *, generator: torch.Generator | None = None, dim: int | None = None, solver: Solver | None = None
    ) -> Tensor:
        """n samples (n, D) in the flow's own coordinates; draws that run off are drawn again, with a warning."""
        return draw(self, n, generator, dim, solver or self.solver, None).samples

    @torch.no_grad()
    def sample_and_log_prob(
        self, n: int, *, generator: torch.Generator | None = None, dim: int | None = None, solver: Solver | None = None
    ) -> tuple[Tensor, Tensor]:
        """n samples (n, D) and their log p (n,), from one solve: log p(x) = log N(z) + ∫₀ᵀ tr dt."""
        found = draw(self, n, generator, dim, solver or self.solver, "exact")
        return found.samples, standard_normal_log_prob(found.noise) + found.trace

    def dimension(self, dim: int | None = None) -> int:
        """D, as the fields, the whitening or the standardiser say it, or else `dim`.

        Raises:
            InputError: nobody says it, or `dim` contradicts.
        """
        own = self.known_dim
        if dim is not None and own is not None and dim != own:
            raise InputError(f"dim={dim}, but the flow has {own} dimensions; leave dim out")
        found = dim or own
        if found is None:
            raise InputError("this flow's fields do not say their dimension; pass dim=D")
        return found

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (*shape), in the flow's precision and on its device; the generator draws there too."""
        like = self.like()
        check_generator(generator, like)
        return torch.randn(*shape, generator=generator, dtype=like.dtype, device=like.device)

    def like(self) -> Tensor:
        """A parameter (…), whose precision and device are the flow's; an empty tensor (0,) where there is none."""
        return next(self.parameters(), torch.empty(0))

    def whiten(self, points: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """W x, or W⁻¹ x with `reverse`, for points x (B, D), and log|det W| (); x itself and 0 without whitening."""
        if self.whitening is None:
            return points, points.new_zeros(())
        matrix = self.whitening.to(points.dtype)
        moved = torch.linalg.solve(matrix, points.T).T if reverse else points @ matrix.T
        return moved, torch.linalg.slogdet(matrix).logabsdet

    def __repr__(self) -> str:
        solver = self.solver
        steps = f"{solver.steps} steps" if solver.steps else f"rtol {solver.rtol:g}, atol {solver.atol:g}"
        parts = [
            f"{sum(parameter.numel() for parameter in self.parameters()):,} params",
            *dict.fromkeys(map(_described, self.fields())),
            f"{solver.method}, {steps}",
            *(["whitens first"] if self.whitening is not None else []),
            *(["of standardised data"] if self.standardiser is not None else []),
        ]
        blocks = f", {len(self.blocks)} blocks" if len(self.blocks) > 1 else ""
        return f"{type(self).__name__}(D = {self.dim or '?'}{blocks}: {'; '.join(parts)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        new = memo[id(self)] = type(self).__new__(type(self))
        memo.update(values_of_made_tensors(self))
        new.__setstate__(copy.deepcopy(vars(self), memo))
        return new

    def _check(self, points: Tensor) -> None:
        dim = self.dim
        if points.ndim != 2 or len(points) == 0 or (dim is not None and points.shape[1] != dim):
            wanted = f"(B, {dim})" if dim else "(B, D)"
            raise InputError(f"points have shape {tuple(points.shape)}; the flow takes {wanted}, B at least 1")


def _described(field: nn.Module) -> str:
    """`MLP 2-64-64-2, tanh, time concat`, or the name of a field of one's own."""
    if not isinstance(field, MLPField):
        return type(getattr(field, "module", field)).__name__
    widths = "-".join(map(str, (field.dim, *field.hidden, field.dim)))
    return f"MLP {widths}, {field.activation}, time {field.time}" + (
        "" if field.is_plain() else ", with hooks or masks"
    )


def seeded_initialise(flow: BaseFlow, seed: int, gain: float = 1.0) -> None:
    """Draw the weights of all MLP fields of `flow` from `seed`, one generator a block."""
    for index, field in enumerate(flow.fields()):
        if isinstance(field, MLPField):
            field.initialise(torch_generator(seed, f"initialise/{index}"), gain)
