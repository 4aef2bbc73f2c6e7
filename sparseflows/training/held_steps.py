"""The NLL on steps that are chosen by an error estimate and then held for a while.

A solve with error control evaluates the field on steps that it rejects, and an estimate on every step that it
keeps. The weights move little from one training step to the next, so the steps that were right for one batch serve the
next few; they are chosen again every `hold` training steps. The gradient is that of the discretised solve.

Steps that are held for good could be cheated by the training: hence the renewal, and the exact likelihood of every
report.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.flow import divergence as div
from sparseflows.flow.compiled import engine
from sparseflows.flow.divergence import DivergenceKind
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, standard_normal_log_prob
from sparseflows.flow.solvers.held_grid import Steps, choose_grid, solve_on_grid
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.solvers.tableaus import TABLEAUS
from sparseflows.training.losses import Loss, with_gradients

FIRST_STEP = 0.1  # of the very first choice


@dataclass
class HeldStepsLikelihood:
    """−mean log p on held steps, for flows whose fields are `MLPField`s.

    Attributes:
        method: bosh3 or dopri5.
        tol: tolerance of the embedded error, root mean square over the rows, at the end of the training.
        first_tol: at its beginning; between them it falls geometrically.
        hold: training steps for which the grids are held.
        rows: of the batch, that they are chosen by.
        divergence, noise: as in `NegativeLogLikelihood`.
        max_nfe: evaluations after which a choice is given up.
        compiled: leave the solve to the compiled engine where it takes the field.
        recompute: without the engine: evaluate once more on the way back, so that memory does not grow with the steps.
        processes: that share the rows of a batch; each chooses the same steps, by the same rows of the whole batch.
    """

    method: str = "bosh3"
    tol: float = 1e-3
    first_tol: float | None = None
    hold: int = 8
    rows: int = 256
    divergence: DivergenceKind = "exact"
    noise: str = "rademacher"
    max_nfe: int = 5000
    compiled: bool = True
    recompute: bool = False
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self.grids: list[Steps] = []
        self._step, self._total = 1, 1  # as at the end, until a training says otherwise

    def begin_step(self, step: int, total: int) -> None:
        """Training step `step` (from 0) of `total` comes next."""
        self._step, self._total = step, total

    def state_dict(self) -> dict[str, Any]:
        """The held grids: what a resumed training needs to go on with the same numbers."""
        return {"grids": [list(steps) for steps in self.grids]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.grids = [tuple(steps) for steps in state["grids"]]

    @property
    def tolerance(self) -> float:
        """At this step of the training."""
        start = self.first_tol or self.tol
        return start ** (1 - self._step / self._total) * self.tol ** (self._step / self._total)

    def __call__(self, flow: Flow, rows: Tensor, generator: torch.Generator) -> Loss:
        """NLL of the batch (B, D) in nats."""
        points, log_det = flow.whiten(rows)
        drawn = self.divergence == "hutchinson"
        probes = [div.draw_noise(self.noise, points, generator) if drawn else None for _ in flow.chain()]
        nfe = 0
        if self._step % self.hold == 0 or len(self.grids) != len(flow.chain()):
            nfe, status = self.choose(flow, points, probes)
            if status is not Status.DONE:
                return Loss(points.sum() * 0, nfe, status)
        nfe += sum(map(len, self.grids)) * len(TABLEAUS[self.method].b)
        share = self.processes.share(len(points))
        own = [None if probe is None else probe[share.rows] for probe in probes]
        value = share.part(self._mean(flow, points[share.rows], own) - log_det)
        return Loss(value, nfe, Status.DONE if bool(torch.isfinite(value)) else Status.NON_FINITE)

    def choose(self, flow: Flow, points: Tensor, probes: Sequence[Tensor | None]) -> tuple[int, Status]:
        """Choose the grids of all blocks anew by the first of the whitened points (B, D); gives the NFE and the status.

        `probes` are (B, D) for each block, or None.
        """
        points, tol = points[: self.rows], self.tolerance
        before, nfe = self.grids or [(FIRST_STEP,)] * len(probes), 0
        grids = []
        for block, held, whole in zip(flow.chain(), before, probes, strict=True):
            field, end, probe = (
                _mlp(block.field),
                block.end_time(points).detach(),
                None if whole is None else whole[: self.rows],
            )
            if self.compiled and engine.takes(field, points, probe is None):
                solver = Solver(self.method, tol, tol, max_nfe=self.max_nfe, norm="batch")
                chosen = engine.choose_steps(field, float(end), points, solver, held[0], probe)
            else:
                chosen = choose_grid(field, end, points, TABLEAUS[self.method], tol, held[0], probe, self.max_nfe)
            nfe, points = nfe + chosen.nfe, chosen.state[0]
            grids.append(chosen.steps)
            if chosen.status is not Status.DONE:
                return nfe, chosen.status
        self.grids = grids
        return nfe, Status.DONE

    def _mean(self, flow: Flow, points: Tensor, probes: Sequence[Tensor | None]) -> Tensor:
        """−mean (log N(end) + ∫ trace) of whitened points, on the held grids."""
        fields = [_mlp(block.field) for block in flow.chain()]
        ends = [block.end_time(points) for block in flow.chain()]
        tableau, exact = TABLEAUS[self.method], self.divergence == "exact"
        # One set of probes serves all blocks there: with Hutchinson only a single block goes to the engine.
        if self.compiled and (exact or len(fields) == 1) and all(engine.takes(f, points, exact) for f in fields):
            wanted, times = torch.is_grad_enabled(), [float(end.detach()) for end in ends]
            found = engine.walk(fields, times, self.grids, tableau, points, probes[0], wanted)
            value = -(standard_normal_log_prob(found.ends) + found.traces).mean()
            if not wanted:
                return value
            inputs = [tensor for field in fields for tensor in field.tensors()] + ends
            gradients = [g for block in found.gradients for g in block]
            return with_gradients(value, inputs, [*gradients, *map(value.new_tensor, found.of_end_times)])
        trace = torch.zeros_like(points[:, 0])
        for field, end, steps, probe in zip(fields, ends, self.grids, probes, strict=True):
            points, more = solve_on_grid(field, end, points, steps, tableau, probe, self.recompute)
            trace = trace + more
        return -(standard_normal_log_prob(points) + trace).mean()


def _mlp(field: object) -> MLPField:
    assert isinstance(field, MLPField), "param files make no other fields"
    return field
