"""The compiled engine against autograd and torchdiffeq; float64, so 1e-12 is rounding."""

from __future__ import annotations

import pytest
import torch
from support.arrays import pairwise
from support.plain_solve import drawn, drawn_field, plain_solve

from sparseflows.flow.compiled import engine
from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.structures import ACTIVATION_ORDER
from sparseflows.flow.fields import BASES, TIMES, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.flow.solvers.tableaus import TABLEAUS, Tableau

pytestmark = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")

STEPS = (0.2, 0.3, 0.1, 0.4)
ROUNDING = 1e-12
FIELDS = {
    "activation": ACTIVATION_ORDER,
    "time": TIMES,
    "hidden": ([18, 7, 6], [5, 40], [64, 64, 64], []),
    "base": BASES,
}


def assert_same(found, wanted) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(*pairwise(**FIELDS))
def test_flow_matching_and_its_gradient(activation, time, hidden, base) -> None:
    field, points, targets = drawn_field(3, hidden, activation, time, base), drawn(37, 3), drawn(37, 3, seed=2)
    t = drawn(37, 1, seed=3).sigmoid()
    loss = (field(t, points) - targets).square().sum(1).mean()
    wanted = torch.autograd.grad(loss, field.tensors())
    value, gradients = engine.match(field, t, points, targets)
    assert value == pytest.approx(loss.item(), rel=ROUNDING)
    assert_same(gradients, wanted)


@pytest.mark.parametrize(*pairwise(**FIELDS, kind=["exact", "probed"]))
def test_the_likelihood_on_given_steps_and_its_gradient(activation, time, hidden, base, kind) -> None:
    field, points = drawn_field(3, hidden, activation, time, base), drawn(37, 3)
    probes = drawn(37, 3, seed=2) if kind == "probed" else None
    end_time = torch.tensor(1.0 if base == "gaussian" else 1.3, dtype=torch.float64, requires_grad=True)
    for tableau in TABLEAUS.values():
        end, trace = plain_solve(field, end_time, points, STEPS, tableau, probes)
        loss = (0.5 * end.square().sum(1) - trace).mean()
        inputs = [end_time, *field.tensors()]
        of_end_time, *wanted = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
        found = engine.walk([field], [end_time.item()], [STEPS], tableau, points, probes, with_gradients=True)
        assert_same([found.ends, found.traces, *found.gradients[0]], [end, trace, *wanted])
        if base == "none":  # the base goes with T = 1
            assert found.of_end_times[0] == pytest.approx(float(of_end_time), rel=1e-10, abs=ROUNDING)
        without = engine.walk([field], [end_time.item()], [STEPS], tableau, points, probes)
        assert_same([without.ends, without.traces], [end, trace])


def test_several_blocks_at_once() -> None:
    fields = [drawn_field(2, [9], "tanh", "concat_squash", seed=0), drawn_field(2, [7, 5], "tanh", "none", seed=1)]
    ends, grids = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.8, 1.2)], [STEPS, (0.5, 0.5)]
    points, tableau = drawn(19, 2), TABLEAUS["bosh3"]
    middle, first = plain_solve(fields[0], ends[0], points, grids[0], tableau, None)
    end, second = plain_solve(fields[1], ends[1], middle, grids[1], tableau, None)
    loss = (0.5 * end.square().sum(1) - first - second).mean()
    inputs = [*ends, *(tensor for field in fields for tensor in field.tensors())]
    wanted = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    found = engine.walk(fields, [t.item() for t in ends], grids, tableau, points, None, with_gradients=True)
    assert found.of_end_times == pytest.approx([float(g) for g in wanted[:2]], rel=1e-10)
    assert_same([g for block in found.gradients for g in block], wanted[2:])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("method", "tol"), [("dopri5", 1e-5), ("dopri5", 1e-8), ("bosh3", 1e-5)])
def test_adaptive_solves_agree_with_torchdiffeq(method: str, tol: float, reverse: bool) -> None:
    flow = Flow(
        [drawn_field(2, [33, 20], "silu", "concat", seed=seed) for seed in (0, 1)], train_end_time=True
    ).double()
    points = drawn(203, 2)
    with torch.no_grad():
        flow.chain()[0].sqrt_end_time.fill_(1.1)
        ours = flow.transform(points, solver=Solver(method, tol, tol), reverse=reverse)
        theirs = flow.transform(points, solver=Solver("dopri5", 1e-11, 1e-11, compiled=False), reverse=reverse)
    assert ours.status is Status.DONE
    # Each row's error of a step is below the tolerance; a few dozen steps add up.
    torch.testing.assert_close(ours.points, theirs.points, rtol=0, atol=50 * tol)
    torch.testing.assert_close(ours.trace, theirs.trace, rtol=0, atol=50 * tol)


