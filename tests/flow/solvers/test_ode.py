"""Solves against closed forms: orders of convergence, tolerances, evaluations counted, failures as values."""

import time
import warnings

import pytest
import torch
from support.arrays import pairwise
from support.truths import SPIRAL, SineField, generator, normal, sine_end, tight, tolerance

from sparseflows.errors import InputError
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.ode import (
    NORMS,
    SolveFailed,
    Solver,
    Status,
    _worst_row,
    solve,
)
from sparseflows.specs.choices import ADAPTIVE, FIXED

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
STAGES = {"euler": 1, "midpoint": 2, "rk4": 4}  # evaluations a step


class Watched:
    """A right-hand side that keeps the times at which it was asked."""

    def __init__(self, rate):
        self.rate, self.times = rate, []

    def __call__(self, t, state):
        self.times.append(float(t.detach()))
        return tuple(self.rate(t, y) for y in state)


def sine(t, y):
    return 2 * 0.8 * t * torch.sin(y)


def start(rows=12):
    """Points of `sine` that stay away from its fixed points at 0 and π."""
    return torch.linspace(0.3, 2.4, 2 * rows, dtype=torch.float64).reshape(rows, 2)


@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("reverse", [False, True])
def test_order_of_convergence(method, reverse):
    x = start()
    first, last = (sine_end(x, 0.8), x) if reverse else (x, sine_end(x, 0.8))
    counts = torch.tensor([8, 16, 32, 64], dtype=torch.float64)
    errors = []
    for steps in counts.int().tolist():
        solution = solve(Watched(sine), (first,), Solver(method, steps=steps), reverse=reverse).require()
        errors.append((solution.state[0] - last).abs().max())
    slopes = -torch.diff(torch.stack(errors).log()) / torch.diff(counts.log())
    # The measured order of the finest pair; the next term of the expansion is 1/64 of the leading one, so
    # that it shifts the slope by some hundredths.
    assert slopes[-1].item() == pytest.approx(ORDERS[method], abs=0.1)
    assert errors[-1] < errors[0]


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_fixed_methods_against_a_loop(method):
    x, steps = start(), 7
    y, h = x.clone(), 1 / 7
    for k in range(steps):
        t = torch.tensor(k * h, dtype=torch.float64)
        slope = sine(t, y)
        if method == "midpoint":
            slope = sine(t + h / 2, y + h / 2 * slope)
        y = y + h * slope
    solution = solve(Watched(sine), (x,), Solver(method, steps=steps))
    torch.testing.assert_close(solution.state[0], y, rtol=0, atol=1e-14)  # rounding


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("reverse", [False, True])
def test_adaptive_methods_meet_their_tolerance(method, reverse):
    x = start()
    first, last = (sine_end(x, 0.8), x) if reverse else (x, sine_end(x, 0.8))
    low_order = method in ("adaptive_heun", "fehlberg2")
    errors = []
    for tol in (1e-3, 1e-5) if low_order else (1e-3, 1e-5, 1e-7, 1e-9):
        solution = solve(Watched(sine), (first,), Solver(method, tol, tol), reverse=reverse).require()
        errors.append((solution.state[0] - last).abs().max().item())
        # The tolerance bounds the estimate of one step's error. Errors add up over the solve, and the flow
        # amplifies them by at most e^0.8: measured 0.01 to 1.2 tolerances. Fehlberg's pair of orders 1 and 2 is
        # so close (they differ by 1/512 of a slope's change) that its estimate is 100 times too small.
        assert errors[-1] < (250 if method == "fehlberg2" else 4) * tol
    assert errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_end_of_an_adaptive_solve_is_a_step_not_an_interpolation(method):
    # A smooth field and a loose tolerance: the step that passes t = 1 would be interpolated to the end, at
    # an error far above that of the steps (fourth order against eighth in dopri8).
    watched = Watched(sine)
    solve(watched, (start(),), Solver(method, 1e-4, 1e-4)).require()
    assert max(watched.times) == pytest.approx(1, abs=1e-12)
    back = Watched(sine)
    solve(back, (start(),), Solver(method, 1e-4, 1e-4), reverse=True).require()
    assert min(back.times) == pytest.approx(0, abs=1e-12)


