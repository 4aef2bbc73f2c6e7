"""Each row has its own outcome: what one row does to a solve changes nothing for the others."""

import math
import threading
import warnings

import numpy as np
import pytest
import torch
from support.truths import gaussian_log_prob, generator, normal
from torch import nn

from sparseflows.errors import InputError, RunError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.rows import carry_rows
from sparseflows.flow.solvers.ode import SolveFailed, Solver, Status

FAR, UNSOLVABLE = 1e200, 9.0  # beyond float64's squares; where the field below is not defined


class Patch(nn.Module):
    """dz/dt = -z/2, but not defined where a coordinate is above 8; a field of one's own, without an engine."""

    dim = 2

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(-0.5, dtype=torch.float64))

    def forward(self, t, z):
        bad = (z > 8).any(1, keepdim=True) & (z < 1e3).all(1, keepdim=True)
        return torch.where(bad, torch.full_like(z, torch.nan), self.rate * z)


class Explodes(nn.Module):
    """dz/dt = z² (1 + z²): infinite before t = 1 where z > 0.6, by steps that shrink for ever."""

    dim = 1

    def forward(self, t, z):
        return z**2 * (1 + z**2)


class Stiff(nn.Module):
    """dz/dt = -z, a million times as fast where z > 5."""

    dim = 1

    def forward(self, t, z):
        return torch.where(z > 5, -1e6 * (z - 5.5), -z)


def mlp(dtype=torch.float64):
    flow = Flow(MLPField(2, [16, 16], "softplus", "concat"))
    seeded_initialise(flow, 0, gain=2.0)
    return flow.to(dtype)


def mixed(rows):
    """Good rows with a far and an unsolvable one among them, and where these are."""
    points = normal(rows, 2)
    points[3], points[rows - 2] = FAR, UNSOLVABLE
    return points, [3, rows - 2]


@pytest.mark.parametrize("solver", [Solver(), Solver("bosh3"), Solver(norm="batch"), Solver("rk4", steps=20)])
def test_rows_that_fail_leave_the_others_their_values(solver):
    flow, (points, bad) = Flow(Patch()), mixed(40)
    good = [row for row in range(40) if row not in bad]
    with torch.no_grad():
        found = flow.log_prob(points, solver=solver, on_failure="nan")
        alone = flow.log_prob(points[good], solver=solver)
        noise = flow.to_noise(points, solver=solver, on_failure="nan")
    assert found[3] == -math.inf
    assert found[38].isnan()
    torch.testing.assert_close(found[good], alone, rtol=0, atol=1e-4)  # other steps, the same tolerance
    torch.testing.assert_close(noise[good], points[good] * math.exp(-0.5), rtol=0, atol=1e-4)
    assert noise[38].isnan().all()


def test_the_engines_rows_fail_alone():
    flow, points = mlp(), normal(37, 2)
    points[5], points[20], points[21] = FAR, torch.nan, -torch.inf
    good = [row for row in range(37) if row not in (5, 20, 21)]
    with torch.no_grad():
        found, alone = flow.log_prob(points, on_failure="nan"), flow.log_prob(points[good])
    assert found[20].isnan()
    assert found[5] == found[21] == -math.inf
    torch.testing.assert_close(found[good], alone, rtol=0, atol=1e-4)


def test_single_precision_gives_way_to_double_where_it_is_too_small():
    flow, points = mlp(torch.float32), normal(9, 2).float()
    points[4] = 1e25  # its square is no float32, its field's error is
    with torch.no_grad():
        carried = carry_rows(flow, points, flow.solver)
        precise = carry_rows(flow.double(), points.double(), flow.solver)
    assert carried.status is precise.status is Status.DONE
    torch.testing.assert_close(carried.points[4].double(), precise.points[4], rtol=1e-4, atol=0)  # some steps of 1e-5
    assert carried.log_prob()[4] == -math.inf
    assert precise.log_prob()[4] == pytest.approx(-1e50, rel=0.2)  # a number there


def test_an_exploding_path_is_unsolved_and_a_growing_one_infinite():
    points = torch.tensor([[0.1], [3.0], [0.2]], dtype=torch.float64)
    with torch.no_grad():
        found = carry_rows(Flow(Explodes()), points, Solver())
        assert found.unsolved.tolist() == [False, True, False]
        growing = Flow(LinearField(torch.full((1, 1), 600.0, dtype=torch.float64)))
        found = carry_rows(growing, torch.tensor([[1e-200], [1.0]], dtype=torch.float64), Solver(max_nfe=200_000))
    assert found.infinite.tolist() == [False, False]  # e^600 is a number,
    assert found.log_prob()[1] == -math.inf  # its square is none
    assert found.status is Status.DONE


