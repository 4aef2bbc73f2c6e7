"""The hand-written solve on given steps against the same loop by autograd; float64, so 1e-12 is rounding."""

from __future__ import annotations

import pytest
import torch
from support.arrays import pairwise
from support.plain_solve import drawn, drawn_field, plain_solve

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import TIMES
from sparseflows.flow.solvers.held_grid import choose_grid, solve_on_grid
from sparseflows.flow.solvers.ode import Status
from sparseflows.flow.solvers.tableaus import TABLEAUS

STEPS = (0.2, 0.3, 0.1, 0.4)
ROUNDING = 1e-12


@pytest.mark.parametrize(
    *pairwise(activation=ACTIVATIONS, time=TIMES, hidden=[[8, 7, 6], [5], []], probed=[False, True])
)
def test_values_and_gradients_are_those_of_autograd(activation, time, hidden, probed) -> None:
    field = drawn_field(3, hidden, activation, time)
    points, end_time = drawn(11, 3).requires_grad_(), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    probes = drawn(11, 3, seed=2) if probed else None
    weights, more = drawn(11, 3, seed=3), drawn(11, seed=4)
    inputs = [points, end_time, *field.parameters()]

    def differentiated(pair):
        value = (pair[0] * weights).sum() + (pair[1] * more).sum()
        return [*pair, *torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)]

    for tableau in TABLEAUS.values():
        wanted = differentiated(plain_solve(field, end_time, points, STEPS, tableau, probes))
        for recompute in (False, True):
            pair = solve_on_grid(
                field, end_time, points, STEPS, tableau, probes, recompute, tile=4
            )  # the last is smaller
            found = differentiated(pair)
            for ours, theirs in zip(found, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("probed", [False, True])
def test_the_gaussian_base_is_counted(probed: bool) -> None:
    field = drawn_field(3, [6], "silu", "concat", base="gaussian")
    points, probes = drawn(5, 3).requires_grad_(), drawn(5, 3, seed=2) if probed else None
    one = torch.ones((), dtype=torch.float64)
    tableau = TABLEAUS["bosh3"]
    pairs = [
        plain_solve(field, one, points, STEPS, tableau, probes),
        solve_on_grid(field, one, points, STEPS, tableau, probes),
    ]
    gradients = [torch.autograd.grad((end.square().sum() + trace.sum()), [points])[0] for end, trace in pairs]
    torch.testing.assert_close(pairs[0], pairs[1], rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("method", TABLEAUS)
def test_the_chosen_steps_hold_the_tolerance(method: str, tol: float) -> None:
    field, points = drawn_field(2, [32, 32], "tanh", "concat"), 2 * drawn(64, 2)
    with torch.no_grad():
        field.layers[1].weight.mul_(4)
    one, tableau = torch.ones((), dtype=torch.float64), TABLEAUS[method]
    chosen = choose_grid(field, one, points, tableau, tol)
    finer = choose_grid(field, one, points, TABLEAUS["dopri5"], 1e-10)
    assert chosen.status is finer.status is Status.DONE
    assert sum(chosen.steps) == pytest.approx(1, abs=1e-12)
    end, trace = solve_on_grid(field, one, points, chosen.steps, tableau)
    torch.testing.assert_close(end, chosen.state[0], rtol=1e-10, atol=1e-10)
    # The error of every step is below the tolerance; the whole path adds them up.
    allowed = tol * len(chosen.steps)
    assert float((end.detach() - finer.state[0]).square().mean().sqrt()) < allowed
    assert float((trace.detach() - finer.state[1]).square().mean().sqrt()) < allowed


def test_a_field_without_numbers_ends_with_a_status() -> None:
    field = drawn_field(2, [4], "tanh", "none")
    with torch.no_grad():
        field.layers[0].bias.fill_(float("nan"))
    one = torch.ones((), dtype=torch.float64)
    assert choose_grid(field, one, drawn(4, 2), TABLEAUS["bosh3"], 1e-3).status is Status.NON_FINITE
    stiff = drawn_field(2, [4], "tanh", "none")
    assert choose_grid(stiff, one, drawn(4, 2), TABLEAUS["bosh3"], 1e-9, max_nfe=20).status is Status.OUT_OF_STEPS