def test_rows_do_not_depend_on_who_goes_with_them_beyond_the_tolerance() -> None:
    flow, points = Flow(drawn_field(2, [33, 20], "silu", "concat")).double(), drawn(100, 2)
    with torch.no_grad():
        whole = flow.log_prob(points)
        shuffled = flow.log_prob(points.flip(0)).flip(0)
    torch.testing.assert_close(whole, shuffled, rtol=0, atol=1e-4)


def test_threads_take_runs_of_the_rows() -> None:
    field, points = drawn_field(2, [16], "tanh", "concat"), drawn(2_000, 2)
    solver = Solver("dopri5", 1e-8, 1e-8)
    one = engine.carry(field, 1.0, points, solver)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = engine.carry(field, 1.0, points, solver)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(one.state, three.state, rtol=0, atol=1e-6)


def test_failures_come_back_as_a_status() -> None:
    field, points = drawn_field(2, [8], "tanh", "none"), drawn(20, 2)
    assert engine.carry(field, 1.0, points, Solver("dopri5", 1e-9, 1e-9, max_nfe=20)).status is Status.OUT_OF_STEPS
    with torch.no_grad():
        field.layers[0].bias.fill_(float("nan"))
    assert engine.carry(field, 1.0, points, Solver("dopri5")).status is Status.NON_FINITE
    growing = drawn_field(2, [], "tanh", "none")
    with torch.no_grad():
        growing.layers[0].weight.copy_(900 * torch.eye(2))
    assert engine.carry(growing, 1.0, points, Solver("dopri5"), exact=False).status is not Status.DONE


def test_what_the_engine_leaves_to_others() -> None:
    points = drawn(4, 2)
    assert engine.takes(drawn_field(2, [8], "tanh", "none"), points, exact=True)
    assert not engine.takes(drawn_field(2, [engine.WIDEST + 1], "tanh", "none"), points, exact=True)
    assert not engine.takes(drawn_field(2, [8], "tanh", "none"), points.float(), exact=True)
    many = engine.MOST_DIMS + 1
    assert not engine.takes(drawn_field(many, [8], "tanh", "none"), drawn(4, many), exact=True)
    assert engine.takes(drawn_field(many, [8], "tanh", "none"), drawn(4, many), exact=False)

    class Own(MLPField):
        pass

    assert not engine.takes(Own(2, [8]).double(), points, exact=True)
    field, taken = drawn_field(2, [8], "tanh", "none"), []

    def seen(z):
        taken.append(engine.takes(field, z, exact=True))
        return z

    torch.func.jvp(seen, (points,), (points,))
    assert taken == [False]


def euler(field, points):
    """z + f(0, z) and the trace of f there: one step of Euler's method."""
    method = Tableau(a=((),), b=(1.0,), c=(0.0,), error=(1.0, -1.0), order=1)
    found = engine.walk([field], [1.0], [(1.0,)], method, points)
    return found.ends, found.traces


def test_float32_is_as_good_as_float32() -> None:
    field, points = drawn_field(2, [64, 64], "silu", "concat"), drawn(50, 2)
    precise = euler(field, points)
    coarse = euler(field.float(), points.float())
    for ours, wanted in zip(coarse, precise, strict=True):
        torch.testing.assert_close(ours.double(), wanted, rtol=2e-6, atol=2e-6)  # some 64 roundings of 6e-8


@pytest.mark.parametrize("activation", ACTIVATION_ORDER)
def test_activations_far_from_zero(activation: str) -> None:
    field = MLPField(1, [1], activation).double()
    with torch.no_grad():
        field.layers[0].weight.fill_(1.0)
        field.layers[1].weight.fill_(1.0)
    points = torch.tensor([[-1e6], [-800.0], [-40.0], [-1e-9], [0.0], [1e-9], [30.0], [800.0]], dtype=torch.float64)
    end, trace = euler(field, points)
    with torch.no_grad():
        wanted = points + field(torch.zeros(()), points)
    torch.testing.assert_close(end, wanted, rtol=1e-12, atol=1e-12)
    assert bool(torch.isfinite(trace).all())
