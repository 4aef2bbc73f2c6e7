"""Divergences against the autograd Jacobian; their stochastic estimates against exact means and variances."""

import math

import pytest
import torch
from support.truths import (
    FULL,
    gaussian_variance,
    generator,
    jacobians,
    normal,
    rademacher_variance,
    sign_vectors,
    tolerance,
)

from sparseflows.errors import InputError
from sparseflows.flow.divergence import draw_noise, exact, hutchinson
from sparseflows.flow.fields import AutogradField, LinearField, MLPField


def field_of(kind, like):
    inner = MLPField(3, [6, 5], "softplus", "concat_squash")
    draws = generator()
    for parameter in inner.parameters():
        torch.nn.init.normal_(parameter, generator=draws)
    matrix = torch.tensor(FULL, dtype=torch.float64)
    return {"mlp": inner, "linear": LinearField(matrix), "autograd": AutogradField(inner)}[kind].to(**like)


KINDS = ["mlp", "linear", "autograd"]


@pytest.mark.parametrize("kind", KINDS)
def test_exact(kind, like):
    field, z, t = field_of(kind, like), normal(7, 3, **like), torch.tensor(0.6, **like)
    found = exact(field, t, z)
    slow = jacobians(lambda y: field(t, y), z)
    # Rounding only: the same sums in another order.
    torch.testing.assert_close(found.velocity, field(t, z), **tolerance(like, 1e-14))
    torch.testing.assert_close(found.trace, torch.einsum("bii->b", slow), **tolerance(like, 1e-12))
    torch.testing.assert_close(found.frobenius, slow.square().sum((1, 2)), **tolerance(like, 1e-12))


@pytest.mark.parametrize("kind", KINDS)
def test_hutchinson_of_a_given_probe(kind, like):
    field, z, t = field_of(kind, like), normal(7, 3, **like), torch.tensor(0.6, **like)
    e = normal(7, 3, seed=4, **like)
    found = hutchinson(field, t, z, e)
    slow = jacobians(lambda y: field(t, y), z)
    pushed = torch.einsum("bij,bj->bi", slow, e)
    torch.testing.assert_close(found.velocity, field(t, z), **tolerance(like, 1e-14))
    torch.testing.assert_close(found.trace, (e * pushed).sum(1), **tolerance(like, 1e-12))
    torch.testing.assert_close(found.frobenius, pushed.square().sum(1), **tolerance(like, 1e-12))


def test_mean_and_variance_over_all_rademacher_probes():
    # 8 probes are all there are in three dimensions: no sampling error, only rounding.
    field, t = field_of("mlp", {"dtype": torch.float64}), torch.tensor(0.6, dtype=torch.float64)
    z = normal(1, 3).expand(8, 3)
    slow = jacobians(lambda y: field(t, y), z[:1])[0]
    found = hutchinson(field, t, z, sign_vectors(3))
    assert found.trace.mean().item() == pytest.approx(slow.trace().item(), abs=1e-13)
    assert found.trace.var(correction=0).item() == pytest.approx(rademacher_variance(slow), abs=1e-13)
    assert found.frobenius.mean().item() == pytest.approx(slow.square().sum().item(), abs=1e-13)
    assert rademacher_variance(slow) > 1e-3, "nothing was tested"


@pytest.mark.parametrize(("noise", "variance"), [("rademacher", rademacher_variance), ("gaussian", gaussian_variance)])
def test_mean_and_variance_of_drawn_probes(noise, variance):
    n, matrix = 400_000, torch.tensor(FULL, dtype=torch.float64)
    z = torch.zeros(n, 3, dtype=torch.float64)
    found = hutchinson(LinearField(matrix), torch.tensor(0.0), z, draw_noise(noise, z, generator()))
    expected = variance(matrix)
    # Five standard errors: σ/√n of the mean; √((kurtosis − 1)/n) of the variance, relative, where the
    # kurtosis of a quadratic form is 15 at most (a single squared Gaussian's).
    assert found.trace.mean().item() == pytest.approx(matrix.trace().item(), abs=5 * math.sqrt(expected / n))
    assert found.trace.var().item() == pytest.approx(expected, rel=5 * math.sqrt(14 / n))
    frobenius = found.frobenius
    error = frobenius.std().item() / math.sqrt(n)
    assert frobenius.mean().item() == pytest.approx(matrix.square().sum().item(), abs=5 * error)


def test_a_symmetric_trace_is_exact_for_a_diagonal_matrix():
    # Rademacher's variance vanishes where S is diagonal; antisymmetric parts never count.
    matrix = torch.tensor([[0.7, 2.0], [-2.0, -0.4]], dtype=torch.float64)
    z = normal(20, 2)
    found = hutchinson(LinearField(matrix), torch.tensor(0.0), z, draw_noise("rademacher", z, generator()))
    torch.testing.assert_close(found.trace, torch.full((20,), 0.3, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws(dtype):
    like = torch.zeros(1000, 2, dtype=dtype)
    signs, gauss = (draw_noise(kind, like, generator(3)) for kind in ("rademacher", "gaussian"))
    for draws, kind in ((signs, "rademacher"), (gauss, "gaussian")):
        assert draws.shape == like.shape
        assert draws.dtype is dtype
        assert torch.equal(draws, draw_noise(kind, like, generator(3)))
        assert not torch.equal(draws, draw_noise(kind, like, generator(4)))
        correlations = draws.T @ draws / 1000  # E[eeᵀ] = I; the standard error is √(2/1000) at most
        torch.testing.assert_close(correlations, torch.eye(2, dtype=dtype), rtol=0, atol=5 * math.sqrt(2 / 1000))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert gauss.unique().numel() > 1900


def test_an_unknown_noise_is_refused():
    with pytest.raises(InputError, match=r"unknown noise 'uniform' .*gaussian, rademacher"):
        draw_noise("uniform", torch.zeros(2, 2), generator())