def test_a_stiff_row_costs_the_others_nothing():
    points = torch.linspace(-2, 2, 101, dtype=torch.float64).unsqueeze(1)
    points[50] = 6.0
    with torch.no_grad():
        found = carry_rows(Flow(Stiff()), points, Solver(max_nfe=1500))
    good = [row for row in range(101) if row != 50]
    assert found.nfe < 300
    expected = gaussian_log_prob(points[good] * math.exp(-1)) - 1
    torch.testing.assert_close(found.log_prob()[good], expected, rtol=0, atol=1e-4)


def test_a_failure_names_its_rows():
    flow, (points, _) = Flow(Patch()), mixed(40)
    with torch.no_grad(), pytest.raises(SolveFailed, match=r"1 of 40 rows \(from 0: 38\) cannot be solved"):
        flow.log_prob(points)
    with pytest.raises(SolveFailed):
        flow.log_prob(points)


@pytest.mark.parametrize("on_failure", ["raise", "nan"])
def test_nan_is_refused_or_passed_on(on_failure):
    points = normal(4, 2)
    points[2, 1] = torch.nan
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            if on_failure == "raise":
                with pytest.raises(InputError, match="row 2"):
                    mlp().log_prob(points)
            else:
                assert mlp().log_prob(points, on_failure="nan").isnan().tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="known: raise, nan"):
        mlp().log_prob(normal(2, 2), on_failure="drop")


def test_gradients_are_those_of_the_rows_that_can_be_solved():
    flow, (points, bad) = Flow(Patch()), mixed(12)
    good = [row for row in range(12) if row not in bad]
    found = flow.log_prob(points, on_failure="nan")
    assert found.isfinite().tolist() == [row in good for row in range(12)]
    (one,) = torch.autograd.grad(found[good].sum(), flow.parameters())
    (other,) = torch.autograd.grad(flow.log_prob(points[good]).sum(), flow.parameters())
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_samples_that_run_off_are_drawn_again_and_counted():
    class RunsOff(nn.Module):
        dim = 2

        def forward(self, t, z):
            return torch.where(z.norm(dim=1, keepdim=True) > 2, -100.0 * z, 0.0 * z)

    flow = Flow(RunsOff())
    with pytest.warns(UserWarning, match="draws ran off"):
        samples = flow.sample(200, generator=generator(0))
    assert samples.shape == (200, 2)
    assert samples.norm(dim=1).max() < 2.01
    with pytest.warns(UserWarning, match="draws ran off"):
        assert flow.distribution().sample((200,)).norm(dim=1).max() < 2.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples, log_prob = mlp().sample_and_log_prob(50, generator=generator(0))
    with torch.no_grad():
        torch.testing.assert_close(mlp().log_prob(samples), log_prob, rtol=0, atol=1e-3)


def test_what_is_given_is_converted_where_its_meaning_is_clear():
    flow, rows = mlp(torch.float32), normal(3, 2)
    with torch.no_grad():
        expected = flow.log_prob(rows.float())
        for given in (rows, rows.numpy(), rows.tolist(), rows.numpy().astype(np.float32)):
            torch.testing.assert_close(flow.log_prob(given), expected)
        torch.testing.assert_close(flow.log_prob(rows[0]), expected[0], rtol=0, atol=1e-5)
        assert flow.to_noise(rows[0].numpy()).shape == (2,)
        whole = flow.log_prob(np.array([[1, -2]]))
        torch.testing.assert_close(whole, flow.log_prob(torch.tensor([[1.0, -2.0]])))
        assert flow.to_data(rows).dtype is torch.float32
        assert flow.sample(0).shape == (0, 2)
    for wrong in ("abc", [["a", "b"]], torch.ones(2, 2) > 0, torch.ones(2, 2) * 1j):
        with pytest.raises(InputError):
            flow.log_prob(wrong)
    for n in (-1, 2.5, True, "3"):
        with pytest.raises(InputError, match="whole number"):
            flow.sample(n)


