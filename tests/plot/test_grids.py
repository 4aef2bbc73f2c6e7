"""Grids of windows: fields and densities on them, and paths through a flow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.truths import SHEAR, SPIRAL, SineField, jacobians, linear_log_prob, linear_map, normal, tight
from torch import nn

from sparseflows.errors import RunError
from sparseflows.flow.compiled import engine
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import SolveFailed, Solver
from sparseflows.plot import grids
from sparseflows.plot.grids import (
    bounded,
    field_at,
    log_density,
    make_grid,
    moment,
    path,
    to_data_coordinates,
    to_first_block,
)
from sparseflows.plot.windows import square_window, window

DOUBLE = {"dtype": torch.float64}


def linear_flow(*matrices, end_times=(), **settings):
    flow = Flow([LinearField(torch.tensor(m, **DOUBLE)) for m in matrices], train_end_time=bool(end_times), **settings)
    for block, end_time in zip(flow.chain(), end_times, strict=bool(end_times)):
        block.sqrt_end_time.data = torch.tensor(end_time, **DOUBLE).sqrt()
    return flow


# --- the grid


def test_the_grid_has_square_cells_in_rows_that_rise_with_y():
    grid = make_grid((-1.0, 3.0, 0.0, 4.0), 8)
    assert grid.area == pytest.approx(0.25)
    assert grid.area * len(grid.points) == pytest.approx(16)
    picture = grid.points.reshape(8, 8, 2)
    assert np.allclose(picture[3, :, 0], grid.axis_x)
    assert np.allclose(picture[:, 5, 1], grid.axis_y)
    assert grid.axis_x[0] == pytest.approx(-0.75)
    assert grid.axis_y[-1] == pytest.approx(3.75)


def test_the_window_is_square_and_holds_rows_margin_and_noise():
    rows = np.array([[0.0, 0.0], [4.0, 1.0]])
    left, right, bottom, top = square_window(rows, 0.1)
    assert (left, right) == pytest.approx((-0.4, 4.4))
    assert top - bottom == pytest.approx(right - left)
    assert (bottom + top) / 2 == pytest.approx(0.5)
    left, right, bottom, top = square_window(rows, 0.1, reach=3.0)
    assert left <= -3 < 4.4 <= right
    assert bottom <= -3 < 3 <= top


def test_a_window_leaves_the_outermost_out():
    rows = np.column_stack([np.linspace(-1, 1, 1001), np.linspace(-1, 1, 1001)])
    rows[0] = -100
    assert window(rows, 0.01, 0.0)[0] == pytest.approx(-0.98, abs=0.01)


# --- the field


def test_a_linear_field_is_az_with_divergence_tr_a():
    flow = linear_flow(SPIRAL, SHEAR)
    grid = make_grid((-2.0, 2.0, -2.0, 2.0), 9)
    for block, matrix in enumerate((SPIRAL, SHEAR)):
        velocity, divergence = field_at(flow, moment(flow, block, 0.5), grid.points)
        assert np.allclose(velocity, grid.points @ np.array(matrix).T, rtol=1e-14, atol=1e-14)
        assert np.allclose(divergence, np.trace(matrix), rtol=1e-14)


def test_a_field_of_time_agrees_with_autograd_in_its_own_time():
    flow = Flow(SineField(**DOUBLE), train_end_time=True)
    flow.chain()[0].sqrt_end_time.data = torch.tensor(1.5, **DOUBLE)
    when = moment(flow, 0, 0.25)
    assert when.time == pytest.approx(0.25 * 2.25)
    z = normal(50, 2, **DOUBLE)
    velocity, divergence = field_at(flow, when, z.numpy())
    field = SineField(**DOUBLE)
    expected = jacobians(lambda y: field(torch.tensor(0.25 * 2.25, **DOUBLE), y), z)
    # Two ways to differentiate the same formula: rounding only.
    assert np.allclose(divergence, torch.diagonal(expected, dim1=1, dim2=2).sum(1).detach(), rtol=1e-12, atol=1e-13)
    assert np.allclose(velocity, field(torch.tensor(0.5625, **DOUBLE), z).detach(), rtol=1e-14)


# --- the density


def test_the_density_of_a_linear_flow_is_its_gaussian_with_mass_one():
    flow = linear_flow(SPIRAL, SHEAR)
    grid = make_grid((-8.0, 8.0, -8.0, 8.0), 64)
    seen = []
    found = log_density(flow, grid, tight(DOUBLE), "float64", lambda *step: seen.append(step))
    total = linear_map([torch.tensor(m, **DOUBLE) for m in (SPIRAL, SHEAR)], [1.0, 1.0])
    expected = linear_log_prob(torch.as_tensor(grid.points), total).numpy()
    # log p reaches −100 in the corners, to 1e-9 a step.
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)
    # The midpoint rule on a Gaussian is exact as long as a cell (0.25) is below its deviations (0.6 and more),
    # and 8 is more than 5 of the largest.
    assert np.exp(found).sum() * grid.area == pytest.approx(1, abs=1e-4)
    assert seen[-1] == (4096, 4096)
    assert len(seen) > 1


class Steep(nn.Module):
    """Still within 2 of the origin; beyond, the distance from there grows by e^120, which squared is no float32."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(120.0))

    def forward(self, t, z):
        return self._rate(z) * z

    def tangents(self, t, z, v):
        radius = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        along = (v * z).sum(-1, keepdim=True) * z / radius**3
        return self(t, z), self._rate(z) * v + 2 * self.rate * (radius > 2) * along

    def _rate(self, z):
        return self.rate * (1 - 2 / torch.linalg.vector_norm(z, dim=1, keepdim=True)).clamp(min=0)


