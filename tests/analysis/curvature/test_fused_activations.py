from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from support.truths import normal

from analysis.curvature.fused_activations import DERIVATIVES, activate, exact_divergence
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.divergence import exact
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.rng import torch_generator

DOUBLE: dict[str, Any] = {"dtype": torch.float64}


def field_of(
    activation: str = "tanh", time: str = "concat", base: str = "none", hidden: tuple[int, ...] = (5, 4)
) -> Any:
    field = MLPField(3, hidden, activation, time, base).double()
    generator = torch_generator(0, "field")
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(generator=generator)
    return field


def test_every_activation_is_there() -> None:
    assert set(DERIVATIVES) == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_the_derivatives_are_each_other_s(name: str) -> None:
    # Each by autograd from the one before: no rounding but that of single operations. ReLU's are 0 off its kink.
    x = normal(50, seed=1, **DOUBLE).requires_grad_(True)
    found = DERIVATIVES[name](x)
    for lower, higher in pairwise(found):
        slope = torch.autograd.grad(lower.sum(), x, retain_graph=True)[0] if lower.requires_grad else torch.zeros(50)
        torch.testing.assert_close(higher.detach(), slope.to(higher.dtype), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], ACTIVATIONS[name].value(x), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_both_backward_passes_agree_with_finite_differences(name: str) -> None:
    x = normal(3, 4, seed=2, **DOUBLE).requires_grad_(True)
    u = normal(2, 3, 4, seed=3, **DOUBLE).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, u: activate(name, x, u), (x, u))
    assert torch.autograd.gradgradcheck(lambda x, u: activate(name, x, u), (x, u))


def test_a_third_derivative_is_refused_not_wrong() -> None:
    x, u = normal(2, 2, **DOUBLE).requires_grad_(True), normal(1, 2, 2, **DOUBLE)
    value = activate("tanh", x, u)[1].sum()
    for _ in range(2):
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        value = slope.sum()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(value, x)


@pytest.mark.parametrize("time", ["none", "concat", "concat_squash"])
@pytest.mark.parametrize("base", ["none", "gaussian"])
@pytest.mark.parametrize("name", sorted(DERIVATIVES))
def test_divergence_and_hessian_product_are_those_of_the_plain_way(name: str, base: str, time: str) -> None:
    field, z = field_of(name, time, base), normal(6, 3, seed=4, **DOUBLE)
    t, parameters = torch.tensor(0.3, **DOUBLE), list(field.parameters())
    vectors = [normal(*p.shape, seed=5, **DOUBLE) for p in parameters]
    found = []
    for way in (exact, exact_divergence):
        here = way(field, t, z)
        value = here.trace.sin().sum() + here.velocity.square().sum()
        slopes = torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True)
        product = torch.autograd.grad(slopes, parameters, vectors, materialize_grads=True)
        found.append((here.velocity, here.trace, *slopes, *product))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-11, atol=1e-11)  # the same sums in another order


def test_other_fields_and_fields_without_hidden_layers_take_the_plain_way() -> None:
    z, t = normal(4, 3, **DOUBLE), torch.tensor(0.5, **DOUBLE)
    for field in (LinearField(normal(3, 3, **DOUBLE)), field_of(hidden=())):
        plain, fused = exact(field, t, z), exact_divergence(field, t, z)
        assert torch.equal(plain.velocity, fused.velocity)
        assert torch.equal(plain.trace, fused.trace)
