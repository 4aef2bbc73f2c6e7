"""Fields against loops written out, their tangents against automatic differentiation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrays import pairwise
from support.truths import FULL, generator, jacobians, normal, tolerance
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.fields import AutogradField, Field, Layer, LinearField, MLPField, as_field, gaussian_velocity

TIMES = ["none", "concat", "concat_squash"]
BASES = ["none", "gaussian"]
SIGMA = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "softplus": lambda x: math.log1p(math.exp(x)),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def random_field(dim=3, hidden=(5, 4), activation="tanh", time="concat_squash", base="none", seed=0, **like):
    """A field with no weight at zero, so that none can hide."""
    field = MLPField(dim, hidden, activation, time, base)
    draws = generator(seed)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.normal_(0, 0.7, generator=draws)
    return field.to(**(like or {"dtype": torch.float64}))


def times(kind, rows, **like):
    """A scalar time, or one a row: (B, 1)."""
    if kind == "scalar":
        return torch.tensor(0.3, **like)
    return torch.rand(rows, 1, generator=generator(5), dtype=torch.float64).to(**like)


def naive_field(field, t, z):
    """f(t, z) of one point, number by number, from the definitions in the docstrings."""
    h = z
    for index, layer in enumerate(field.linear_layers()):
        own = {name: parameter.tolist() for name, parameter in layer.named_parameters()}
        out = []
        for i in range(len(own["weight"])):
            y = sum(own["weight"][i][j] * h[j] for j in range(len(h))) + own["bias"][i]
            if field.time == "concat_squash":
                gate = SIGMA["sigmoid"](own["gate_weight"][i] * t + own["gate_bias"][i])
                y = y * gate + own["time_bias"][i] * t
            elif field.time == "concat" and index == 0:
                y = y + own["time_bias"][i] * t
            last = index == len(field.layers) - 1
            out.append(y if last else SIGMA[field.activation](y))
        h = out
    if field.base == "gaussian":
        rate = (2 * t - 1) / ((1 - t) ** 2 + t**2)
        h = [value + rate * point for value, point in zip(h, z, strict=True)]
    return h


@pytest.mark.parametrize(*pairwise(activation=SIGMA, time=TIMES, base=BASES, kind=["scalar", "rows"]))
def test_field_and_tangents(activation, time, base, kind, like):
    field = random_field(activation=activation, time=time, base=base, **like)
    z, v = normal(6, 3, seed=1, **like), normal(4, 6, 3, seed=2, **like)
    t = times(kind, 6, **like)
    f = field(t, z)
    one_by_one = [naive_field(field, s, row) for s, row in zip(t.expand(6, 1)[:, 0].tolist(), z.tolist(), strict=True)]
    # Rounding only, here and below: the same sums in another order.
    torch.testing.assert_close(f, torch.tensor(one_by_one, **like), **tolerance(like, 1e-12))

    again, pushed = field.tangents(t, z, v)
    torch.testing.assert_close(again, f, **tolerance(like, 1e-14))
    for k in range(4):
        _, expected = torch.func.jvp(lambda y: field(t, y), (z,), (v[k],))
        torch.testing.assert_close(pushed[k], expected, **tolerance(like, 1e-12))
    expected = torch.einsum("bij,kbj->kbi", jacobians(lambda y: field(t, y), z), v)
    torch.testing.assert_close(pushed, expected, **tolerance(like, 1e-12))

    basis = torch.eye(3, **like).unsqueeze(1)  # one tangent for all rows: (K, 1, D)
    _, columns = field.tangents(t, z, basis)
    assert columns.shape == (3, 6, 3)
    torch.testing.assert_close(columns.permute(1, 2, 0), jacobians(lambda y: field(t, y), z), **tolerance(like, 1e-12))


@given(
    dim=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 7), max_size=3),
    rows=st.integers(1, 5),
    tangents=st.integers(1, 4),
    shared=st.booleans(),
    activation=st.sampled_from(sorted(SIGMA)),
    time=st.sampled_from(TIMES),
    base=st.sampled_from(BASES),
    kind=st.sampled_from(["scalar", "rows"]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_tangents_of_any_size(dim, hidden, rows, tangents, shared, activation, time, base, kind, seed):
    field = random_field(dim, hidden, activation, time, base, seed)
    z = normal(rows, dim, seed=seed + 1)
    v = normal(tangents, 1 if shared else rows, dim, seed=seed + 2)
    t = times(kind, rows, dtype=torch.float64)
    f, pushed = field.tangents(t, z, v)
    assert f.shape == (rows, dim)
    assert pushed.shape == (tangents, rows, dim)
    expected = torch.einsum("bij,kbj->kbi", jacobians(lambda y: field(t, y), z), v.expand(tangents, rows, dim))
    torch.testing.assert_close(pushed, expected, rtol=1e-11, atol=1e-11)  # rounding; weights of order 1
    assert field.hidden == list(hidden)


def test_tangents_carry_gradients_to_the_weights():
    # The trace is trained: the gradient of eᵀ(∂f/∂z)e has to be that of the double backward pass.
    field, z, e = random_field(), normal(6, 3, seed=1), normal(1, 6, 3, seed=2)
    t = torch.tensor(0.4, dtype=torch.float64)
    _, pushed = field.tangents(t, z, e)
    fast = torch.autograd.grad((pushed * e).sum(), list(field.parameters()), allow_unused=True)
    y = z.clone().requires_grad_(True)
    (pulled,) = torch.autograd.grad((field(t, y) * e[0]).sum(), y, create_graph=True)
    slow = torch.autograd.grad((pulled * e[0]).sum(), list(field.parameters()), allow_unused=True)
    unused = [name for (name, _), grad in zip(field.named_parameters(), fast, strict=True) if grad is None]
    assert unused == ["layers.2.bias", "layers.2.time_bias"]  # they add to f and leave ∂f/∂z alone
    assert [grad is None for grad in fast] == [grad is None for grad in slow]
    for one, other in zip(fast, slow, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)  # rounding


@pytest.mark.parametrize(
    ("time", "gated", "timed"),
    [("none", [], []), ("concat", [], [0]), ("concat_squash", [0, 1, 2], [0, 1, 2])],
)
def test_which_layers_see_the_time(time, gated, timed):
    layers = MLPField(2, [4, 3], time=time).linear_layers()
    assert [i for i, layer in enumerate(layers) if layer.gate_weight is not None] == gated
    assert [i for i, layer in enumerate(layers) if layer.gate_bias is not None] == gated
    assert [i for i, layer in enumerate(layers) if layer.time_bias is not None] == timed
    sizes = [tuple(layer.weight.shape) for layer in layers]
    assert sizes == [(4, 2), (3, 4), (2, 3)]


def test_gate_of_a_layer():
    layer = Layer(2, 3, "concat_squash").double()
    with torch.no_grad():
        layer.gate_weight.copy_(torch.tensor([0.0, 1.0, -2.0]))
        layer.gate_bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
    expected = [SIGMA["sigmoid"](x) for x in (0.0, 1.2, -0.4)]
    assert layer.gate(torch.tensor(0.7, dtype=torch.float64)).tolist() == pytest.approx(expected, abs=1e-15)
    assert Layer(2, 3).gate(torch.tensor(0.7)) is None


def test_parameters_of_the_published_toy_field():
    field = MLPField(2, [64, 64, 64])
    assert sum(p.numel() for p in field.parameters()) == 8642
    assert all(p.dtype is torch.float32 and p.requires_grad for p in field.parameters())


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_initial_weights_fill_their_bounds(gain):
    field = MLPField(50, [80, 60], time="concat_squash")
    field.initialise(generator(), gain)
    for index, layer in enumerate(field.linear_layers()):
        bound = 1 / math.sqrt(layer.weight.shape[1])
        scale = gain if index < 2 else 1.0  # the last layer is spared
        largest = layer.weight.abs().max().item()
        assert 0.99 * bound * scale < largest <= bound * scale  # 3,000 draws and more come this close
        assert abs(layer.weight.mean().item()) < 4 * bound * scale / math.sqrt(3 * layer.weight.numel())
        for vector in (layer.bias, layer.gate_weight, layer.gate_bias, layer.time_bias):
            assert 0.8 * bound < vector.abs().max().item() <= bound  # 50 draws; the gain is for weights


def test_the_generator_decides_the_weights_and_nothing_else_does():
    before = torch.get_rng_state()
    one, again, other = MLPField(2, [8]), MLPField(2, [8]), MLPField(2, [8])
    for field, seed in ((one, 1), (again, 1), (other, 2)):
        field.initialise(generator(seed))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from"


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("kind", ["scalar", "rows"])
def test_a_gaussian_base_starts_as_the_gaussian_velocity(time, kind):
    field = MLPField(3, [7, 5], "silu", time, "gaussian").double()
    field.initialise(generator(), 2.0)
    z, t = normal(6, 3), times(kind, 6, dtype=torch.float64)
    torch.testing.assert_close(field(t, z), (2 * t - 1) / ((1 - t) ** 2 + t**2) * z, rtol=0, atol=1e-15)
    inner = [p for layer in field.linear_layers()[:-1] for p in layer.parameters()]
    assert all(p.abs().min() > 0 for p in inner), "a dead network cannot learn"


def test_gaussian_velocity_is_the_regression_of_velocity_on_position():
    # For jointly Gaussian variables E[u | s] is Cov(u, s)/Var(s)·s; u = z − x and s = (1 − t)x + tz.
    x, z = normal(400_000, seed=1), normal(400_000, seed=2)
    for t in (0.0, 0.2, 0.5, 0.9, 1.0):
        s, u = (1 - t) * x + t * z, z - x
        slope = float((u * s).mean() / s.square().mean())
        # Standard error of a slope: sd(u | s)/sd(s)/√n ≤ √2/(√½·√400,000) = 0.003.
        assert float(gaussian_velocity(torch.tensor(t))) == pytest.approx(slope, abs=0.015)


def test_linear_field(like):
    matrix = torch.tensor(FULL, **like)
    field = LinearField(matrix)
    z, v = normal(5, 3, **like), normal(2, 5, 3, seed=3, **like)
    t = torch.tensor(0.2, **like)
    expected = torch.stack([matrix @ row for row in z])
    f, pushed = field.tangents(t, z, v)
    torch.testing.assert_close(field(t, z), expected, **tolerance(like, 1e-14))
    torch.testing.assert_close(f, expected, **tolerance(like, 1e-14))
    torch.testing.assert_close(pushed, torch.einsum("ij,kbj->kbi", matrix, v), **tolerance(like, 1e-14))
    assert field.tangents(t, z, v[:, :1])[1].shape == (2, 5, 3)
    matrix[0, 0] += 1  # the field keeps a copy
    assert field.matrix[0, 0] != matrix[0, 0]


class Plain(nn.Module):
    """A module that knows nothing of tangents."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, t, z):
        return self.inner(t, z)


