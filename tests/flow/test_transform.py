"""One block: where points end, their log-determinants and their path integrals, both directions."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from support.truths import (
    FULL,
    SPIRAL,
    SineField,
    StraightGaussian,
    generator,
    jacobians,
    normal,
    sine_end,
    sine_log_det,
    tight,
    tolerance,
)

from sparseflows.flow.divergence import exact
from sparseflows.flow.fields import LinearField, MLPField, as_field, gaussian_velocity
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.transform import transform

END_TIMES = [1.0, 0.4, 1.7]


def random_mlp(activation="tanh", time="concat_squash", **like):
    field = MLPField(2, [12, 12], activation, time)
    field.initialise(generator(), 3.0)
    return field.to(**like)


@pytest.mark.parametrize("matrix", [SPIRAL, FULL])
@pytest.mark.parametrize("end_time", END_TIMES)
@pytest.mark.parametrize("reverse", [False, True])
def test_linear_field(matrix, end_time, reverse, like):
    a, t = torch.tensor(matrix, **like), torch.tensor(end_time, **like)
    x = normal(6, len(a), **like)
    found = transform(LinearField(a), t, x, tight(like), reverse=reverse, divergence=exact, regularise=True)
    assert found.status is Status.DONE
    near = tolerance(like, 1e-7)  # 1e-9 a step, some tens of steps; here and below
    end = x @ torch.linalg.matrix_exp(-t * a if reverse else t * a).T
    torch.testing.assert_close(found.points, end, **near)
    torch.testing.assert_close(found.trace, (t * a.trace()).expand(6), **near)
    torch.testing.assert_close(found.jacobian, (t * a.square().sum()).expand(6), **near)
    # ∫|Az|² dt along z(t) = e^{tA} z(0), by Gauss-Legendre quadrature: 20 nodes are exact to rounding here.
    nodes, weights = np.polynomial.legendre.leggauss(20)
    first, kinetic = end if reverse else x, torch.zeros(6, **like)
    for node, weight in zip(nodes, weights, strict=True):
        z = first @ torch.linalg.matrix_exp(t * float(node + 1) / 2 * a).T
        kinetic = kinetic + t * float(weight) / 2 * (z @ a.T).square().sum(1)
    torch.testing.assert_close(found.kinetic, kinetic, **near)


@pytest.mark.parametrize("end_time", END_TIMES)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_nonlinear_field_that_depends_on_time(end_time, reverse, like):
    # A mistake in t = Tτ cannot show in a linear field, which does not depend on time.
    field, t = as_field(SineField(0.5, **like)), torch.tensor(end_time, **like)
    x = torch.linspace(-1.6, 1.3, 12, **like).reshape(6, 2)
    end = sine_end(x, 0.5, end_time)
    found = transform(field, t, end if reverse else x, tight(like), reverse=reverse, divergence=exact)
    near = tolerance(like, 1e-7)
    torch.testing.assert_close(found.points, x if reverse else end, **near)
    torch.testing.assert_close(found.trace, sine_log_det(x, 0.5, end_time), **near)


def test_the_gaussian_velocity_leads_every_point_back_to_itself(like):
    field = MLPField(3, [4], time="concat", base="gaussian")
    field.initialise(generator())
    x = normal(8, 3, **like)
    found = transform(field.to(**like), torch.ones((), **like), x, tight(like), divergence=exact)
    torch.testing.assert_close(found.points, x, **tolerance(like, 1e-7))
    torch.testing.assert_close(found.trace, torch.zeros(8, **like), **tolerance(like, 1e-7))
    # Half way it has been at 1/√2 of where it began: the path is no standstill.
    half = torch.linspace(0, 0.5, 2001, dtype=torch.float64)
    shrunk = torch.exp(torch.trapezoid(gaussian_velocity(half), half))
    assert shrunk.item() == pytest.approx(0.5**0.5, abs=1e-6)  # second order: (1/4000)²


def test_straight_paths_from_a_gaussian(like):
    mean, scale = torch.tensor([1.5, -0.7], **like), torch.tensor([0.4, 1.8], **like)
    field = as_field(StraightGaussian(mean, scale))
    x = mean + scale * normal(8, 2, **like)
    found = transform(field, torch.ones((), **like), x, tight(like), divergence=exact)
    near = tolerance(like, 1e-7)
    torch.testing.assert_close(found.points, (x - mean) / scale, **near)
    torch.testing.assert_close(found.trace, -scale.log().sum().expand(8), **near)


@pytest.mark.parametrize(
    ("activation", "time"),
    [("sigmoid", "none"), ("tanh", "concat"), ("softplus", "concat_squash"), ("silu", "concat_squash")],
)
def test_log_determinant_is_that_of_the_whole_map(activation, time):
    field, t = random_mlp(activation, time).double(), torch.tensor(1.3, dtype=torch.float64)
    solver = Solver("dopri5", 1e-8, 1e-8)

    def carry(points, reverse):
        return transform(field, t, points, solver, reverse=reverse, divergence=exact)

    x = normal(5, 2)
    there = carry(x, False)
    slow = jacobians(lambda y: carry(y, False).points, x)
    # Both sides carry the solver's error: 1e-8 a step, some tens of steps.
    torch.testing.assert_close(there.trace, torch.linalg.slogdet(slow).logabsdet, rtol=0, atol=1e-6)
    back = carry(there.points.detach(), True)
    slow = jacobians(lambda y: carry(y, True).points, there.points)
    torch.testing.assert_close(back.trace, -torch.linalg.slogdet(slow).logabsdet, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.points, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.trace, there.trace, rtol=0, atol=1e-6)


def test_path_integrals_against_an_independent_solver():
    field, end_time = random_mlp().double(), 1.3
    x = normal(4, 2)

    def naive(t, state):
        z = torch.as_tensor(state[:2])[None]
        now = torch.tensor(t, dtype=torch.float64)
        f, slopes = field(now, z)[0].detach(), jacobians(lambda y: field(now, y), z)[0]
        return [*f.tolist(), slopes.trace().item(), f.square().sum().item(), slopes.square().sum().item()]

    t = torch.tensor(end_time, dtype=torch.float64)
    there = transform(field, t, x, Solver("dopri5", 1e-9, 1e-9), divergence=exact, regularise=True)
    for row in range(len(x)):
        slow = solve_ivp(naive, (0, end_time), [*x[row].tolist(), 0, 0, 0], "DOP853", rtol=1e-9, atol=1e-9)
        expected = torch.tensor(slow.y[:, -1])
        found = torch.cat([there.points[row], torch.stack([there.trace, there.kinetic, there.jacobian])[:, row]])
        # Two solvers at 1e-9 a step, some tens of steps; the integrals are of size 10.
        torch.testing.assert_close(found.detach(), expected, rtol=1e-7, atol=1e-7)
    back = transform(
        field, t, there.points, Solver("dopri5", 1e-9, 1e-9), reverse=True, divergence=exact, regularise=True
    )
    for name in ("trace", "kinetic", "jacobian"):  # the same path, whichever way it is walked
        torch.testing.assert_close(getattr(back, name), getattr(there, name), rtol=1e-7, atol=1e-7)


def test_what_is_not_asked_for_is_zero():
    field, one, x = random_mlp().double(), torch.ones((), dtype=torch.float64), normal(5, 2)
    solver = Solver("rk4", steps=5)
    plain = transform(field, one, x, solver)
    traced = transform(field, one, x, solver, divergence=exact)
    whole = transform(field, one, x, solver, divergence=exact, regularise=True)
    assert torch.equal(plain.points, traced.points)
    assert torch.equal(traced.points, whole.points)
    # Alone, a shallow perceptron's trace takes a cheaper route: the same but for rounding.
    torch.testing.assert_close(traced.trace, whole.trace, rtol=1e-12, atol=1e-12)
    zeros = torch.zeros(5, dtype=torch.float64)
    assert all(torch.equal(value, zeros) for value in (plain.trace, plain.kinetic, plain.jacobian))
    assert torch.equal(traced.kinetic, zeros)
    assert torch.equal(traced.jacobian, zeros)
    assert min(whole.kinetic.min(), whole.jacobian.min()) > 0
    assert plain.nfe == traced.nfe == whole.nfe == 20


def test_a_failure_passes_through():
    field = LinearField(torch.full((2, 2), float("nan")))
    found = transform(field, torch.ones(()), torch.ones(3, 2), Solver(), divergence=exact)
    assert found.status is Status.NON_FINITE
    assert found.nfe == 2
