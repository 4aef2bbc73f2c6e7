"""`Flow`: its density against closed forms, its directions against each other, its refusals."""

import copy
import math

import pytest
import torch
from support.truths import (
    FULL,
    SHEAR,
    SPIRAL,
    SineField,
    gaussian_log_prob,
    generator,
    jacobians,
    linear_log_prob,
    linear_map,
    normal,
    sign_vectors,
    sine_end,
    sine_log_det,
    square_grid,
    tight,
    tolerance,
)
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.divergence import draw_noise, hutchinson
from sparseflows.flow.fields import AutogradField, LinearField, MLPField
from sparseflows.flow.model import Flow, seeded_initialise, standard_normal_log_prob
from sparseflows.flow.solvers.ode import SolveFailed, Solver, Status
from sparseflows.flow.transform import transform

WHITENING = ((1.4, -0.3), (0.2, 0.9))  # det W = 1.32


def linear_flow(chain, like, end_times=None, whitening=None):
    """A flow of linear fields; `end_times` makes them trained ones."""
    flow = Flow(
        [LinearField(torch.tensor(matrix)) for matrix in chain],
        train_end_time=end_times is not None,
        whitening=None if whitening is None else torch.tensor(whitening),
        solver=tight(like),
    )
    flow.to(**like)
    with torch.no_grad():
        for block, matrix in zip(flow.chain(), chain, strict=True):
            block.field.matrix.copy_(torch.tensor(matrix, **like))
        if whitening is not None:
            flow.whitening.copy_(torch.tensor(whitening, **like))
        for block, end_time in zip(flow.chain(), end_times or [], strict=False):
            block.sqrt_end_time.copy_(torch.tensor(math.sqrt(end_time), **like))
    return flow


def truth_of(flow):
    """M with z = M x, from the flow's own parameters, so that gradients reach them."""
    matrices = [block.field.matrix for block in flow.chain()]
    end_times = [1.0 if block.sqrt_end_time is None else block.sqrt_end_time**2 for block in flow.chain()]
    total = linear_map(matrices, end_times)
    return total if flow.whitening is None else total @ flow.whitening


def mlp_flow(blocks=1, time="concat_squash", train_end_time=False, gain=3.0, dim=2, **like):
    flow = Flow([MLPField(dim, [10, 10], "tanh", time) for _ in range(blocks)], train_end_time=train_end_time)
    seeded_initialise(flow, 0, gain)
    return flow.to(**(like or {"dtype": torch.float64}))


# Closed forms --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chain", "end_times", "whitening"),
    [
        ([SPIRAL], None, None),
        ([SPIRAL], [1.6], None),
        ([SPIRAL, SHEAR], None, WHITENING),
        ([FULL, FULL, FULL], [0.5, 1.6, 0.9], None),
    ],
    ids=["plain", "end time", "two and whitening", "three and end times"],
)
def test_linear_flows(chain, end_times, whitening, like):
    flow = linear_flow(chain, like, end_times, whitening)
    total = truth_of(flow).detach()
    x = normal(7, len(chain[0]), **like)
    near = tolerance(like, 1e-7)  # 1e-6 is asked for; 1e-9 a step, some tens of steps
    torch.testing.assert_close(flow.to_noise(x), x @ total.T, **near)
    torch.testing.assert_close(flow.to_data(x), x @ torch.linalg.inv(total).T, **near)
    log_p = linear_log_prob(x, total)
    torch.testing.assert_close(flow.log_prob(x), log_p, **near)
    # A third route: z = M x is standard normal where x is Gaussian with covariance (MᵀM)⁻¹.
    covariance = torch.linalg.inv(total.double().T @ total.double())
    density = torch.distributions.MultivariateNormal(torch.zeros_like(covariance[0]), covariance)
    torch.testing.assert_close(log_p, density.log_prob(x.double()).to(log_p), **near)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