def test_a_path_to_infinity_leaves_its_cell_without_a_density():
    flow = Flow(Steep())
    grid = make_grid((-6.0, 6.0, -6.0, 6.0), 24)
    solver = Solver(rtol=1e-3, atol=1e-3)
    less = make_grid((-2.4, 2.4, -2.4, 2.4), 24)
    unbounded, radius = np.exp(log_density(flow, less, solver, "float32")), np.linalg.norm(less.points, axis=1)
    assert not (unbounded[radius > 2.3] > 0).any()  # zero, or no number
    assert np.isfinite(unbounded[radius < 2]).all()
    found = np.exp(log_density(bounded(flow, 10.0), grid, solver, "float32"))
    near = np.linalg.norm(grid.points, axis=1) < 2
    assert np.isfinite(found).all()
    assert np.allclose(found[near], np.exp(-(grid.points[near] ** 2).sum(1) / 2) / (2 * np.pi), rtol=1e-5)
    assert found[~near].max() < 1e-12


def test_hard_tiles_are_left_out_where_nothing_is_needed(monkeypatch):
    flow = bounded(Flow(Steep()), 10.0)
    grid = make_grid((-6.0, 6.0, -6.0, 6.0), 12)
    solver = Solver(rtol=1e-3, atol=1e-3)
    radius = np.linalg.norm(grid.points, axis=1)
    whole = log_density(flow, grid, solver, "float32")
    monkeypatch.setattr(grids, "PATIENCE", 50)  # still cells take 14
    monkeypatch.setattr(grids, "SMALLEST_TILE", 1)
    monkeypatch.setattr(grids, "TILE", 6)
    needed = (radius < 2) | (np.arange(len(radius)) == 4)
    seen = []
    found = log_density(flow, grid, solver, "float32", lambda *step: seen.append(step), needed)
    left_out = np.isneginf(found)
    assert not left_out[needed].any()
    assert left_out[radius > 2].mean() > 0.9
    # Other tiles, other steps: to the tolerance where the density is more than nothing.
    assert np.allclose(np.exp(found), np.exp(whole), atol=1e-4)
    assert seen[-1] == (144, 144)


def test_bounded_changes_nothing_within_its_reach():
    flow = linear_flow(SPIRAL)
    z = normal(30, 2, **DOUBLE).numpy()
    for one, other in zip(
        field_at(flow, moment(flow, 0, 0.3), z), field_at(bounded(flow, 30.0), moment(flow, 0, 0.3), z), strict=True
    ):
        assert np.array_equal(one, other)


# --- paths


def test_paths_of_a_linear_flow_are_its_exponentials():
    flow = linear_flow(SPIRAL, SHEAR, end_times=(0.7, 1.6))
    noise = normal(20, 2, **DOUBLE)
    clock = np.linspace(2, 0, 7)  # 1/3 apart: block 1 | 2 changes on a time, and
    odd = [2.0, 1.4, 0.6, 0.0]  # here within an interval
    a, b = (torch.tensor(m, **DOUBLE) for m in (SPIRAL, SHEAR))
    for times in (clock.tolist(), odd):
        states = path(flow, noise.numpy(), times, tight(DOUBLE))
        assert states.shape == (len(times), 20, 2)
        for time, state in zip(times, states, strict=True):
            to_here = linear_map([a, b], [0.7 * min(time, 1), 1.6 * max(time - 1, 0)])
            whole = linear_map([a, b], [0.7, 1.6])
            expected = noise @ torch.linalg.inv(whole).T @ to_here.T
            assert np.allclose(state, expected, rtol=1e-6, atol=1e-6)


