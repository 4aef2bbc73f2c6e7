"""Two processes train as one does: the same parameters after 50 steps, whatever the objective; and stop as one does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.pairs import Pair
from torch import nn

from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import InputError
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.networks.build import dense_network
from sparseflows.rng import torch_generator
from sparseflows.specs import TrainSpec
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.loop import Hooks, Outcome, train
from sparseflows.training.losses import Loss
from sparseflows.training.objectives import CrossEntropy, FlowMatching, NegativeLogLikelihood, Objective

pytestmark = pytest.mark.cluster

ROWS, BATCH = 100, 33  # an epoch's last batch is a single row, which two processes cannot share


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    both = Pair()
    yield both
    both.close()


def adaptive(method: str = "dopri5", tol: float = 1e-3, gradient: str = "backprop") -> Solver:
    return Solver(method, tol, tol, gradient=gradient, norm="batch", max_nfe=5000)


OBJECTIVES: dict[str, Objective] = {
    "dopri5, exact": NegativeLogLikelihood(adaptive()),
    "bosh3, hutchinson": NegativeLogLikelihood(adaptive("bosh3"), "hutchinson"),
    "dopri8, gaussian hutchinson": NegativeLogLikelihood(adaptive("dopri8"), "hutchinson", "gaussian"),
    "regularised": NegativeLogLikelihood(adaptive(), kinetic=0.1, jacobian=0.05),
    "rk4": NegativeLogLikelihood(Solver("rk4", steps=4, norm="batch"), "hutchinson"),
    "adjoint, exact": NegativeLogLikelihood(adaptive(gradient="adjoint")),
    "adjoint, hutchinson": NegativeLogLikelihood(adaptive("bosh3", gradient="adjoint"), "hutchinson"),
    "adjoint, rk4": NegativeLogLikelihood(Solver("rk4", steps=4, norm="batch", gradient="adjoint")),
    "held, exact": HeldStepsLikelihood(rows=20),
    "held, hutchinson": HeldStepsLikelihood(divergence="hutchinson", rows=20),
    "held, plain": HeldStepsLikelihood(compiled=False, rows=20),
    "flow matching": FlowMatching(2.0),
    "flow matching, plain": FlowMatching(compiled=False),
    "classifier with an ODE": CrossEntropy(adaptive()),
    "classifier": CrossEntropy(adaptive()),
}


@dataclass
class Case:
    """A training, as it goes to the processes."""

    name: str
    dtype: torch.dtype = torch.float64
    steps: int = 50
    resume: Any = None


def network_of(case: Case) -> nn.Module:
    if case.name == "classifier":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return dense_network(2, [16], 2, "relu").to(case.dtype)
    held = isinstance(OBJECTIVES[case.name], HeldStepsLikelihood)
    blocks = 1 if isinstance(OBJECTIVES[case.name], FlowMatching) else 2
    flow = Flow(
        [MLPField(2, [12, 12], "tanh", "concat") for _ in range(blocks)],
        train_end_time=blocks > 1 and not held,
        whitening=torch.tensor([[1.2, 0.1], [0.1, 0.9]], dtype=torch.float64),
    )
    seeded_initialise(flow, 0, 2.0)
    return flow.to(case.dtype)


def rows_of(case: Case) -> torch.Tensor:
    points = torch.randn(ROWS, 2, generator=torch_generator(0, "rows"), dtype=torch.float64)
    points[: ROWS // 2] = points[: ROWS // 2] * 0.4 + 1.5
    if isinstance(OBJECTIVES[case.name], CrossEntropy):
        points = torch.cat([points, (torch.arange(ROWS) < ROWS // 2)[:, None]], 1)
    return points.to(case.dtype)


def trained(processes: Processes, case: Case) -> tuple[dict[str, torch.Tensor], Outcome, list[Any]]:
    """The weights, how the training ended, and its checkpoints, all in memory of their own."""
    network = network_of(case)
    if processes.rank > 0:  # the first process's weights count
        for parameter in network.parameters():
            parameter.data.add_(1.0)
    objective = replace(OBJECTIVES[case.name], processes=processes)  # type: ignore[type-var]
    settings = TrainSpec.model_validate(
        {"steps": case.steps, "batch": BATCH, "lr": 0.01, "clip": 5.0, "schedule": "cosine"}
    )
    saved: list[Any] = []
    hooks = Hooks(save=lambda checkpoint: saved.append(copy.deepcopy(checkpoint)))
    outcome = train(
        network, objective, rows_of(case), settings, seed=1, purpose="pair", hooks=hooks, resume=case.resume
    )
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}, outcome, saved


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# The same numbers ------------------------------------------------------------------------------------------

# Sums in another order differ in the last bit, 2e-16 of them in float64, and 50 steps of Adam carry that on. In
# float32 it is 1e-7 of gradients that Adam divides by their size, however small they are: the target is 1e-5. Where the
# steps follow the error, so do their lengths; there one process alone is 4e-5 off when its rows come in reverse order.
QUICK = ["flow matching", "held, exact", "classifier"]
FLOAT32 = dict.fromkeys(["dopri5, exact", "dopri8, gaussian hutchinson", "regularised", "adjoint, exact"], 2e-4)
FLOAT32 |= dict.fromkeys(["adjoint, hutchinson", "classifier with an ODE"], 2e-4)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_two_processes_end_with_the_parameters_of_one(pair: Pair, name: str, dtype: torch.dtype) -> None:
    same_numbers(pair, Case(name, dtype))


@pytest.mark.parametrize("name", ["bosh3, hutchinson", "adjoint, exact", "classifier with an ODE", "rk4"])
def test_so_they_do_where_the_steps_follow_the_error(pair: Pair, name: str) -> None:
    same_numbers(pair, Case(name, steps=8))


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_so_they_do_with_every_objective(pair: Pair, name: str, dtype: torch.dtype) -> None:
    same_numbers(pair, Case(name, dtype))


def same_numbers(pair: Pair, case: Case) -> None:
    weights, outcome, _ = trained(ALONE, case)
    (first, found, _), (second, _, _) = pair(trained, case)
    exact = case.dtype is torch.float64
    assert furthest(first, second) == 0
    assert furthest(weights, first) < (1e-10 if exact else FLOAT32.get(case.name, 1e-5))
    assert furthest(weights, {k: v.to(case.dtype) for k, v in network_of(case).state_dict().items()}) > 0.01
    assert found.status is outcome.status is Status.DONE
    for ours, theirs in zip(found.history, outcome.history, strict=True):
        assert ours["nfe"] == theirs["nfe"]  # the same steps of the solver
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10 if exact else 1e-4)


# Checkpoints -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["held, hutchinson", "flow matching"])
def test_a_checkpoint_of_two_is_taken_up_by_one_and_the_reverse(pair: Pair, name: str) -> None:
    weights, _, saved = trained(ALONE, Case(name))
    (whole, _, of_two), _ = pair(trained, Case(name))
    middle = len(saved) // 2
    assert saved[middle]["step"] == of_two[middle]["step"] < 50
    by_one, _, _ = trained(ALONE, Case(name, resume=of_two[middle]))
    (by_two, _, _), _ = pair(trained, Case(name, resume=saved[middle]))
    assert furthest(by_one, weights) < 1e-10
    assert furthest(by_two, weights) < 1e-10
    (again, _, _), _ = pair(trained, Case(name, resume=of_two[middle]))
    assert furthest(again, whole) == 0  # and by two, to the bit


# How it stops ----------------------------------------------------------------------------------------------


class Stops(nn.Module):
    """dz/dt = w z, which becomes NaN for rows far out: those of one process alone."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z.abs() > 50, torch.nan, self.w * z)


