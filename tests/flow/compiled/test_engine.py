"""The compiled engine against autograd and torchdiffeq; float64, so 1e-12 is rounding."""

from __future__ import annotations

import math
import resource
from pathlib import Path

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


@pytest.mark.parametrize(
    *pairwise(
        **FIELDS, dim=[1, 3, 6], kind=["exact", "probed", "none"], reverse=[False, True],
        dtype=[torch.float32, torch.float64], method=["dopri5", "bosh3"],
    )
)  # fmt: skip
def test_a_row_is_a_function_of_itself_to_the_last_bit(
    activation, time, hidden, base, dim, kind, reverse, dtype, method
) -> None:
    field = drawn_field(dim, hidden, activation, time, base).to(dtype)
    points, probes = drawn(61, dim).to(dtype), drawn(61, dim, seed=2).sign().to(dtype)

    def carried(rows):
        own = probes[rows] if kind == "probed" else None
        solver = Solver(method, 1e-4, 1e-4)
        return engine.carry(field, 1.0, points[rows], solver, kind == "exact", own, reverse, by_row=True).state

    whole = carried(torch.arange(61))
    for rows in (torch.arange(61).flip(0), torch.arange(0, 61, 7), torch.tensor([60]), torch.tensor([3, 3, 3])):
        for ours, of_all in zip(carried(rows), whole, strict=True):
            assert torch.equal(ours, of_all[rows])


def test_chunks_threads_and_rows_that_fail_move_no_other_row() -> None:
    flow, points = Flow(drawn_field(2, [33, 20], "silu", "concat")).float(), drawn(1_500, 2).float()
    bad = torch.arange(7, 1_500, 149)
    spoilt = points.index_put((bad[::2],), torch.tensor(1e30)).index_put((bad[1::2],), torch.tensor(3e37))
    good = torch.ones(1_500, dtype=torch.bool).index_fill(0, bad, False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.no_grad():
            wanted = flow.log_prob(points[good])
            for count, chunk in ((1, 100), (3, None), (2, 333)):
                torch.set_num_threads(count)
                assert torch.equal(flow.log_prob(points[good], chunk=chunk), wanted)
                assert torch.equal(flow.log_prob(spoilt, on_failure="nan", chunk=chunk)[good], wanted)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("tol", [1e-4, 1e-7])
def test_every_row_takes_its_own_steps(tol: float) -> None:
    """One row is as far from the exact path as its tolerance says, beside rows that are a thousand times as fast."""
    field = drawn_field(2, [], "tanh", "none")
    with torch.no_grad():
        field.layers[0].weight.copy_(torch.tensor([[0.0, 40.0], [-40.0, 0.0]]))  # a rotation, by |z| alone
        field.layers[0].bias.zero_()
    points = torch.tensor([[1.0, 0.0], [0.0, 1e-3], [1e4, 0.0]], dtype=torch.float64)
    found = engine.carry(field, 1.0, points, Solver("dopri5", tol, tol * 1e-3), by_row=True)
    turn = torch.linalg.matrix_exp(field.layers[0].weight.detach())
    error = (found.state[0] - points @ turn.T).norm(dim=1) / points.norm(dim=1)
    assert float(error.max()) < 400 * tol  # errors of some hundred steps, none of them more than the tolerance
    assert found.nfe > 100


def test_a_row_that_fails_says_so_and_stays_where_it_was() -> None:
    field = drawn_field(2, [], "tanh", "none")
    with torch.no_grad():
        field.layers[0].weight.copy_(90 * torch.eye(2))
        field.layers[0].bias.zero_()
    points = torch.tensor([[1.0, 0.0], [1e290, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = engine.carry(field, 1.0, points, Solver("dopri5"), by_row=True)
    assert found.failed is not None
    assert found.failed.tolist() == [False, True, False]
    assert found.status is Status.NON_FINITE
    assert float(found.state[0][1, 0]) >= 1e290
    assert float(found.state[0][0, 0]) == pytest.approx(math.exp(90), rel=0.01)


def test_where_it_is_not_single_rows_all_are_given_up() -> None:
    field, points = drawn_field(2, [8], "tanh", "none"), drawn(4_000, 2)
    found = engine.carry(field, 1.0, points, Solver("dopri5", 1e-11, 1e-11, max_nfe=20), by_row=True)
    assert found.failed is not None
    assert bool(found.failed.all())
    assert bool(torch.isfinite(found.state[0]).all())
    assert found.nfe <= 20


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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_threads_give_their_memory_back() -> None:
    flow, points = Flow(drawn_field(2, [128, 128, 128], "tanh", "concat")), drawn(1_100, 2)
    threads, sizes = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            for _ in range(2):
                for _ in range(40):
                    flow.log_prob(points)
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    finally:
        torch.set_num_threads(threads)
    assert sizes[1] - sizes[0] < 10e6  # 60 MB where every call's threads keep theirs


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
