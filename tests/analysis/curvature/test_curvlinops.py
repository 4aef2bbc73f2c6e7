"""Another library's Hessian of the same loss: products, extreme eigenvalues and trace, in float64.

curvlinops differentiates plain operations twice by reverse mode, over all parameters; ours has second derivatives of
its own for activations and is over the survivors, so it is the principal submatrix of theirs. Both are sums of the
same few hundred products of doubles: rounding is all that is left between them, 1e-10 of the largest entry.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from curvlinops import HessianLinearOperator, hutchpp_trace
from support.tiny import rows, tiny_flow
from support.truths import generator
from torch import nn

from analysis.curvature import held_steps
from analysis.curvature.losses import NLL, FlowMatchingLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.spectrum import estimated
from sparseflows.flow.divergence import exact
from sparseflows.pruning.graph.masks import Masks

ROUNDING = 1e-10


class Terms(nn.Module):
    """The mean loss as a model that curvlinops can call: of plain operations, which its transforms can follow."""

    def __init__(self, flow, loss):
        super().__init__()
        self.flow, self.loss = flow, loss

    def forward(self, inputs):
        with mock.patch.object(held_steps, "exact_divergence", exact):
            return self.loss.total(self.flow, slice(0, len(inputs))) / self.loss.terms


class Itself(nn.MSELoss):
    """The identity, under a name and a reduction that curvlinops takes."""

    def forward(self, output, target):
        return output


@pytest.fixture(scope="module", params=["nll", "flow_matching"])
def both(request):
    """(our operator, theirs as a matrix over all parameters, which of these survive)."""
    flow = tiny_flow()
    kept = Masks({"blocks.0.field.layers.1.weight": torch.arange(25).view(5, 5) % 3 > 0})
    kept.apply_(flow)
    points = rows(12)
    loss = NLL.of(flow, points, 1e-6) if request.param == "nll" else FlowMatchingLoss.of(points, 1.0, generator(), 2)
    ours = HessianOperator(flow, loss, Survivors(flow, kept), threads=1)
    parameters = list(flow.parameters())
    data = [(torch.zeros(loss.terms, 1, dtype=torch.float64), torch.zeros((), dtype=torch.float64))]
    theirs = HessianLinearOperator(
        Terms(flow, loss), Itself(reduction="sum"), parameters, data, check_deterministic=False
    )
    survives = torch.cat(
        [kept.get(name, torch.ones_like(p, dtype=torch.bool)).flatten() for name, p in flow.named_parameters()]
    ).numpy()
    return ours, theirs, survives


def test_products_are_those_of_the_principal_submatrix(both):
    ours, theirs, survives = both
    matrix = (theirs @ torch.eye(len(survives), dtype=torch.float64)).numpy()[np.ix_(survives, survives)]
    own = ours.matmat(np.eye(ours.shape[0]))
    np.testing.assert_allclose(own, matrix, atol=ROUNDING * np.abs(matrix).max())
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    found = estimated(ours, np.random.default_rng(0), steps=12)
    # an eigenvalue is off by the square of its residual, here 1e-6 of the largest, over the gap to the next
    assert found.extremes[1] == pytest.approx(eigenvalues[-1], rel=1e-8)
    assert found.extremes[0] == pytest.approx(eigenvalues[0], abs=1e-8 * eigenvalues[-1])


def test_traces_agree(both):
    ours, theirs, survives = both
    everything = (theirs @ torch.eye(len(survives), dtype=torch.float64)).numpy()
    trace = float(np.trace(everything[np.ix_(survives, survives)]))
    estimate = estimated(ours, np.random.default_rng(0), steps=6).trace
    assert abs(estimate.value - trace) <= 4 * estimate.se
    torch.manual_seed(0)
    draws = [hutchpp_trace(theirs, 42).item() for _ in range(6)]
    assert abs(np.mean(draws) - np.trace(everything)) <= 4 * np.std(draws, ddof=1) / np.sqrt(6)