def test_whose_error_is_held_below_the_tolerance():
    # One row of 400 turns 50 times as fast as the others: its error is 20 times the root mean square over all.
    pace = torch.full((400, 1), 0.4, dtype=torch.float64)
    pace[7] = 20.0
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(400, 2)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    truth = torch.cat([pace.cos(), pace.sin()], dim=1)
    worst, nfe = {}, {}
    for norm in NORMS:
        solution = solve(lambda t, s: (pace * (s[0] @ turn),), (x,), Solver("dopri5", 1e-5, 1e-5, norm=norm))
        worst[norm] = (solution.require().state[0] - truth).abs().max().item()
        nfe[norm] = solution.nfe
    assert worst["rows"] < 1e-5 * nfe["rows"] / 6  # 1e-5 a step at most, a step being six evaluations
    assert worst["batch"] > 5 * worst["rows"]
    assert nfe["batch"] < nfe["rows"]


def test_rows_are_measured_by_all_that_the_state_holds_of_them():
    x, y = normal(5, 2), normal(5, seed=1)
    expected = max(((a**2 + b**2 + c**2) / 3) ** 0.5 for (a, b), c in zip(x.tolist(), y.tolist(), strict=True))
    assert _worst_row((x, y)).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    *pairwise(
        method=STAGES,
        dtype=[torch.float32, torch.float64],
        steps=[1, 2, 3, 8, 49, 61, 98],  # 1/(1/49) is above 49, in float32 1/(1/61) above 61
    )
)
def test_evaluations_of_fixed_methods(method, dtype, steps):
    for reverse in (False, True):
        watched = Watched(lambda t, y: -y)
        solution = solve(watched, (torch.ones(1, 1, dtype=dtype),), Solver(method, steps=steps), reverse=reverse)
        assert solution.status is Status.DONE
        assert solution.nfe == len(watched.times) == STAGES[method] * steps
        grid = torch.tensor(watched.times[:: STAGES[method]], dtype=torch.float64)
        expected = torch.arange(steps, dtype=torch.float64) / steps
        # Equal steps, to the rounding of the state's precision.
        torch.testing.assert_close(grid, 1 - expected if reverse else expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_evaluations_of_adaptive_methods_are_counted(method):
    watched = Watched(sine)
    assert solve(watched, (start(),), Solver(method, 1e-3, 1e-3)).nfe == len(watched.times) > 5


def test_there_and_back(like):
    a = torch.tensor(SPIRAL, **like)
    x = normal(6, 2, **like)
    there = solve(lambda t, s: (s[0] @ a.T,), (x,), tight(like)).require().state[0]
    back = solve(lambda t, s: (s[0] @ a.T,), (there,), tight(like), reverse=True).require().state[0]
    torch.testing.assert_close(
        there, x @ torch.linalg.matrix_exp(a).T, **tolerance(like, 1e-7)
    )  # 1e-9 a step, some tens of steps
    torch.testing.assert_close(back, x, **tolerance(like, 1e-7))


def test_a_state_of_several_tensors():
    x, y = normal(5, 2), normal(5, seed=1)
    solution = solve(lambda t, s: (-s[0], 2 * t * torch.ones_like(s[1])), (x, y), Solver("dopri5", 1e-10, 1e-10))
    torch.testing.assert_close(solution.state[0], x * torch.exp(torch.tensor(-1.0)).double(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(solution.state[1], y + 1, rtol=0, atol=1e-9)


FAILING = {
    "nan": lambda t, y: y * float("nan"),
    "nan from half way": lambda t, y: torch.where(t > 0.5, torch.full_like(y, float("nan")), y),
    "infinite": lambda t, y: y / 0,
    "blow-up": lambda t, y: 2 * y * y,  # 1/(1 − 2t): infinite at ½
    "overflow": lambda t, y: 400 * y,  # e^400 in float32
}
ADAPTIVE_STATUS = dict.fromkeys(FAILING, Status.NON_FINITE)
ADAPTIVE_STATUS["blow-up"] = Status.UNDERFLOW  # finite all the way


@pytest.mark.parametrize(
    ("kind", "method"),
    [*((kind, "dopri5") for kind in FAILING), *(("nan", method) for method in ADAPTIVE[1:])],
)
def test_a_failed_adaptive_solve_is_a_status(kind, method):
    began = time.perf_counter()
    x = torch.ones(3, 2)
    solution = solve(Watched(FAILING[kind]), (x,), Solver(method, max_nfe=5000))
    assert solution.status is ADAPTIVE_STATUS[kind]
    assert 0 < solution.nfe < 5000
    assert time.perf_counter() - began < 30  # it is about a second; it must not be for ever
    with pytest.raises(SolveFailed) as caught:
        solution.require()
    assert (caught.value.status, caught.value.nfe) == (solution.status, solution.nfe)
    assert solution.status.value in str(caught.value)
    assert str(solution.nfe) in str(caught.value)


@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("method", FIXED)
def test_a_failed_fixed_solve_is_a_status(kind, method):
    # A fixed grid steps over what an adaptive one cannot: 80 steps make y² and 400y overflow float32 all the same.
    solution = solve(Watched(FAILING[kind]), (torch.ones(3, 2),), Solver(method, steps=80))
    assert solution.status is Status.NON_FINITE
    assert solution.nfe == 80 * STAGES[method]


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_field_that_answers_nan_with_numbers_hides_nothing(method):
    def forgetful(t, y):  # NaN at the start, 0 at the NaN that comes of it
        return torch.where(y == 1, torch.full_like(y, float("nan")), torch.zeros_like(y))

    assert solve(Watched(forgetful), (torch.ones(3, 2),), Solver(method)).status is Status.NON_FINITE


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("solver", [Solver(), Solver("rk4", steps=4)])
def test_a_start_that_is_not_finite(bad, solver):
    x = torch.tensor([[1.0, bad]], dtype=torch.float64)
    assert solve(Watched(sine), (x,), solver).status is Status.NON_FINITE


@pytest.mark.parametrize("gradient", ["backprop", "adjoint"])
def test_the_cap_on_evaluations(gradient):
    watched = Watched(lambda t, y: 30 * torch.cos(90 * t) * y)
    solution = solve(watched, (torch.ones(2, 2),), Solver(max_nfe=200, gradient=gradient))
    assert solution.status is Status.OUT_OF_STEPS
    assert solution.nfe == len(watched.times) == 200
    enough = solve(watched, (torch.ones(2, 2),), Solver(max_nfe=100_000))
    assert enough.status is Status.DONE
    exactly = solve(watched, (torch.ones(2, 2),), Solver(max_nfe=enough.nfe))
    assert exactly.status is Status.DONE, "the cap is the last evaluation allowed, not the first refused"


def test_float32_cannot_follow_a_tolerance_it_does_not_resolve():
    # The field's own rounding is noise of 1e-7·400, whose error no step that the tolerance allows can hold.
    def rough(t, y):
        return torch.sin(4e6 * y)

    single = solve(Watched(rough), (torch.ones(4, 2),), Solver("dopri5", 1e-8, 1e-8, max_nfe=2000))
    assert single.status in (Status.OUT_OF_STEPS, Status.UNDERFLOW)
    smooth = solve(Watched(sine), (start().float(),), Solver("dopri5", 1e-8, 1e-8, max_nfe=2000))
    assert smooth.status is Status.DONE
    assert smooth.state[0].dtype is torch.float32
    # float32 carries seven digits, whatever was asked for.
    torch.testing.assert_close(smooth.state[0].double(), sine_end(start(), 0.8), rtol=0, atol=1e-5)


def solve_twice(gradient, method="dopri5", tol=1e-8, reverse=False, steps=None):
    """Gradients of a scalar of the end by the start and the rate."""
    field, x = SineField(dtype=torch.float64), start().requires_grad_(True)
    solver = Solver(method, tol, tol, steps=steps, gradient=gradient)
    solution = solve(
        lambda t, s: (field(t, s[0]),), (x,), solver, reverse=reverse, parameters=tuple(field.parameters())
    )
    solution.require().state[0].square().sum().backward()
    return x.grad, field.rate.grad


@pytest.mark.parametrize(
    *pairwise(gradient=["backprop", "adjoint"], reverse=[False, True], method=["dopri5", "dopri8", "bosh3"])
)
def test_gradients_meet_the_tolerance(gradient, reverse, method):
    x = start().requires_grad_(True)
    rate = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(sine_end(x, -rate if reverse else rate).square().sum(), (x, rate))
    found = solve_twice(gradient, method, 1e-7, reverse)
    for one, other in zip(found, expected, strict=True):
        # Measured: 7 tolerances of 1e-7 at most. The adjoint's backward solve has to end on a step as the
        # forward one does: interpolated, it was off by 1,000 tolerances and more.
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6)


def test_no_gradients_no_adjoint():
    with torch.no_grad():
        end = solve(Watched(sine), (start(),), Solver(gradient="adjoint", rtol=1e-9, atol=1e-9)).require().state[0]
    torch.testing.assert_close(end, sine_end(start(), 0.8), rtol=0, atol=1e-7)


def test_the_adjoint_raises_where_its_backward_solve_fails():
    field = MLPField(2, [8]).double()
    field.initialise(generator(), 4.0)

    def there(max_nfe):
        solver = Solver("dopri5", 1e-8, 1e-8, max_nfe=max_nfe, gradient="adjoint")
        return solve(lambda t, s: (field(t, s[0]),), (normal(4, 2),), solver, parameters=tuple(field.parameters()))

    forward = there(20_000).nfe
    solution = there(forward + 5)
    assert solution.status is Status.DONE
    with pytest.raises(SolveFailed, match="out of steps"):
        solution.state[0].sum().backward()


def test_a_solver_at_another_tolerance():
    solver = Solver("bosh3", 1e-3, 1e-4, max_nfe=77, gradient="adjoint")
    assert solver.at(1e-7) == Solver("bosh3", 1e-7, 1e-7, max_nfe=77, gradient="adjoint")
    assert (solver.rtol, solver.atol) == (1e-3, 1e-4)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"method": "dopri"}, ["unknown solver method 'dopri'", "did you mean 'dopri8'", "dopri5", "rk4"]),
        ({"method": "heun3"}, ["unknown solver method 'heun3'"]),
        ({"method": "rk4"}, ["steps goes with the fixed-step methods", "method is rk4"]),
        ({"method": "dopri5", "steps": 8}, ["steps goes with the fixed-step methods", "method is dopri5"]),
        ({"norm": "row"}, ["unknown norm 'row'", "did you mean 'rows'"]),
        ({"gradient": "ajoint"}, ["unknown gradient 'ajoint'", "did you mean 'adjoint'"]),
    ],
)
def test_impossible_solvers_are_refused(wrong, parts):
    with pytest.raises(InputError) as caught:
        Solver(**wrong)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_steps_that_an_adaptive_solve_took(reverse):
    watched, pace = Watched(sine), torch.ones((), dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():  # PyTorch warns of a number taken from a tensor with a graph
        warnings.simplefilter("error")
        solution = solve(watched, (start() * pace,), Solver("dopri5", 1e-6, 1e-6), reverse=reverse)
    steps = torch.tensor(solution.steps, dtype=torch.float64)
    assert steps.min() > 0
    assert steps.sum().item() == pytest.approx(1, abs=1e-14)  # rounding
    # The end of each step is the place of its last two evaluations (t + h, and the first of the next).
    ends = (1 - steps.cumsum(0)) if reverse else steps.cumsum(0)
    times = torch.tensor(watched.times, dtype=torch.float64)
    assert (times[:, None] - ends).abs().min(0).values.max() < 1e-14
    assert 6 * len(steps) < solution.nfe  # rejected ones and the first guess come on top


@pytest.mark.parametrize("solver", [Solver(), Solver("rk4", steps=3), Solver("dopri5", gradient="adjoint")])
def test_a_solve_says_nothing(solver):
    rate = torch.ones((), dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        solve(lambda t, s: (-rate * s[0],), (start(),), solver, parameters=[rate]).require()