@pytest.mark.parametrize("what", ["log_prob", "to_noise", "to_data"])
def test_gradients_of_linear_flows(gradient, what, like):
    flow = linear_flow([SPIRAL, SHEAR], like, [0.5, 1.6], WHITENING)
    flow.solver = tight(like, gradient=gradient)
    x = normal(5, 2, **like).requires_grad_(True)
    weights = normal(5, 2, seed=1, **like)
    total = truth_of(flow)
    found = {"log_prob": flow.log_prob, "to_noise": flow.to_noise, "to_data": flow.to_data}[what](x)
    expected = {
        "log_prob": lambda: linear_log_prob(x, total),
        "to_noise": lambda: x @ total.T,
        "to_data": lambda: x @ torch.linalg.inv(total).T,
    }[what]()
    weights = weights[:, 0] if what == "log_prob" else weights
    wanted = [x, *flow.parameters()]
    one = torch.autograd.grad((found * weights).sum(), wanted)
    other = torch.autograd.grad((expected * weights).sum(), wanted)
    assert len(one) == 5  # points, two matrices, two end times
    for a, b in zip(one, other, strict=True):
        # Backpropagation differentiates steps whose size the error of the *values* set: one order is lost.
        torch.testing.assert_close(a, b, **tolerance(like, 1e-6))


def test_second_derivatives_of_a_linear_flow():
    # Hessians are taken through the solver (trap: the adjoint has no second derivative).
    like = {"dtype": torch.float64}
    flow = linear_flow([SPIRAL], like)
    x = normal(4, 2)
    a = flow.chain()[0].field.matrix

    def hessian(loss):
        (first,) = torch.autograd.grad(loss, a, create_graph=True)
        return torch.stack([torch.autograd.grad(g, a, retain_graph=True)[0].flatten() for g in first.flatten()])

    found = hessian(flow.log_prob(x, solver=Solver().at(1e-8)).mean())
    expected = hessian(linear_log_prob(x, truth_of(flow)).mean())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # 1e-8 a step; two orders lost
    assert expected.abs().max() > 0.1


