"""Classifiers against the same layers written out as loops, and what is stored against what is loaded."""

import math

import pytest
import torch
from support.truths import normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.networks.build import build_network, network_from_tensors, seeded_initialise
from sparseflows.rng import torch_generator
from sparseflows.specs import NetworkSpec

SCALAR = {
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def spec_of(kind="dense", **settings):
    return NetworkSpec.model_validate({"kind": kind} | settings)


def built(spec, dim, classes=3, seed=0):
    """In float64 and eval mode, batch norms with statistics and weights of their own."""
    network = build_network(spec, dim, classes, seed).double()
    for number, module in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)):
        for offset, tensor in enumerate((module.weight.data, module.bias.data, module.running_mean)):
            tensor.copy_(normal(len(tensor), seed=10 * number + offset))
        module.running_var.copy_(0.5 + normal(len(module.running_var), seed=number).abs())
    return network.eval()


def naive_norm(state, name, unit, value):
    if f"{name}_norm.weight" not in state:
        return value
    mean, variance = (state[f"{name}_norm.running_{what}"][unit].item() for what in ("mean", "var"))
    weight, bias = (state[f"{name}_norm.{what}"][unit].item() for what in ("weight", "bias"))
    return weight * (value - mean) / math.sqrt(variance + 1e-5) + bias


def naive_dense(state, spec, row):
    for number in range(1, len(spec.hidden) + 2):
        weight, bias = (state[f"linear{number}.{what}"].tolist() for what in ("weight", "bias"))
        row = [b + sum(w * x for w, x in zip(ws, row, strict=True)) for ws, b in zip(weight, bias, strict=True)]
        if number <= len(spec.hidden):
            row = [SCALAR[spec.activation](naive_norm(state, f"linear{number}", i, y)) for i, y in enumerate(row)]
    return row


def naive_conv(state, spec, row):
    """One image: loops over channels, pixels and the kernel, zeros outside, maxima over 2 × 2."""
    side = math.isqrt(len(row))
    image = [[row[y * side : (y + 1) * side] for y in range(side)]]
    for number in range(1, len(spec.channels) + 1):
        weight, bias = (state[f"conv{number}.{what}"].tolist() for what in ("weight", "bias"))
        found = []
        for unit, kernels in enumerate(weight):
            plane = [[bias[unit]] * side for _ in range(side)]
            for y in range(side):
                for x in range(side):
                    for channel, kernel in enumerate(kernels):
                        for i in range(3):
                            for j in range(3):
                                if 0 <= y + i - 1 < side and 0 <= x + j - 1 < side:
                                    plane[y][x] += kernel[i][j] * image[channel][y + i - 1][x + j - 1]
                    plane[y][x] = SCALAR[spec.activation](naive_norm(state, f"conv{number}", unit, plane[y][x]))
            half = range(side // 2)
            found.append(
                [[max(plane[2 * y + i][2 * x + j] for i in (0, 1) for j in (0, 1)) for x in half] for y in half]
            )
        image, side = found, side // 2
    return naive_dense(state, spec, [pixel for plane in image for line in plane for pixel in line])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", SCALAR)
def test_a_dense_network_against_loops(activation, batch_norm):
    spec = spec_of(hidden=[6, 5], activation=activation, batch_norm=batch_norm)
    network, rows = built(spec, 4), normal(3, 4, seed=1)
    expected = [naive_dense(network.state_dict(), spec, row) for row in rows.tolist()]
    torch.testing.assert_close(network(rows), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("dim", "settings"),
    [
        (36, {"channels": [2, 3], "hidden": [4], "activation": "relu", "batch_norm": True}),  # sides 6, 3, 1
        (36, {"channels": [2], "hidden": [], "activation": "silu"}),
        (25, {"channels": [3, 2], "hidden": [4], "activation": "sigmoid"}),  # sides 5, 2, 1
        (64, {"channels": [2, 2, 2], "hidden": [], "activation": "tanh", "batch_norm": True}),
    ],
)
def test_a_conv_network_against_loops(dim, settings):
    spec = spec_of("conv", **settings)
    network, rows = built(spec, dim), normal(2, dim, seed=1)
    expected = [naive_conv(network.state_dict(), spec, row) for row in rows.tolist()]
    torch.testing.assert_close(network(rows), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


CASES = [
    (5, spec_of(hidden=[6, 4])),
    (5, spec_of(hidden=[7], batch_norm=True)),
    (64, spec_of("conv", channels=[4, 6], hidden=[5])),
    (49, spec_of("conv", channels=[4, 6], hidden=[], batch_norm=True)),
]


@pytest.mark.parametrize(("dim", "spec"), CASES)
def test_params_by_arithmetic(dim, spec):
    for classes in (2, 10):
        network = build_network(spec, dim, classes, 0)
        assert spec.dense_params(dim, classes) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("dim", "spec"), CASES)
def test_the_seed_alone_decides_and_global_state_stays(dim, spec):
    before = torch.get_rng_state()
    one, again, other = (build_network(spec, dim, 3, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    for (name, value), same, another in zip(
        one.state_dict().items(), again.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, same)
        assert torch.equal(value, another) == ("norm" in name)  # batch norms start alike


def test_initial_weights_are_uniform_within_the_fan_in():
    network = build_network(spec_of("conv", channels=[40, 50], hidden=[300]), 64, 10, 3)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for index, layer in enumerate(layers):
        bound, weight = 1 / math.sqrt(layer.weight[0].numel()), layer.weight.detach()
        assert weight.abs().max() <= bound
        # The deviation of a uniform draw is bound/√3; its own error for 360 or more draws is below 4 %.
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.12)
        draws = torch_generator(3, f"initialise/{index}")
        assert torch.equal(weight, torch.empty_like(weight).uniform_(-bound, bound, generator=draws))


def test_initialising_again_forgets_what_was_learnt():
    spec = spec_of(hidden=[6], batch_norm=True)
    fresh, used = build_network(spec, 5, 3, 4), build_network(spec, 5, 3, 9)
    used(normal(20, 5).float())  # moves the statistics of the norm
    seeded_initialise(used, 4)
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), used.state_dict().values(), strict=True))


