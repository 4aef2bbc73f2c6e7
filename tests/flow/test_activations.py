"""Activations against their formulas, derivatives against automatic differentiation."""

import math

import pytest
import torch

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.specs import choices

FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}
POINTS = torch.linspace(-6, 6, 49, dtype=torch.float64)  # 0 among them, where relu has its kink


def test_the_names_are_those_of_the_settings():
    assert set(ACTIVATIONS) == set(choices.ACTIVATIONS) == set(FORMULAS)


@pytest.mark.parametrize("name", FORMULAS)
def test_values(name):
    expected = torch.tensor([FORMULAS[name](x) for x in POINTS.tolist()], dtype=torch.float64)
    # Softplus turns linear above 20 and is off by e^-20 at most; 1e-14 is rounding here.
    torch.testing.assert_close(ACTIVATIONS[name].value(POINTS), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_of_both_orders(name):
    activation = ACTIVATIONS[name]
    x = POINTS.clone().requires_grad_(True)
    y = activation.value(x)
    (expected,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    derivative = activation.derivative(x, y)
    torch.testing.assert_close(derivative, expected, rtol=0, atol=1e-14)  # rounding
    if name == "relu":
        assert not derivative.requires_grad
        return
    # The tangents are differentiated when a likelihood is trained: σ′ has to carry σ″.
    (second,) = torch.autograd.grad(derivative.sum(), x, retain_graph=True)
    (expected_second,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(second, expected_second, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_out_they_stay_finite(name, dtype):
    x = torch.tensor([-1e4, -800.0, 800.0, 1e4], dtype=dtype)
    y = ACTIVATIONS[name].value(x)
    slopes = ACTIVATIONS[name].derivative(x, y)
    assert y.dtype is slopes.dtype is dtype
    assert torch.isfinite(y).all()
    assert torch.isfinite(slopes).all()
    expected = [0.0, 0.0, 0.0, 0.0] if name in ("sigmoid", "tanh") else [0.0, 0.0, 1.0, 1.0]
    assert slopes.tolist() == expected
