"""The trace of shallow perceptrons by the form in two diagonals, against D tangents; float64, so 1e-12 is rounding."""

from __future__ import annotations

import pytest
import torch
from support.arrays import pairwise
from support.plain_solve import drawn, drawn_field, flops

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.divergence import exact, exact_trace
from sparseflows.flow.fields import BASES, TIMES

T = torch.tensor(0.37, dtype=torch.float64)


@pytest.mark.parametrize(*pairwise(activation=ACTIVATIONS, time=TIMES, hidden=[[], [9], [9, 7]], base=BASES))
def test_value_trace_and_gradients(activation, time, hidden, base) -> None:
    field, points = drawn_field(5, hidden, activation, time, base), drawn(11, 5).requires_grad_()
    inputs = [points, *field.parameters()]

    def differentiated(found):
        value = found.velocity.square().sum() + (found.trace * drawn(11, seed=3)).sum()
        return [
            found.velocity,
            found.trace,
            *torch.autograd.grad(value, inputs, materialize_grads=True, allow_unused=True),
        ]

    wanted = differentiated(exact(field, T, points))
    field.tangents = None  # it does without
    for ours, theirs in zip(differentiated(exact_trace(field, T, points)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_others_take_the_tangents() -> None:
    deep, points = drawn_field(3, [5, 5, 5], "tanh", "concat"), drawn(4, 3)
    for field, t in ((deep, T), (drawn_field(3, [5], "tanh", "concat"), drawn(4, 1))):
        found = exact_trace(field, t, points)
        assert float(found.frobenius.detach().min()) > 0  # which the cheap form leaves out
        torch.testing.assert_close(found, exact(field, t, points))


def test_a_row_costs_one_product_more_not_one_a_dimension() -> None:
    field, points = drawn_field(40, [32, 32], "tanh", "none"), drawn(1_000, 40)

    of_f = flops(lambda: field(T, points))
    once = 2 * 32 * 32 * 40  # A₁ A₃, the same for all rows
    assert flops(lambda: exact_trace(field, T, points)) == of_f + 2 * 1_000 * 32 * 32 + once
