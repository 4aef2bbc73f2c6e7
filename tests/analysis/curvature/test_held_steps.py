"""log p on held steps: the tableau, its order, closed forms, and the solver whose steps they are."""

from __future__ import annotations

import pytest
import torch
from support.tiny import WHITENING, of_vector, rows, tiny_flow
from support.truths import (
    FULL,
    SHEAR,
    SPIRAL,
    SineField,
    gaussian_log_prob,
    linear_log_prob,
    linear_map,
    normal,
    sine_end,
    sine_log_det,
)
from torch import nn

from analysis.curvature.held_steps import NODES, STAGES, WEIGHTS, HeldSteps, choose_steps, log_prob_on_steps
from sparseflows.errors import RunError
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

A = torch.tensor([[*row, *[0.0] * (6 - len(row))] for row in STAGES], dtype=torch.float64)
B, C = torch.tensor(WEIGHTS, dtype=torch.float64), torch.tensor(NODES, dtype=torch.float64)


def equal_steps(n: int, blocks: int = 1) -> HeldSteps:
    return HeldSteps(((1 / n,) * n,) * blocks)


def matrix(entries: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    return torch.tensor(entries, dtype=torch.float64)


# --- the method


def test_rows_of_the_tableau_sum_to_the_nodes():
    torch.testing.assert_close(A.sum(1), C, rtol=0, atol=1e-14)  # rounding: entries up to 12
    assert torch.equal(A, A.tril(-1))


# The 17 rooted trees of order 5 and less (Hairer, Nørsett & Wanner 1993, II.2): bᵀ of the vector is 1/density.
ORDER_CONDITIONS = {
    "1": (C**0, 1),
    "2": (C, 2),
    "3, bushy": (C**2, 3),
    "3, tall": (A @ C, 6),
    "4, bushy": (C**3, 4),
    "4, c·Ac": (C * (A @ C), 8),
    "4, Ac²": (A @ C**2, 12),
    "4, tall": (A @ A @ C, 24),
    "5, bushy": (C**4, 5),
    "5, c²·Ac": (C**2 * (A @ C), 10),
    "5, (Ac)²": ((A @ C) ** 2, 20),
    "5, c·Ac²": (C * (A @ C**2), 15),
    "5, Ac³": (A @ C**3, 20),
    "5, c·AAc": (C * (A @ A @ C), 30),
    "5, A(c·Ac)": (A @ (C * (A @ C)), 40),
    "5, AAc²": (A @ A @ C**2, 60),
    "5, tall": (A @ A @ A @ C, 120),
}


@pytest.mark.parametrize("tree", ORDER_CONDITIONS)
def test_order_conditions_up_to_five(tree):
    vector, density = ORDER_CONDITIONS[tree]
    assert float(B @ vector) == pytest.approx(1 / density, abs=1e-14)  # rounding


def test_it_is_not_of_order_six():
    assert float(B @ C**5) != pytest.approx(1 / 6, abs=1e-6)


class Sine(SineField):
    """With tangents of its own: autograd's are slow."""

    def tangents(self, t, z, v):
        return self(t, z), 2 * self.rate * t * torch.cos(z) * v


@pytest.mark.parametrize("field", ["linear", "sine"])
def test_measured_order_of_convergence(field):
    x = torch.linspace(0.3, 2.4, 24, dtype=torch.float64).reshape(12, 2)
    if field == "linear":
        flow, exact = Flow(LinearField(matrix(SPIRAL))), linear_log_prob(x, torch.linalg.matrix_exp(matrix(SPIRAL)))
    else:  # the divergence depends on place and time: the quadrature of the trace counts too
        flow = Flow(Sine(0.8, dtype=torch.float64))
        exact = gaussian_log_prob(sine_end(x, 0.8)) + sine_log_det(x, 0.8)
    counts = torch.tensor([16, 32, 64] if field == "sine" else [4, 8, 16], dtype=torch.float64)
    with torch.no_grad():
        errors = [(log_prob_on_steps(flow, x, equal_steps(n)) - exact).abs().max() for n in counts.int().tolist()]
    slopes = -torch.diff(torch.stack(errors).log()) / torch.diff(counts.log())
    assert errors[-1] > 1e-13  # above rounding
    # The next term of the expansion is a sixteenth of the leading one or so: it shifts the slope by a tenth.
    assert slopes[-1].item() == pytest.approx(5, abs=0.25)


# --- closed forms, and the solver


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("train_end_time", [False, True])
def test_linear_blocks_against_the_exponential(whitened, train_end_time):
    matrices, times = [matrix(SPIRAL), matrix(SHEAR), matrix(SPIRAL)], [1.0, 1.0, 1.0]
    white = WHITENING if whitened else None
    flow = Flow([LinearField(m) for m in matrices], train_end_time=train_end_time, whitening=white).double()
    if train_end_time:
        times = [0.6, 1.3, 0.9]
        for block, time in zip(flow.chain(), times, strict=True):
            block.sqrt_end_time.data.fill_(time**0.5)
    total = linear_map(matrices, times) @ (WHITENING if whitened else torch.eye(2, dtype=torch.float64))
    x = rows(9)
    frozen = choose_steps(flow, x, 1e-10)
    assert len(frozen.blocks) == 3
    with torch.no_grad():  # 1e-10 a step, some tens of steps, amplified by e^{TA}: a few times 1e-9
        torch.testing.assert_close(log_prob_on_steps(flow, x, frozen), linear_log_prob(x, total), rtol=0, atol=1e-8)


def test_a_linear_field_in_three_dimensions():
    flow, x = Flow(LinearField(matrix(FULL))), normal(9, 3)
    exact = linear_log_prob(x, torch.linalg.matrix_exp(matrix(FULL)))
    with torch.no_grad():
        torch.testing.assert_close(
            log_prob_on_steps(flow, x, choose_steps(flow, x, 1e-10)), exact, rtol=0, atol=1e-8
        )  # as above


def test_a_field_that_depends_on_time_and_its_gradient():
    # First and second derivative of log p in the rate, against the closed form's.
    x = torch.linspace(0.3, 2.4, 12, dtype=torch.float64).reshape(6, 2)
    flow = Flow(Sine(0.8, dtype=torch.float64))
    value = log_prob_on_steps(flow, x, choose_steps(flow, x, 1e-9)).sum()
    rate = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    exact = (gaussian_log_prob(sine_end(x, rate)) + sine_log_det(x, rate)).sum()
    assert value.item() == pytest.approx(exact.item(), abs=1e-7)
    first, truth = (
        torch.autograd.grad(v, p, create_graph=True)[0] for v, p in [(value, next(flow.parameters())), (exact, rate)]
    )
    assert first.item() == pytest.approx(truth.item(), rel=1e-6)
    second, truth = (torch.autograd.grad(v, p)[0] for v, p in [(first, next(flow.parameters())), (truth, rate)])
    assert second.item() == pytest.approx(truth.item(), rel=1e-6)


@pytest.mark.parametrize(("time", "whitening"), [("none", WHITENING), ("concat", None), ("concat_squash", WHITENING)])
def test_they_are_the_steps_of_the_solver(time, whitening):
    # The same method at the same tolerance, so the same steps: the values differ by rounding alone.
    flow = tiny_flow(time=time, blocks=2, train_end_time=True, whitening=whitening)
    x = rows(10)
    with torch.no_grad():
        ours = log_prob_on_steps(flow, x, choose_steps(flow, x, 1e-6))
        theirs = flow.log_prob(x, solver=Solver("dopri5", 1e-6, 1e-6, norm="batch", compiled=False))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_at_a_tight_tolerance_it_is_the_likelihood():
    flow, x = tiny_flow(blocks=2, train_end_time=True, whitening=WHITENING), rows(6)
    with torch.no_grad():
        precise = flow.log_prob(x, solver=Solver("dopri8", 1e-12, 1e-12))
        # At 1e-11 a step in the mean over the rows, the worst of 6 rows is at 1e-10 at most.
        tight = log_prob_on_steps(flow, x, choose_steps(flow, x, 1e-11))
        coarse = log_prob_on_steps(flow, x, choose_steps(flow, x, 1e-4))
    torch.testing.assert_close(tight, precise, rtol=0, atol=1e-10)
    assert (coarse - precise).abs().max() > 1e-7  # so the line above says something


# --- what an adaptive solver does not give


def test_chunks_add_up():
    flow, x = tiny_flow(blocks=2, whitening=WHITENING), rows(21)
    frozen = choose_steps(flow, x, 1e-5)
    with torch.no_grad():
        whole = log_prob_on_steps(flow, x, frozen)
        parts = torch.cat([log_prob_on_steps(flow, part, frozen) for part in x.split([1, 7, 13])])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)  # rounding of products in another order
        adaptive = Solver("dopri5", 1e-5, 1e-5, compiled=False)
        apart = torch.cat([flow.log_prob(part, solver=adaptive) for part in x.split([1, 7, 13])])
        assert (apart - flow.log_prob(x, solver=adaptive)).abs().max() > 1e-9


