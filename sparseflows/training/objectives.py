"""What a training minimises: the NLL by solving the ODE, flow matching without, or a classifier's cross-entropy."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import InputError
from sparseflows.flow import divergence as div
from sparseflows.flow.compiled import engine
from sparseflows.flow.divergence import DivergenceKind
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, standard_normal_log_prob
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.specs import SolveSpec, Spec, TrainSpec
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.losses import Loss, with_gradients


class Objective(Protocol):
    """Rows (B, D) and a generator → loss.

    One that has an attribute `processes` may be trained by several: each gives it the whole batch and draws the noise
    of the whole batch, so that the numbers are those of one process, then computes its share of the rows. The loss is
    its part of the batch's mean.
    """

    def __call__(self, flow: Any, rows: Tensor, generator: torch.Generator) -> Loss:
        """The loss of one batch (B, D)."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """An objective that carries something from one training step to the next."""

    def begin_step(self, step: int, total: int) -> None:
        """Training step `step` (from 0) of `total` comes next."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to go on with the same numbers; plain numbers, lists and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """−mean log p (FFJORD), with the RNODE regularisers of Finlay et al. 2020.

    Attributes:
        solver: of the training solves.
        divergence: exact or hutchinson.
        noise: of hutchinson, drawn once a solve.
        kinetic: weight of the mean ∫|f|² dt.
        jacobian: weight of the mean ∫‖∂f/∂z‖²_F dt.
        processes: that share the rows of a batch.
    """

    solver: Solver
    divergence: DivergenceKind = "exact"
    noise: str = "rademacher"
    kinetic: float = 0.0
    jacobian: float = 0.0
    processes: Processes = ALONE

    def __call__(self, flow: Flow, rows: Tensor, generator: torch.Generator) -> Loss:
        """NLL of the batch (B, D) in nats, plus the weighted regularisers."""
        share = self.processes.share(len(rows))

        def draw(like: Tensor, generator: torch.Generator) -> Tensor:
            # The share's rows of the probes that are drawn for the whole batch.
            return div.draw_noise(self.noise, like.new_empty(share.whole, like.shape[1]), generator)[share.rows]

        result = flow.transform(
            rows[share.rows],
            solver=replace(self.solver, processes=share.processes),
            divergence=self.divergence,
            noise=draw,
            generator=generator,
            regularise=bool(self.kinetic or self.jacobian),
        )
        value = -(standard_normal_log_prob(result.points) + result.trace).mean()
        if self.kinetic or self.jacobian:
            value = value + self.kinetic * result.kinetic.mean() + self.jacobian * result.jacobian.mean()
        return Loss(share.part(value), result.nfe, result.status)


@dataclass(frozen=True)
class FlowMatching:
    """mean |f(t, (1 − t)x + t z) − (z − x)|², z ~ N(0, I), t = u^time_power (Lipman et al. 2023; Liu et al. 2023).

    The straight paths lead from the data x at t = 0 to noise at t = 1; the minimiser is the field whose
    flow carries one density to the other, so the likelihood that is reported stays the exact one.

    Attributes:
        time_power: above 1 it looks closer at the data.
        compiled: leave loss and gradient to the compiled engine where it takes the field.
        processes: that share the rows of a batch.
    """

    time_power: float = 1.0
    compiled: bool = True
    processes: Processes = ALONE

    def __call__(self, flow: Flow, rows: Tensor, generator: torch.Generator) -> Loss:
        """The squared error of the velocity, summed over the coordinates, mean over the batch (B, D)."""
        check_flow_matching(flow)
        share = self.processes.share(len(rows))
        noise, t = (drawn[share.rows] for drawn in self.draw(rows, generator))
        rows = rows[share.rows]
        field = next(flow.fields())
        points, _ = flow.whiten(rows)
        if not (self.compiled and torch.is_grad_enabled() and engine.takes(field, points, exact=False)):
            return Loss(share.part(self.errors(flow, rows, noise, t).mean()), 1, Status.DONE)
        assert isinstance(field, MLPField)
        value, gradients = engine.match(field, t, *self.path(points, noise, t))
        known = with_gradients(rows.new_tensor(value), field.tensors(), gradients)
        return Loss(share.part(known), 1, Status.DONE)

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise (B, D) and times (B, 1) for rows (B, D)."""
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        t = torch.rand(len(rows), 1, generator=generator, dtype=rows.dtype, device=rows.device)
        return noise, t.pow_(self.time_power)

    @staticmethod
    def errors(flow: Flow, rows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The squared error (B,) of the velocity at rows (B, D), for noise (B, D) and times (B, 1) that are given."""
        points, targets = FlowMatching.path(flow.whiten(rows)[0], noise, t)
        return (next(flow.fields())(t, points) - targets).square().sum(1)

    @staticmethod
    def path(rows: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The point (B, D) at times (B, 1) of the straight path from rows (B, D) to noise (B, D), and its velocity."""
        return torch.lerp(rows, noise, t), noise - rows


@dataclass(frozen=True)
class CrossEntropy:
    """−mean log softmax(logits)_label, in nats, of a classifier; rows (B, D + 1) carry the label as their last column.

    float32 holds whole numbers up to 2²⁴ exactly, so a label survives among the columns.

    Attributes:
        solver: of a flow's solves; networks have none.
        processes: that share the rows of a batch.
    """

    solver: Solver
    processes: Processes = ALONE

    def __call__(self, flow: nn.Module, rows: Tensor, generator: torch.Generator) -> Loss:
        """The mean cross-entropy of the batch (B, D + 1).

        Raises:
            InputError: labels that are no whole numbers, or not those of a logit.
        """
        points, labels = split_labels(rows)
        share = self.processes.share(len(rows))
        points, labels = points[share.rows], labels[share.rows]
        single = flow.training and len(rows) == 1  # an epoch's last batch: batch norm has no variance to divide by
        if single:
            flow.eval()
        found, status, nfe = logits(flow, points, replace(self.solver, processes=share.processes))
        if single:
            flow.train()
        if int(labels.max()) >= found.shape[1]:
            raise InputError(f"label {int(labels.max())} has no logit: there are {found.shape[1]}, counted from 0")
        return Loss(share.part(F.cross_entropy(found, labels)), nfe, status)


def split_labels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, D + 1) → points (B, D) and the labels (B,) int64 of their last column.

    Raises:
        InputError: no column beside the label, no row, or a label that is no whole number from 0 on.
    """
    if rows.ndim != 2 or rows.shape[1] < 2 or len(rows) == 0:
        raise InputError(f"rows have shape {tuple(rows.shape)}; wanted are (B, D + 1), the last column the label")
    given = rows[:, -1]
    wrong = ~((given >= 0) & (given == given.round()) & given.isfinite())
    if bool(wrong.any()):
        raise InputError(f"label {given[wrong][0].item():g} in the last column of the rows; labels are 0, 1, 2, …")
    return rows[:, :-1], given.long()


def logits(network: nn.Module, points: Tensor, solver: Solver | None = None) -> tuple[Tensor, Status, int]:
    """Logits (B, classes) of points (B, D), how the solve ended, and the evaluations of the field or network.

    Those of a flow are the final state z(T) of its ODE, with no readout, so classes = D; those of any other module are
    what it returns, with the status NON_FINITE where that is not finite. Modes (training or not) are left alone.

    `points` are standardised; `solver` stands for a flow's own.
    """
    if isinstance(network, Flow):
        result = network.transform(points, solver=solver, divergence=None)
        return result.points, result.status, result.nfe
    found: Tensor = network(points)
    return found, Status.DONE if bool(found.isfinite().all()) else Status.NON_FINITE, 1


def check_flow_matching(flow: Flow) -> None:
    """Raise InputError unless `flow` has one block and T = 1 (the paths are of unit length)."""
    blocks = flow.chain()
    if len(blocks) != 1 or blocks[0].sqrt_end_time is not None:
        raise InputError("flow_matching needs one block and a fixed end time T = 1")


def training_solver(settings: SolveSpec) -> Solver:
    """The solver of the `solve` section; its error is a mean over the batch, as in the published recipes."""
    return Solver(
        settings.method, settings.rtol, settings.atol, settings.steps, settings.max_nfe, settings.gradient, "batch"
    )


def build_objective(spec: Spec, train: TrainSpec, processes: Processes = ALONE) -> Objective:
    """The objective of a param file, for the `processes` that share its batches."""
    solve = spec.solve
    if train.objective == "flow_matching":
        return FlowMatching(train.time_power, processes=processes)
    if train.objective == "cross_entropy":
        return CrossEntropy(training_solver(solve), processes)
    if solve.hold_grid is not None:
        return held_steps(solve, processes)
    solver = training_solver(solve)
    return NegativeLogLikelihood(solver, solve.divergence, solve.noise, train.kinetic, train.jacobian, processes)


def held_steps(settings: SolveSpec, processes: Processes = ALONE) -> HeldStepsLikelihood:
    """The NLL on held steps that the `solve` section describes."""
    assert settings.hold_grid is not None
    return HeldStepsLikelihood(
        settings.method,
        settings.rtol,
        settings.first_tol,
        settings.hold_grid,
        settings.hold_rows,
        settings.divergence,
        settings.noise,
        settings.max_nfe,
        processes=processes,
    )