@pytest.mark.parametrize(("dim", "spec"), CASES)
def test_stored_networks_come_back(dim, spec):
    network, rows = built(spec, dim), normal(4, dim)
    # Sides of 7 and of 4 both end at 1 after two halvings: without dim, 49 columns cannot be told from 16.
    for given in [dim] + ([None] if dim != 49 else []):
        loaded = network_from_tensors(spec, network.state_dict(), given)
        assert torch.equal(loaded.eval()(rows), network(rows))


def test_shrunk_networks_load_with_the_widths_of_their_tensors():
    wide, narrow = (spec_of("conv", channels=c, hidden=h) for c, h in (([8, 6], [9]), ([3, 5], [4])))
    small = built(narrow, 64)
    loaded = network_from_tensors(wide, small.state_dict(), 64)
    rows = normal(4, 64)
    assert torch.equal(loaded.eval()(rows), small(rows))
    assert sum(p.numel() for p in loaded.parameters()) == narrow.dense_params(64, 3)


@pytest.mark.parametrize(
    ("spec", "dim", "part"),
    [
        (spec_of(hidden=[5, 5]), None, "0 conv and 2 linear layers, wanted 0 and 3"),
        (spec_of("conv", channels=[2], hidden=[5]), 4, "0 conv and 2 linear layers, wanted 1 and 2"),
        (spec_of(hidden=[5], batch_norm=True), None, r"do not belong .* \(.*linear1_norm"),
        (spec_of(hidden=[5]), 6, r"do not belong .* \(.*size mismatch"),
    ],
)
def test_tensors_of_another_network(spec, dim, part):
    tensors = build_network(spec_of(hidden=[5]), 4, 3, 0).state_dict()
    with pytest.raises(InputError, match=part) as caught:
        network_from_tensors(spec, tensors, dim)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "dim", "classes", "part"),
    [
        (spec_of("conv", channels=[4]), 60, 3, "square images, and 60 columns make none; use kind: dense"),
        (spec_of("conv", channels=[4] * 4), 64, 3, "4 convolutions halve images of 8 × 8 pixels to nothing; .* most 3"),
        (spec_of(hidden=[4]), 5, 1, "classifier of 1 classes: at least 2"),
    ],
)
def test_networks_that_cannot_be_built(spec, dim, classes, part):
    with pytest.raises(InputError, match=part):
        build_network(spec, dim, classes, 0)