def test_second_derivatives_of_an_mlp_flow():
    # The product of the Hessian with a direction against a central difference of gradients.
    flow = mlp_flow(blocks=2, train_end_time=True)
    x, solver = normal(8, 2), Solver("rk4", steps=5)  # fixed steps: a smooth function of the weights
    weights = list(flow.parameters())
    direction = [normal(*w.shape, seed=i) for i, w in enumerate(weights)]

    def gradient(**options):
        loss = -flow.log_prob(x, solver=solver).mean()
        return torch.autograd.grad(loss, weights, **options)

    first = gradient(create_graph=True)
    product = torch.autograd.grad(sum((g * d).sum() for g, d in zip(first, direction, strict=True)), weights)
    h, sides = 1e-5, []
    for sign in (1, -2):  # to +h, then back across to −h
        with torch.no_grad():
            for w, d in zip(weights, direction, strict=True):
                w.add_(d, alpha=sign * h)
        sides.append(gradient())
    for exact, up, down in zip(product, *sides, strict=True):
        # Truncation h² = 1e-10 times a third derivative, cancellation 1e-16/h = 1e-11.
        torch.testing.assert_close(exact, (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


def test_the_adjoint_says_that_it_has_no_second_derivative():
    flow = mlp_flow()
    loss = flow.log_prob(normal(4, 2), solver=Solver(gradient="adjoint")).mean()
    with pytest.raises(InputError, match="backprop"):
        torch.autograd.grad(loss, list(flow.parameters()), create_graph=True)


@pytest.mark.parametrize(
    ("solver", "divergence", "reverse"),
    [
        (Solver("dopri5", 1e-8, 1e-8), "exact", False),
        (Solver("dopri5", 1e-8, 1e-8), "exact", True),
        (Solver("dopri8", 1e-8, 1e-8), "hutchinson", False),
        (Solver("rk4", steps=24), "exact", False),
    ],
    ids=["forward", "reverse", "hutchinson", "fixed"],
)
def test_adjoint_gradients_are_those_of_backpropagation(solver, divergence, reverse):
    flow, found = mlp_flow(blocks=2, train_end_time=True), {}
    with torch.no_grad():
        flow.chain()[0].sqrt_end_time.fill_(1.2)
    for gradient in ("backprop", "adjoint"):
        x = normal(6, 2).requires_grad_(True)
        result = flow.transform(
            x,
            solver=Solver(solver.method, solver.rtol, solver.atol, solver.steps, gradient=gradient),
            reverse=reverse,
            divergence=divergence,
            generator=generator(3),
            regularise=True,
        )
        assert result.status is Status.DONE
        loss = gaussian_log_prob(result.points) + result.trace + 0.3 * result.kinetic + 0.2 * result.jacobian
        found[gradient] = torch.autograd.grad(loss.mean(), [x, *flow.parameters()])
    names = ["x", *dict(flow.named_parameters())]
    assert sum("end_time" in name for name in names) == 2
    for name, one, other in zip(names, found["adjoint"], found["backprop"], strict=True):
        # Each is off the true gradient by its own solver error: 1e-8 a step, or (1/24)⁴ = 3e-6 times a constant.
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_of_the_end_time_have_a_closed_form():
    # d/ds of log p for one linear block of T = s²; the adjoint once counted it twice.
    for gradient in ("backprop", "adjoint"):
        flow = linear_flow([SPIRAL], {"dtype": torch.float64}, [1.3])
        x = normal(6, 2)
        s = flow.chain()[0].sqrt_end_time
        loss = flow.log_prob(x, solver=Solver("dopri5", 1e-9, 1e-9, gradient=gradient)).sum()
        (found,) = torch.autograd.grad(loss, s)
        a = torch.tensor(SPIRAL, dtype=torch.float64)
        z = x @ torch.linalg.matrix_exp(1.3 * a).T
        expected = 2 * math.sqrt(1.3) * (6 * a.trace() - (z * (z @ a.T)).sum())  # dT/ds·(tr A − zᵀAz), summed
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


# Directions, blocks, chunks ------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 3])
def test_round_trip(blocks):
    # 1e-4 is promised at 1e-6, in float32 too, which is what flows are trained in.
    for dtype in (torch.float64, torch.float32):
        flow = mlp_flow(blocks, train_end_time=True, dtype=dtype)
        x, solver = 1.5 * normal(200, 2, dtype=dtype), Solver().at(1e-6)
        with torch.no_grad():
            z = flow.to_noise(x, solver=solver)
            assert (flow.to_data(z, solver=solver) - x).abs().max() <= 1e-4
            assert (flow.to_noise(flow.to_data(x, solver=solver), solver=solver) - x).abs().max() <= 1e-4
        assert (z - x).abs().max() > 0.25, "the flow does nothing"


@pytest.mark.parametrize("whitening", [None, WHITENING])
def test_log_prob_against_the_jacobian_of_the_whole_chain(whitening):
    flow = mlp_flow(3, train_end_time=True)
    if whitening:
        flow.whitening = torch.tensor(whitening, dtype=torch.float64)
    flow.solver = Solver().at(1e-8)
    x = normal(6, 2)
    z = flow.to_noise(x)
    log_det = torch.linalg.slogdet(jacobians(flow.to_noise, x)).logabsdet
    # 1e-8 a step, some tens of steps in each of three blocks, on both sides.
    torch.testing.assert_close(flow.log_prob(x), gaussian_log_prob(z) + log_det, rtol=0, atol=1e-6)
    back = torch.linalg.slogdet(jacobians(flow.to_data, z)).logabsdet
    torch.testing.assert_close(back, -log_det, rtol=0, atol=1e-6)


@pytest.mark.parametrize("whitening", [None, WHITENING])
def test_density_integrates_to_one(whitening):
    flow = mlp_flow(2, time="concat", gain=2.0)
    if whitening:
        flow.whitening = torch.tensor(whitening, dtype=torch.float64)
    grid, area = square_grid(7.0, 150, dtype=torch.float64)
    with torch.no_grad():
        density = flow.log_prob(grid, solver=Solver().at(1e-6)).exp()
    # The midpoint rule converges faster than any power for a smooth density that is 0 at the frame: 1e-2 off
    # with 55 cells a side, 1e-4 with 110, 1e-7 with 220; the solver adds 1e-6 a step.
    assert density.sum().item() * area == pytest.approx(1, abs=1e-4)
    frame = (grid.abs().max(dim=1).values > 6.8).double()
    assert (density * frame).sum().item() * area < 1e-6


@pytest.mark.parametrize("whitening", [None, WHITENING])
def test_samples_and_their_log_prob(whitening):
    flow = mlp_flow(2, train_end_time=True)
    if whitening:
        flow.whitening = torch.tensor(whitening, dtype=torch.float64)
    flow.solver = Solver().at(1e-8)
    x, log_p = flow.sample_and_log_prob(50, generator=generator(1))
    assert not log_p.requires_grad
    assert not x.requires_grad
    torch.testing.assert_close(x, flow.sample(50, generator=generator(1)), rtol=0, atol=1e-6)
    # There along the path, back along it: 1e-8 a step, some tens of steps, twice.
    torch.testing.assert_close(log_p, flow.log_prob(x).detach(), rtol=0, atol=2e-6)


def test_samples_follow_the_density():
    # The covariance of z = M x is I, so that of x is (MᵀM)⁻¹; standard errors of a covariance are √(2/n) at most
    # times the variances. Whitening is undone too.
    flow = linear_flow([SPIRAL, SHEAR], {"dtype": torch.float64}, whitening=WHITENING)
    total = truth_of(flow).detach()
    x = flow.sample(20_000, generator=generator(), dim=2, solver=Solver())
    expected = torch.linalg.inv(total.T @ total)
    torch.testing.assert_close(torch.cov(x.T), expected, rtol=0, atol=5 * 0.01 * expected.max().item())
    assert x.mean(0).abs().max() < 5 * math.sqrt(expected.max().item() / 20_000)


def test_samples_depend_on_the_generator_alone():
    flow = mlp_flow()
    before = torch.get_rng_state()
    one, again, other = (flow.sample(5, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert flow.sample(5).shape == (5, 2)  # PyTorch's own generator


def test_direction_is_an_argument_not_a_state():
    # Trap: reversing time by mutating the flow, then training on.
    flow = mlp_flow(2, train_end_time=True)
    x = normal(9, 2)
    state = {name: tensor.clone() for name, tensor in flow.state_dict().items()}
    attributes = {name: copy.copy(value) for name, value in vars(flow).items() if not name.startswith("_")}
    before = flow.log_prob(x)
    gradient = torch.autograd.grad(before.sum(), list(flow.parameters()))
    flow.sample(10, generator=generator())
    flow.sample_and_log_prob(10, generator=generator())
    flow.to_data(x)
    with pytest.raises(SolveFailed):
        flow.to_data(x, solver=Solver(max_nfe=3))
    after = flow.log_prob(x)
    assert torch.equal(before, after)
    again = torch.autograd.grad(after.sum(), list(flow.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(gradient, again, strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in flow.state_dict().items())
    assert {name: value for name, value in vars(flow).items() if not name.startswith("_")} == attributes


@pytest.mark.parametrize("chunk", [1, 4, 9, 100, None])
def test_chunks(chunk):
    flow, x = mlp_flow(), normal(9, 2)
    exactly = flow.log_prob(x, solver=Solver("rk4", steps=20))
    # A fixed grid is the same for every chunk: rounding only.
    torch.testing.assert_close(
        flow.log_prob(x, solver=Solver("rk4", steps=20), chunk=chunk), exactly, rtol=0, atol=1e-13
    )
    adaptive = flow.log_prob(x, solver=Solver().at(1e-6), chunk=chunk)
    whole = flow.log_prob(x, solver=Solver().at(1e-6))
    torch.testing.assert_close(adaptive, whole, rtol=0, atol=1e-4)  # steps differ: the solver's error


def test_integrals_add_up_over_blocks_and_whitening_counts_once():
    like = {"dtype": torch.float64}
    flow = linear_flow([SPIRAL, SHEAR], like, [0.5, 1.6], WHITENING)
    a, b = (torch.tensor(matrix, **like) for matrix in (SPIRAL, SHEAR))
    x = normal(3, 2)
    log_det = math.log(1.32)
    for reverse in (False, True):
        found = flow.transform(x, reverse=reverse, regularise=True)
        expected = 0.5 * a.trace() + 1.6 * b.trace() + log_det
        torch.testing.assert_close(found.trace, expected.expand(3), rtol=0, atol=1e-7)  # 1e-9 a step
        expected = 0.5 * a.square().sum() + 1.6 * b.square().sum()
        torch.testing.assert_close(found.jacobian, expected.expand(3), rtol=0, atol=1e-7)
    # The blocks one by one, on a grid that is the same for both ways of counting.
    solver = Solver("rk4", steps=3)
    whole = flow.transform(x, solver=solver, regularise=True)
    first, second = (Flow(LinearField(t * m)).double() for t, m in ((0.5, a), (1.6, b)))
    one = first.transform(x @ flow.whitening.T, solver=solver, regularise=True)
    two = second.transform(one.points, solver=solver, regularise=True)
    torch.testing.assert_close(whole.points, two.points, rtol=0, atol=1e-13)  # rounding
    # dz/dτ = (TA)z: its energy is T² of what T ∫|Az|² dτ has of T.
    torch.testing.assert_close(whole.kinetic, one.kinetic / 0.5 + two.kinetic / 1.6, rtol=0, atol=1e-12)
    assert whole.nfe == one.nfe + two.nfe == 24
    assert flow.transform(x, reverse=True, solver=solver).nfe == 24


def test_whitening_is_a_linear_first_step():
    w = torch.tensor(WHITENING, dtype=torch.float64)
    flow = mlp_flow()
    whitened = Flow([block.field for block in flow.chain()], whitening=w)
    x = normal(6, 2)
    moved = x @ w.T
    assert torch.equal(whitened.to_noise(x), flow.to_noise(moved))
    expected = flow.log_prob(moved) + torch.linalg.det(w).abs().log()
    torch.testing.assert_close(whitened.log_prob(x), expected, rtol=0, atol=1e-13)  # rounding
    z = normal(6, 2, seed=3)
    torch.testing.assert_close(whitened.to_data(z), torch.linalg.solve(w, flow.to_data(z).T).T, rtol=0, atol=1e-13)
    assert "whitening" in whitened.state_dict()
    assert all(p is not whitened.whitening for p in whitened.parameters()), "it is fixed"


# Divergences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_one_probe_serves_a_whole_solve(noise):
    # For a linear field the estimate is T eᵀAe + …, one e a row and block, if and only if e is kept through the solve.
    like = {"dtype": torch.float64}
    flow = linear_flow([SPIRAL, SHEAR], like)
    x = normal(6, 2)
    found = flow.log_prob(x, divergence="hutchinson", noise=noise, generator=generator(8))
    draws = generator(8)
    expected = gaussian_log_prob(flow.to_noise(x))
    for matrix in (SPIRAL, SHEAR):
        e = draw_noise(noise, x, draws)
        expected = expected + torch.einsum("bi,ij,bj->b", e, torch.tensor(matrix, **like), e)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # 1e-9 a step in two solves


def test_hutchinson_is_unbiased():
    # All four sign vectors, each once: the mean over them is exact, not only in expectation.
    flow, x = mlp_flow(), normal(1, 2).expand(4, 2)
    field, one, solver = flow.chain()[0].field, torch.ones((), dtype=torch.float64), Solver("rk4", steps=20)
    found = transform(field, one, x, solver, divergence=lambda f, t, z: hutchinson(f, t, z, sign_vectors(2)))
    exact = flow.transform(x, solver=solver)
    assert found.trace.std() > 1e-3, "nothing was tested"
    assert found.trace.mean().item() == pytest.approx(exact.trace[0].item(), abs=1e-13)


def test_an_unknown_divergence_is_refused():
    with pytest.raises(InputError, match=r"unknown divergence 'hutch' .*exact, hutchinson"):
        mlp_flow().log_prob(normal(2, 2), divergence="hutch")
    with pytest.raises(InputError, match="unknown noise 'cauchy'"):
        mlp_flow().log_prob(normal(2, 2), divergence="hutchinson", noise="cauchy")


# Any field -----------------------------------------------------------------------------------------------


def test_any_module_is_a_field():
    field = SineField(0.6, dtype=torch.float64)
    flow = Flow(field, solver=Solver().at(1e-8))
    assert isinstance(flow.chain()[0].field, AutogradField)
    assert flow.dim is None
    x = torch.linspace(-1.5, 1.4, 10, dtype=torch.float64).reshape(5, 2).requires_grad_(True)
    expected = gaussian_log_prob(sine_end(x, field.rate)) + sine_log_det(x, field.rate)
    for gradient in ("backprop", "adjoint"):
        log_p = flow.log_prob(x, solver=Solver("dopri5", 1e-8, 1e-8, gradient=gradient))
        torch.testing.assert_close(log_p, expected, rtol=0, atol=1e-6)  # 1e-8 a step
        found = torch.autograd.grad(log_p.sum(), (x, field.rate))
        truth = torch.autograd.grad(expected.sum(), (x, field.rate), retain_graph=True)
        for one, other in zip(found, truth, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    samples = flow.sample(3, dim=2, generator=generator())  # the generator's draws, carried back
    torch.testing.assert_close(sine_end(samples, 0.6), normal(3, 2), rtol=0, atol=1e-6)


def test_a_module_without_parameters_is_a_field():
    class Still(nn.Module):
        def forward(self, t, z):
            return torch.zeros_like(z)

    flow = Flow(Still())
    x = flow.sample(4, dim=3, generator=generator())
    assert x.dtype is torch.get_default_dtype()
    torch.testing.assert_close(flow.log_prob(x), gaussian_log_prob(x))


def test_an_mlp_behind_a_plain_module_gives_the_same_flow():
    class Plain(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, t, z):
            return self.inner(t, z)

    flow, x, solver = mlp_flow(), normal(5, 2), Solver("rk4", steps=4)
    plain = Flow(Plain(flow.chain()[0].field))
    one, other = (f.log_prob(x, solver=solver) for f in (flow, plain))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-13)  # rounding
    first = torch.autograd.grad(one.sum(), list(flow.parameters()))
    second = torch.autograd.grad(other.sum(), list(plain.parameters()))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# Bookkeeping ---------------------------------------------------------------------------------------------


def test_standard_normal(like):
    z = 3 * normal(6, 4, **like)
    torch.testing.assert_close(standard_normal_log_prob(z), gaussian_log_prob(z), **tolerance(like, 1e-14))


def test_end_times():
    fixed, trained = Flow(MLPField(2, [3])), Flow([MLPField(2, [3])] * 2, train_end_time=True)
    x = torch.zeros(1, 2)
    assert [block.end_time(x).item() for block in fixed.chain()] == [1.0]
    assert not any("end_time" in name for name, _ in fixed.named_parameters())
    assert [block.end_time(x).item() for block in trained.chain()] == [1.0, 1.0]
    with torch.no_grad():
        trained.chain()[1].sqrt_end_time.fill_(-1.5)
    assert trained.chain()[1].end_time(x).item() == 2.25  # a square: time never runs backwards


def test_blocks_are_drawn_apart_and_from_the_seed():
    one, again, other = (Flow([MLPField(2, [4]), MLPField(2, [4])]) for _ in range(3))
    for flow, seed in ((one, 5), (again, 5), (other, 6)):
        seeded_initialise(flow, seed)
    first, second = ([p.clone() for p in field.parameters()] for field in one.fields())
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("call", ["log_prob", "to_noise", "to_data", "transform"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (5, 1), (5, 3), (5, 2, 2)])
def test_wrong_shapes_are_refused(call, shape):
    with pytest.raises(InputError) as caught:
        getattr(mlp_flow(dtype=torch.float32), call)(torch.zeros(shape))
    message = str(caught.value)
    assert str(tuple(shape)) in message
    assert "(B, 2)" in message
    assert "\n" not in message


def test_a_flow_of_unknown_dimension_asks_for_it():
    flow = linear_flow([FULL], {"dtype": torch.float32})
    with pytest.raises(InputError, match="pass dim=D"):
        flow.sample(3)
    assert flow.sample(3, dim=3).shape == (3, 3)
    with pytest.raises(InputError, match=r"\(3,\).*\(B, D\)"):
        flow.log_prob(torch.zeros(3))


def test_a_flow_needs_a_field():
    with pytest.raises(InputError, match="at least one vector field"):
        Flow([])


@pytest.mark.parametrize("call", ["log_prob", "to_noise", "to_data"])
def test_a_failed_solve_is_raised_where_no_value_can_be_given(call):
    flow, x = mlp_flow(2), normal(3, 2)
    with pytest.raises(SolveFailed, match="out of steps") as caught:
        getattr(flow, call)(x, solver=Solver(max_nfe=7))
    assert (caught.value.status, caught.value.nfe) == (Status.OUT_OF_STEPS, 7)
    with torch.no_grad():
        next(flow.chain()[1].field.parameters()).fill_(float("nan"))
    with pytest.raises(SolveFailed, match="infinite or NaN"):
        getattr(flow, call)(x)
    with pytest.raises(SolveFailed):
        flow.sample(3)
    with pytest.raises(SolveFailed):
        flow.sample_and_log_prob(3)


def test_transform_gives_a_failed_solve_back_with_all_its_evaluations():
    flow, x = mlp_flow(2), normal(3, 2)
    with torch.no_grad():
        next(flow.chain()[1].field.parameters()).fill_(float("nan"))
    alone = Flow(flow.chain()[0].field).transform(x)
    found = flow.transform(x)
    assert found.status is Status.NON_FINITE
    assert found.nfe == alone.nfe + 2  # the second block fails at once


def test_a_call_of_a_flow_is_its_log_density_also_with_other_weights():
    flow, other = (Flow(MLPField(2, [5], "tanh", "concat")) for _ in range(2))
    for seed, one in enumerate((flow, other)):
        seeded_initialise(one, seed)
    points = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(flow(points), flow.log_prob(points))
        found = torch.func.functional_call(flow, dict(other.named_parameters()), points)
        torch.testing.assert_close(found, other.log_prob(points))