@pytest.mark.parametrize("kind", ["scalar", "rows"])
def test_any_module_becomes_a_field(kind):
    inner = random_field()
    field = as_field(Plain(inner))
    assert isinstance(field, AutogradField)
    assert isinstance(field, Field)
    z, t = normal(6, 3), times(kind, 6, dtype=torch.float64)
    for v in (normal(2, 6, 3, seed=1), normal(2, 1, 3, seed=1)):
        f, pushed = field.tangents(t, z, v)
        expected_f, expected = inner.tangents(t, z, v)
        torch.testing.assert_close(f, expected_f, rtol=0, atol=1e-14)
        torch.testing.assert_close(pushed, expected, rtol=1e-12, atol=1e-12)  # the MLP's own, tested above


def test_a_module_with_tangents_is_taken_as_it_is():
    for field in (MLPField(2, [3]), LinearField(torch.eye(2))):
        assert as_field(field) is field
        assert isinstance(field, Field)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"activation": "sofplus"}, ["unknown activation 'sofplus'", "did you mean 'softplus'"]),
        ({"time": "concatsquash"}, ["unknown time conditioning 'concatsquash'", "did you mean 'concat_squash'"]),
        ({"base": "gauss"}, ["unknown base 'gauss'", "known: gaussian, none"]),
    ],
)
def test_unknown_names_are_refused(wrong, parts):
    with pytest.raises(InputError) as caught:
        MLPField(2, [4], **wrong)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_networks_share_no_activation_state():
    # Trap: activations that are modules, shared between networks. Here they are functions.
    assert not any(isinstance(a.value, nn.Module) for a in ACTIVATIONS.values())
    assert [type(m) for m in MLPField(2, [3, 3]).modules()] == [MLPField, nn.ModuleList, Layer, Layer, Layer]
