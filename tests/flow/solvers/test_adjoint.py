"""The adjoint refuses what it would answer with nothing."""

import pytest
import torch
from support.truths import normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

ADJOINT = Solver(gradient="adjoint")


class Conditioned(nn.Module):
    """A field that also reads a context (2,) which is no parameter of it."""

    dim = 2

    def __init__(self, context):
        super().__init__()
        self.layer = nn.Linear(4, 2, dtype=torch.float64)
        self.context = context

    def forward(self, t, z):
        return torch.tanh(self.layer(torch.cat([z, self.context.expand(len(z), 2)], 1)))


@pytest.mark.parametrize("trained", ["the context", "what made the context"])
def test_a_gradient_that_the_adjoint_would_lose_is_refused(trained):
    source = torch.ones(2, dtype=torch.float64, requires_grad=True)
    flow = Flow(Conditioned(source if trained == "the context" else source.exp()))
    with pytest.raises(InputError, match="backprop"):
        flow.log_prob(normal(3, 2), solver=ADJOINT)
    flow.log_prob(normal(3, 2)).sum().backward()
    assert source.grad.abs().sum() > 0


def test_a_context_that_needs_no_gradient_is_nothing_to_the_adjoint():
    flow = Flow(Conditioned(torch.ones(2, dtype=torch.float64)))
    flow.log_prob(normal(3, 2), solver=ADJOINT).sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_a_score_penalty_is_refused_and_works_by_backpropagation():
    flow, x = Flow(Conditioned(torch.ones(2, dtype=torch.float64))), normal(3, 2).requires_grad_()
    with pytest.raises(InputError, match="backprop"):
        torch.autograd.grad(flow.log_prob(x, solver=ADJOINT).sum(), x, create_graph=True)
    (score,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    score.square().sum().backward()
    assert flow.get_parameter("blocks.0.field.module.layer.weight").grad.abs().sum() > 0