def test_first_and_second_derivatives_against_differences():
    flow, x = tiny_flow((2,), train_end_time=True, whitening=WHITENING), rows(2)
    value, vector = of_vector(flow, lambda f: log_prob_on_steps(f, x, equal_steps(2)).sum())
    vector.requires_grad_(True)
    assert torch.autograd.gradcheck(value, vector)
    assert torch.autograd.gradgradcheck(value, vector, fast_mode=True)  # projected on random directions


def test_evaluations_are_counted():
    calls = []

    class Counted(nn.Module):
        def forward(self, t, z):
            calls.append(t)
            return -z * t

    flow, x = Flow([Counted(), Counted()]), rows(3)
    frozen = HeldSteps(((0.5, 0.5), (0.2, 0.3, 0.5)))
    with torch.no_grad():
        log_prob_on_steps(flow, x, frozen)
    # A field without tangents is called once for each of the two dimensions, but not for the trace of stage two.
    assert len(calls) == 5 * (5 * 2 + 1)
    assert frozen.nfe == 30


def test_steps_are_chosen_without_a_graph_and_cover_the_time():
    flow, x = tiny_flow(blocks=2), rows()
    frozen = choose_steps(flow, x, 1e-6)
    for steps in frozen.blocks:
        assert min(steps) > 0
        assert sum(steps) == pytest.approx(1, abs=1e-14)  # rounding
    assert sum(map(len, choose_steps(flow, x, 1e-9).blocks)) > sum(map(len, frozen.blocks))
    assert all(p.grad is None for p in flow.parameters())


class BlowUp(nn.Module):
    """z³ from a thousand: infinite within 1e-6."""

    def forward(self, t, z):
        return (1000 * z) ** 3

    def tangents(self, t, z, v):
        return self(t, z), 3e9 * z**2 * v


@pytest.mark.parametrize("kind", ["NaN", "blow-up"])
def test_a_flow_that_cannot_be_solved(kind):
    flow = Flow(LinearField(torch.full((2, 2), torch.nan).double() if kind == "NaN" else torch.eye(2).double()))
    if kind == "blow-up":
        flow = Flow(BlowUp())
    with pytest.raises(RunError, match=r"the likelihood cannot be solved: .*evaluations"):
        choose_steps(flow, rows(4), 1e-3)
