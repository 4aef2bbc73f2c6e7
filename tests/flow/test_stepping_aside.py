"""Where a call of a field does more than its formulas say, in less usual ways than by a hook on an output."""

import numpy as np
import pytest
import torch
from support.plain_solve import CalledTwin
from support.truths import normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

FIXED = Solver("rk4", steps=5)


def made_flow():
    flow = Flow(MLPField(2, [12, 10], "tanh", "concat"), solver=FIXED).double()
    seeded_initialise(flow, 0, gain=2.0)
    return flow


def layer_of(flow, index=1):
    return flow.chain()[0].field.layers[index]


class OwnGate(Layer):
    def gate(self, t):
        return torch.sigmoid(2 * t).expand(len(self.bias))


class OwnCall(Layer):
    def __call__(self, t, h):
        return 1.1 * super().__call__(t, h)


@pytest.mark.parametrize("kind", [OwnGate, OwnCall])
def test_a_subclass_of_a_layer_that_overrides_no_forward_is_called_all_the_same(kind):
    flow, x = made_flow(), normal(9, 2)
    before = flow.log_prob(x)
    layer_of(flow).__class__ = kind
    twin = Flow(CalledTwin(flow.chain()[0].field), solver=FIXED)
    with torch.no_grad():
        expected = twin.log_prob(x)
        assert (expected - before).abs().max() > 0.01
        for found in (flow, flow.compact(), flow.to_sparse(0.2)):
            torch.testing.assert_close(found.log_prob(x), expected, rtol=0, atol=1e-9)
        adaptive = Solver("dopri5", 1e-4, 1e-4)
        expected = twin.log_prob(x, solver=adaptive)
        torch.testing.assert_close(flow.log_prob(x, solver=adaptive), expected, rtol=0, atol=1e-9)


def test_a_forward_put_into_the_class_is_honoured(monkeypatch):
    flow, x, whole = made_flow(), normal(9, 2), Layer.forward
    monkeypatch.setattr(Layer, "forward", lambda self, t, h: 0.9 * whole(self, t, h))
    twin = Flow(CalledTwin(flow.chain()[0].field), solver=FIXED)
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x), twin.log_prob(x), rtol=0, atol=1e-9)


def test_a_hook_that_acts_far_out_only_is_not_lost_in_a_compact_flow():
    flow = made_flow()
    layer_of(flow, 2).register_forward_hook(lambda module, given, out: out.clamp(-9.0, 9.0))
    layer_of(flow, 0).register_forward_pre_hook(lambda module, given: (given[0], given[1].clamp(-40.0, 40.0)))
    x = torch.tensor([[1.0, 2.0], [-300.0, 500.0]], dtype=torch.float64)
    with torch.no_grad():
        expected = flow.log_prob(x)
        for found in (flow.compact(), flow.to_sparse(0.2)):
            torch.testing.assert_close(found.log_prob(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("own", [False, True])
def test_a_backward_hook_leaves_the_density_alone_and_sees_gradients(own):
    plain, flow, x, seen = made_flow(), made_flow(), normal(9, 2), []
    layer_of(flow).register_full_backward_hook(lambda module, given, out: seen.append(out[0].shape))
    layer_of(flow).register_full_backward_pre_hook(lambda module, out: None)
    if own:
        flow = Flow(CalledTwin(flow.chain()[0].field), solver=FIXED)
    expected, found = plain.log_prob(x), flow.log_prob(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    wanted = torch.autograd.grad(expected.mean(), list(plain.parameters()))
    for mine, theirs in zip(torch.autograd.grad(found.mean(), list(flow.parameters())), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    assert seen[0] == (9, 10)


class Hidden(nn.Module):
    dim = 2

    def forward(self, t, z):
        return torch.from_numpy(np.tanh(z.detach().numpy()))


class Still(nn.Module):
    dim = 2

    def forward(self, t, z):
        return torch.tensor([0.5, -1.0]).to(z).expand_as(z)


def test_a_field_that_hides_its_derivative_is_refused_and_a_constant_one_is_not():
    x = normal(5, 2)
    with pytest.raises(InputError, match="detached tensor"):
        Flow(Hidden(), solver=FIXED).log_prob(x)
    drift = torch.tensor([0.5, -1.0], dtype=torch.float64)
    expected = -0.5 * (x + drift).square().sum(1) - torch.tensor(2 * torch.pi).log()
    torch.testing.assert_close(Flow(Still(), solver=FIXED).log_prob(x), expected)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return 2 * z

    @staticmethod
    def backward(ctx, above):
        return 2 * above


class WithoutForwardMode(nn.Module):
    dim = 2

    def forward(self, t, z):
        return Doubled.apply(z)


def test_a_function_without_a_forward_derivative_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="jvp"):
        Flow(WithoutForwardMode(), solver=FIXED).log_prob(normal(5, 2).requires_grad_())