def test_paths_end_where_to_data_and_to_noise_do():
    flow = Flow([SineField(**DOUBLE), LinearField(torch.tensor(SPIRAL, **DOUBLE))], solver=tight(DOUBLE))
    noise = normal(40, 2, **DOUBLE)
    back = path(flow, noise.numpy(), np.linspace(2, 0, 11).tolist(), tight(DOUBLE))
    there = path(flow, back[-1], np.linspace(0, 2, 11).tolist(), tight(DOUBLE))
    with torch.no_grad():
        # 1e-9 a step, some tens of steps.
        assert np.allclose(back[-1], flow.to_data(noise), atol=1e-6)
    assert np.allclose(there, back[::-1], atol=1e-6)


@pytest.mark.parametrize(("time", "base"), [("concat", "gaussian"), ("concat_squash", "none"), ("none", "none")])
def test_the_engine_draws_the_same_paths_and_densities(monkeypatch, time, base):
    fields = [MLPField(2, [7, 6], "tanh", time, base).double() for _ in range(2)]
    for number, field in enumerate(fields):
        field.initialise(torch.Generator().manual_seed(number), 2.0)
        with torch.no_grad():
            for p in field.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    flow = Flow(fields, train_end_time=True)
    for block, end_time in zip(flow.chain(), (0.7, 1.6), strict=True):
        block.sqrt_end_time.data = torch.tensor(end_time, **DOUBLE).sqrt()
    noise, clock = normal(30, 2, **DOUBLE).numpy(), [2.0, 1.7, 1.0, 0.4, 0.0, 0.6, 1.3]
    grid = make_grid((-2.0, 2.0, -2.0, 2.0), 12)
    assert engine.takes(fields[0], torch.as_tensor(noise), exact=True)
    by_engine = path(flow, noise, clock, tight(DOUBLE)), log_density(flow, grid, tight(DOUBLE), "float64")
    monkeypatch.setattr(engine, "takes", lambda *_, **__: False)
    plain = path(flow, noise, clock, tight(DOUBLE)), log_density(flow, grid, tight(DOUBLE), "float64")
    for found, expected in zip(by_engine, plain, strict=True):
        assert np.allclose(found, expected, rtol=0, atol=1e-6)  # 1e-9 a step, some tens of steps


def test_whitening_is_undone_at_the_end_and_only_there():
    matrix = torch.tensor(SHEAR, **DOUBLE) + torch.eye(2, **DOUBLE)
    flow = linear_flow(SPIRAL, whitening=matrix, solver=tight(DOUBLE))
    noise = normal(10, 2, **DOUBLE)
    last = to_data_coordinates(flow, path(flow, noise.numpy(), [1.0, 0.5, 0.0], tight(DOUBLE))[-1])
    with torch.no_grad():
        assert np.allclose(last, flow.to_data(noise), atol=1e-6)
    assert np.allclose(to_first_block(flow, last), last @ matrix.numpy().T)
    plain = linear_flow(SPIRAL)
    assert to_first_block(plain, last) is last
    assert to_data_coordinates(plain, last) is last


class Wall(nn.Module):
    """Still where x < 1; beyond, no number."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, t, z):
        return (0 * z).masked_fill(z[:, :1] > 1, torch.nan)


@pytest.mark.parametrize("beyond", [3, 7])
def test_cells_and_paths_that_cannot_be_solved_are_no_numbers_and_most_of_them_an_error(beyond):
    flow, solver = Flow(Wall()), Solver(rtol=1e-3, atol=1e-3)
    points = np.zeros((10, 2))
    points[:beyond, 0] = 2.0
    grid = make_grid((-9.0, 1.0 + beyond, -5.0, 5.0), 8)
    if beyond == 7:
        grid = make_grid((0.5, 7.5, -5.0, 5.0), 8)
        with pytest.raises(RunError, match="density on most of the grid"):
            log_density(flow, grid, solver, "float64")
        with pytest.raises(SolveFailed, match="7 of 10 paths"):
            path(flow, points, [0.0, 0.5, 1.0], solver)
        return
    found = log_density(flow, grid, solver, "float64")
    assert np.array_equal(np.isnan(found), grid.points[:, 0] > 1)
    states = path(flow, points, [0.0, 0.5, 1.0], solver)
    assert np.isnan(states[1:, :3]).all()
    assert np.array_equal(states[:, 3:], np.broadcast_to(points[3:], (3, 7, 2)))
