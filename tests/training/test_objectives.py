"""Objectives against loops written out, and against the value of their known minimum."""

import math

import pytest
import torch
from support.truths import StraightGaussian, gaussian_log_prob, generator, jacobians, normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.divergence import draw_noise
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.specs import SolveSpec, Spec, TrainSpec
from sparseflows.training.objectives import (
    FlowMatching,
    NegativeLogLikelihood,
    build_objective,
    check_flow_matching,
    training_solver,
)

WHITENING = torch.tensor([[1.4, -0.3], [0.2, 0.9]], dtype=torch.float64)
EULER = Solver("euler", steps=6)


def mlp_flow(time="concat", base="none", whitening=None, **changes):
    flow = Flow(MLPField(2, [9, 9], "tanh", time, base), whitening=whitening, **changes)
    seeded_initialise(flow, 0, 3.0)
    return flow.double()


def naive_euler(flow, rows, probe=None):
    """Six Euler steps of points, log-determinant, ∫|f|² dt and ∫‖J‖² dt, with the autograd Jacobian."""
    field, z, h = flow.chain()[0].field, rows, 1 / 6
    trace, kinetic, jacobian = torch.zeros(3, len(rows), dtype=rows.dtype)
    for k in range(6):
        t = torch.tensor(k * h, dtype=rows.dtype)
        f, slopes = field(t, z).detach(), jacobians(lambda y, t=t: field(t, y), z)
        kinetic = kinetic + h * f.square().sum(1)
        if probe is None:
            trace = trace + h * torch.einsum("bii->b", slopes)
            jacobian = jacobian + h * slopes.square().sum((1, 2))
        else:
            pushed = torch.einsum("bij,bj->bi", slopes, probe)
            trace, jacobian = trace + h * (pushed * probe).sum(1), jacobian + h * pushed.square().sum(1)
        z = z + h * f
    return z, trace, kinetic, jacobian