class Overflows(Stops):
    """Carries far rows into the infinite at a finite rate: the error's estimate stays finite, the state does not."""

    def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.where(z.abs() > 50, torch.full_like(z, 1e308), self.w * z)


def stopped(processes: Processes, field: nn.Module, solver: Solver) -> tuple[Status, int, float]:
    rows = torch.ones(10, 2, dtype=torch.float64)
    rows[0] = 1.5e308 if isinstance(field, Overflows) else 100.0  # in the first one's share
    objective = NegativeLogLikelihood(solver, processes=processes)
    settings = TrainSpec.model_validate({"steps": 3, "batch": 10})
    flow = Flow(field)
    outcome = train(flow, objective, rows, settings, seed=0, purpose="stops")
    return outcome.status, outcome.steps, float(next(flow.parameters()).detach())


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "fehlberg2", "rk4"])
def test_where_the_rows_of_one_fail_all_stop(pair: Pair, method: str, gradient: str) -> None:
    fixed = Solver("rk4", steps=3, norm="batch", gradient=gradient)
    solver = fixed if method == "rk4" else adaptive(method, gradient=gradient)
    alone = stopped(ALONE, Stops(), solver)
    assert alone == (Status.NON_FINITE, 0, 1.0)
    assert pair(stopped, Stops(), solver) == [alone, alone]


@pytest.mark.parametrize("method", ["dopri5", "fehlberg2"])
def test_a_state_that_overflows_in_one_stops_all(pair: Pair, method: str) -> None:
    one, other = pair(stopped, Overflows(), replace(adaptive(method), max_nfe=200))
    assert one == other
    assert one[0] is not Status.DONE


def out_of_steps(processes: Processes) -> Status:
    solver = replace(adaptive(tol=1e-6), max_nfe=20)
    flow, rows = network_of(Case("rk4")), rows_of(Case("rk4"))
    settings = TrainSpec.model_validate({"steps": 3, "batch": BATCH})
    objective = NegativeLogLikelihood(solver, processes=processes)
    return train(flow, objective, rows, settings, seed=0, purpose="cap").status


def test_the_cap_on_evaluations_is_met_by_all(pair: Pair) -> None:
    assert pair(out_of_steps) == [Status.OUT_OF_STEPS] * 2


def with_batch_norm(processes: Processes) -> str:
    network = dense_network(2, [4], 2, batch_norm=True).double()
    objective = CrossEntropy(adaptive(), processes)
    settings = TrainSpec.model_validate({"steps": 1, "batch": BATCH, "objective": "cross_entropy"})
    with pytest.raises(InputError) as refused:
        train(network, objective, rows_of(Case("classifier")), settings, seed=0, purpose="norm")
    return str(refused.value)


def test_batch_norm_is_refused_by_name(pair: Pair) -> None:
    assert all("network.batch_norm" in said and "\n" not in said for said in pair(with_batch_norm))


class Plain:
    """An objective of a user's own, which knows nothing of processes."""

    def __call__(self, flow: Flow, rows: torch.Tensor, generator: torch.Generator) -> Loss:
        return Loss(sum(p.square().sum() for p in flow.parameters()) * rows.mean() ** 2, 1, Status.DONE)


def by_plain(processes: Processes) -> dict[str, torch.Tensor]:
    flow = network_of(Case("rk4"))
    settings = TrainSpec.model_validate({"steps": 3, "batch": BATCH})
    train(flow, Plain(), rows_of(Case("rk4")), settings, seed=0, purpose="plain")
    return dict(flow.state_dict())


def test_an_objective_that_knows_of_no_processes_is_trained_by_each_alone(pair: Pair) -> None:
    one, other = pair(by_plain)
    assert furthest(one, other) == furthest(one, by_plain(ALONE)) == 0
