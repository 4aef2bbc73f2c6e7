"""The loss along eigenvectors, against a loss that is a parabola."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.matrices import Quadratic

from analysis.curvature.along import POINTS, loss_along
from analysis.curvature.operators import HessianOperator, Survivors
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.masks import Masks


def test_a_parabola_is_itself():
    flow = Flow([LinearField(torch.zeros(3, 3).double())])
    values = torch.tensor([5.0, -2.0, 1.0, 0.5, 0.0, 0, 0, 0, 0]).double()
    loss = Quadratic(torch.diag(values))
    kept = Masks({"blocks.0.field.matrix": torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]]).bool()})
    operator = HessianOperator(flow, loss, Survivors(flow, kept))
    vectors = np.eye(8)[:, :2]
    before = [p.detach().clone() for p in flow.parameters()]
    found = loss_along(operator, vectors, np.array([5.0, -2.0]))
    assert found["along_steps"].shape == found["along_losses"].shape == (2, POINTS)
    for row, value in enumerate((5.0, -2.0)):
        np.testing.assert_allclose(found["along_losses"][row], value * found["along_steps"][row] ** 2 / 2, atol=1e-14)
        assert abs(value * found["along_steps"][row][-1] ** 2 / 2) == pytest.approx(1.0)  # nats
    assert all(torch.equal(p, old) for p, old in zip(flow.parameters(), before, strict=True))


def test_where_the_loss_is_not_finite_there_is_none():
    flow = Flow([LinearField(torch.zeros(2, 2).double())])

    class Breaks(Quadratic):
        def total(self, flow, chosen):
            found = super().total(flow, chosen)
            return found if found < 0.5 else found * torch.inf

    operator = HessianOperator(flow, Breaks(torch.eye(4).double()), Survivors(flow, {}))
    losses = loss_along(operator, np.eye(4)[:, :1], np.ones(1))["along_losses"][0]
    assert np.isnan(losses[[0, -1]]).all()
    assert losses[POINTS // 2] == pytest.approx(0, abs=1e-30)