@pytest.mark.parametrize("noise", [None, "rademacher", "gaussian"])
@pytest.mark.parametrize(("kinetic", "jacobian"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_nll_against_a_loop(noise, kinetic, jacobian):
    flow, rows = mlp_flow("concat_squash"), normal(7, 2)
    kind = "exact" if noise is None else "hutchinson"
    loss = NegativeLogLikelihood(EULER, kind, noise or "rademacher", kinetic, jacobian)(flow, rows, generator(5))
    probe = None if noise is None else draw_noise(noise, rows, generator(5))
    z, trace, energy, norm = naive_euler(flow, rows, probe)
    expected = -(gaussian_log_prob(z) + trace).mean() + kinetic * energy.mean() + jacobian * norm.mean()
    assert loss.value.item() == pytest.approx(expected.item(), abs=1e-12)  # rounding: the grid is the same
    assert (loss.nfe, loss.status) == (6, Status.DONE)
    assert loss.value.requires_grad


def test_nll_is_that_of_the_flow():
    flow, rows = mlp_flow(whitening=WHITENING), normal(7, 2)
    loss = NegativeLogLikelihood(Solver().at(1e-9))(flow, rows, generator())
    assert loss.value.item() == pytest.approx(-flow.log_prob(rows, solver=Solver().at(1e-9)).mean().item(), abs=1e-12)


def test_a_failed_solve_is_a_status():
    flow = mlp_flow()
    loss = NegativeLogLikelihood(Solver(max_nfe=5))(flow, normal(7, 2), generator())
    assert (loss.nfe, loss.status) == (5, Status.OUT_OF_STEPS)


@pytest.mark.parametrize("time_power", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("whitening", [None, WHITENING])
def test_flow_matching_against_a_loop(time_power, whitening):
    flow, rows = mlp_flow(whitening=whitening), normal(9, 2)
    loss = FlowMatching(time_power)(flow, rows, generator(2))
    draws = generator(2)
    noise = torch.randn(9, 2, generator=draws, dtype=torch.float64)
    u = torch.rand(9, 1, generator=draws, dtype=torch.float64)
    field, total = flow.chain()[0].field, 0.0
    for row, z, share in zip(rows, noise, u[:, 0].tolist(), strict=True):
        x = row if whitening is None else whitening @ row
        t = share**time_power
        place = (1 - t) * x + t * z
        velocity = field(torch.tensor(t, dtype=torch.float64), place[None])[0]
        total += sum((float(velocity[i].detach()) - float(z[i] - x[i])) ** 2 for i in range(2))
    assert loss.value.item() == pytest.approx(total / 9, abs=1e-12)  # rounding
    assert (loss.nfe, loss.status) == (1, Status.DONE)


@pytest.mark.parametrize("whitening", [None, WHITENING])
def test_flow_matching_in_two_steps_is_the_same_loss(whitening):
    flow, rows, objective = mlp_flow(whitening=whitening), normal(9, 2), FlowMatching(2.0)
    loss = FlowMatching(2.0, compiled=False)(flow, rows, generator(2)).value
    compiled = objective(flow, rows, generator(2)).value
    torch.testing.assert_close(compiled, loss, rtol=1e-12, atol=0)  # the same sum in another order
    noise, t = objective.draw(rows, generator(2))
    assert (noise.shape, t.shape) == ((9, 2), (9, 1))
    errors = FlowMatching.errors(flow, rows, noise, t)
    assert torch.equal(errors.mean(), loss)
    # A row's error is its own: it does not depend on the others.
    parts = [FlowMatching.errors(flow, rows[i : i + 4], noise[i : i + 4], t[i : i + 4]) for i in (0, 4, 8)]
    torch.testing.assert_close(torch.cat(parts), errors, rtol=1e-13, atol=0)  # rounding


def test_time_power_looks_closer_at_the_data():
    class Clock(nn.Module):
        def __init__(self):
            super().__init__()
            self.times = None

        def forward(self, t, z):
            self.times = t
            return torch.zeros_like(z)

    for power in (0.5, 1.0, 2.0):
        clock = Clock()
        FlowMatching(power)(Flow(clock), torch.zeros(40_000, 1), generator())
        # u^p has mean 1/(1 + p); its standard deviation is below 0.4, its standard error below 0.002.
        assert clock.times.mean().item() == pytest.approx(1 / (1 + power), abs=0.01)
        assert clock.times.min() >= 0
        assert clock.times.max() <= 1


def test_draws_depend_on_the_generator():
    flow, rows = mlp_flow(), normal(7, 2)
    for objective in (FlowMatching(), NegativeLogLikelihood(EULER, "hutchinson")):
        one, again, other = (objective(flow, rows, generator(seed)).value.item() for seed in (1, 1, 2))
        assert one == again != other


def test_the_gaussian_velocity_minimises_flow_matching_on_gaussian_data():
    # Its loss is known: Var(z − x | (1 − t)x + tz) = 2 − (2t − 1)²/((1 − t)² + t²) = 2/(1 + (2t − 1)²) a
    # coordinate, and the integral of that over t in [0, 1] is π/2.
    flow, n = mlp_flow(base="gaussian"), 2**16
    rows, objective = normal(n, 2, seed=1), FlowMatching()
    start = objective(flow, rows, generator(2)).value
    # One squared error has a standard deviation of about π here (two squared Gaussians): 0.012 for n rows.
    assert start.item() == pytest.approx(math.pi, abs=5 * math.pi / math.sqrt(n))
    gradient = torch.autograd.grad(start, list(flow.parameters()))
    assert all(g.abs().max() < 0.05 for g in gradient)  # means of n products of size 1 to 4 about 0: 0.02 at most
    weights = next(flow.fields()).linear_layers()[-1]
    for seed in range(4):
        with torch.no_grad():
            kept = weights.weight.clone(), weights.bias.clone()
            weights.weight.add_(0.1 * normal(*weights.weight.shape, seed=seed))
            weights.bias.add_(0.1 * normal(2, seed=seed + 10))
            # The same draws: the loss rises by E|δ|², about 0.1, whose error is ten times smaller.
            assert objective(flow, rows, generator(2)).value > start + 0.01
            weights.weight.copy_(kept[0])
            weights.bias.copy_(kept[1])


def test_the_minimum_for_a_gaussian_of_another_mean_and_scale():
    mean, scale = torch.tensor([1.5, -0.7], dtype=torch.float64), torch.tensor([0.4, 1.8], dtype=torch.float64)
    rows = mean + scale * normal(2**16, 2, seed=1)
    objective, best = FlowMatching(), StraightGaussian(mean, scale)
    lowest = objective(Flow(best), rows, generator(2)).value
    for step in (-0.1, 0.1):
        for moved in (StraightGaussian(mean + step, scale), StraightGaussian(mean, scale * (1 + step))):
            assert objective(Flow(moved), rows, generator(2)).value > lowest + 1e-3
    # Training on this minimiser's own loss has no slope in its parameters, but for sampling: d/dmean of the loss is
    # a mean of 65,536 products of size 1 to 10.
    best.mean.requires_grad_(True)
    best.scale.requires_grad_(True)
    slopes = torch.autograd.grad(objective(Flow(best), rows, generator(2)).value, (best.mean, best.scale))
    assert max(s.abs().max().item() for s in slopes) < 5 * 10 / 256


def test_what_flow_matching_needs():
    field = LinearField(torch.eye(2))
    check_flow_matching(Flow(field))
    for flow in (Flow([field, field]), Flow(field, train_end_time=True)):
        with pytest.raises(InputError, match="one block and a fixed end time"):
            check_flow_matching(flow)


def test_settings_become_a_solver():
    adaptive = SolveSpec(method="bosh3", rtol=1e-3, atol=1e-4, max_nfe=70, gradient="adjoint")
    # The published recipes control the mean error of a batch; what is reported controls that of every row.
    assert training_solver(adaptive) == Solver("bosh3", 1e-3, 1e-4, None, 70, "adjoint", "batch")
    fixed = SolveSpec(method="rk4", steps=12)
    assert training_solver(fixed) == Solver("rk4", steps=12, max_nfe=fixed.max_nfe, norm="batch")


def test_settings_become_an_objective():
    def built(train, **sections):
        whole = {"name": "x", "data": {"name": "moons"}, "train": {"steps": 1} | train} | sections
        spec = Spec.model_validate(whole)
        return build_objective(spec, spec.train), spec

    nll, spec = built({"kinetic": 0.1, "jacobian": 0.2}, solve={"divergence": "hutchinson", "noise": "gaussian"})
    assert nll == NegativeLogLikelihood(training_solver(spec.solve), "hutchinson", "gaussian", 0.1, 0.2)
    matching, _ = built({"objective": "flow_matching", "time_power": 2.0}, flow={"time": "concat"})
    assert matching == FlowMatching(2.0)
    other, _ = built({})
    retrain = TrainSpec(steps=1, kinetic=0.7)  # a retraining has settings of its own
    assert build_objective(spec, retrain).kinetic == 0.7
    assert other.kinetic == other.jacobian == 0