def test_transforms_of_torch_func_work_or_are_refused_with_the_remedy():
    flow, x = mlp(), normal(3, 2)
    flow.solver = Solver("rk4", steps=6)
    y = x.clone().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(y).sum(), y)
    near = {"rtol": 1e-9, "atol": 1e-9}  # the same steps
    torch.testing.assert_close(torch.func.grad(lambda z: flow.log_prob(z).sum())(x), score, **near)
    rows = torch.func.jacrev(flow.log_prob)(x)
    torch.testing.assert_close(torch.einsum("iij->ij", rows), score, **near)
    _, pushed = torch.func.jvp(lambda z: flow.log_prob(z).sum(), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(pushed, score.sum(), **near)
    for mapped in (torch.func.vmap(flow.log_prob), torch.func.jacfwd(flow.log_prob)):
        with pytest.raises(InputError, match=r"torch\.autograd\.grad"):
            mapped(x)
    with pytest.raises(InputError, match="fixed steps"):
        torch.func.grad(lambda z: flow.log_prob(z, solver=Solver()).sum())(x)


class Steep(nn.Module):
    """dz/dt = a sinh(z)/2: float32 has no number for it beyond 89, and a path from 3 on ends before t = 1."""

    dim = 2

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def forward(self, t, z):
        return self.rate * torch.sinh(z)


def test_a_row_that_fails_in_the_first_block_costs_the_others_nothing_in_the_second():
    flow = Flow([Steep(), Steep()], solver=Solver(max_nfe=2000))
    good = 0.1 * normal(80, 2).float()
    with torch.no_grad():
        expected = flow.log_prob(good)
        found = flow.log_prob(torch.cat([good, torch.tensor([[60.0, 1.0]])]), on_failure="nan")
    torch.testing.assert_close(found[:-1], expected, rtol=1e-4, atol=1e-4)
    assert not torch.isfinite(found[-1])


@pytest.mark.parametrize("fields", [1, 2])
def test_with_gradients_a_row_that_fails_is_named_or_left_out(fields):
    flow = Flow([Steep() for _ in range(fields)], train_end_time=True, solver=Solver(max_nfe=2000))
    good = 0.1 * normal(5, 2).float()
    rows = torch.cat([good[:2], torch.tensor([[60.0, 1.0]]), good[2:], torch.tensor([[torch.inf, 0.0]])])
    with pytest.raises(SolveFailed, match=r"1 of 7 rows \(from 0: 2\)"):
        flow.log_prob(rows)
    found = flow.log_prob(rows, on_failure="nan")
    kept = torch.tensor([0, 1, 3, 4, 5])
    assert torch.isnan(found[2])
    assert torch.isneginf(found[6])
    wanted, parameters = flow.log_prob(good), list(flow.parameters())
    torch.testing.assert_close(found[kept], wanted, rtol=1e-4, atol=1e-4)
    mine = torch.autograd.grad(found[kept].sum(), parameters)
    for one, other in zip(mine, torch.autograd.grad(wanted.sum(), parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_a_row_beyond_all_numbers_has_its_value_with_gradients_too():
    flow = mlp(torch.float32)
    rows = torch.cat([normal(3, 2).float(), torch.tensor([[3e38, 3e38], [torch.inf, 1.0]])])
    found = flow.log_prob(rows)
    assert torch.isneginf(found[3:]).all()
    torch.testing.assert_close(found[:3], flow.log_prob(rows[:3]), rtol=1e-4, atol=1e-4)
    found[:3].sum().backward()


def test_a_field_that_cannot_be_copied_is_no_error_where_a_row_fails():
    flow = Flow(Steep(), solver=Solver(max_nfe=2000))
    flow.chain()[0].field.module.lock = threading.Lock()
    with torch.no_grad():
        found = flow.log_prob(torch.tensor([[0.1, 0.2], [60.0, 1.0]]), on_failure="nan")
    assert torch.isfinite(found).tolist() == [True, False]


def test_samples_of_a_flow_in_other_coordinates_than_standardised_ones_have_not_run_off():
    wide = Flow(LinearField(torch.diag(torch.tensor([-16.0, -17.0]))))  # standard deviations of 9e6 and 2e7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wide.sample(50, dim=2, generator=generator(0)).abs().max() > 1e7
    wide.standardiser = object()
    with pytest.raises(RunError, match="run off beyond 1e\\+06 standard deviations"):
        wide.sample(50, dim=2)
