"""Statistics of a layer against loops and autograd, whole and in chunks."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from support import naive_criteria as naive

from sparseflows.errors import InputError
from sparseflows.pruning.observing import statistics as module
from sparseflows.pruning.observing.statistics import Observed, Statistics

# Sums of at most a few hundred terms of order 1: 1e-12. The bound asked for is 1e-10.
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def as_tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def chunk(observed, start, stop):
    gradients = None if observed.gradients is None else observed.gradients[start:stop]
    return Observed(observed.inputs[start:stop], gradients, observed.values)


@pytest.mark.parametrize(("per_neuron", "values"), [(1, 4), (1, 2), (3, 4), (3, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed, per_neuron, values):
    weight, observed = naive.make_layer(seed, per_neuron=per_neuron, values=values)
    found = Statistics.of(weight, observed, per_neuron)
    own = as_tensor(naive.gradients_of_weights(observed, len(weight)))
    points = naive.points_of(observed)
    assert found.examples == len(own) == 5
    torch.testing.assert_close(found.mean_gradient, own.mean(0), **TIGHT)
    torch.testing.assert_close(found.squared_gradients, own.square().sum(0), **TIGHT)
    torch.testing.assert_close(
        found.contributions, as_tensor(naive.contributions(weight, observed, per_neuron)), **TIGHT
    )
    torch.testing.assert_close(found.shares, as_tensor(naive.shares(weight, points)), **TIGHT)
    torch.testing.assert_close(found.neuron_shares, as_tensor(naive.shares(weight, points, per_neuron)), **TIGHT)
    assert torch.equal(found.inputs, as_tensor(points))
    torch.testing.assert_close(found.means, as_tensor(points).mean(0), **TIGHT)


def test_a_contribution_is_the_derivative_by_a_gate_and_the_gradient_that_of_autograd():
    weight, observed = naive.make_layer(5, per_neuron=2)
    weight.requires_grad_()
    gates = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)  # one an example and neuron
    gated = observed.inputs * gates.repeat_interleave(2, dim=1).unsqueeze(1)
    products = gated @ weight.T
    products.retain_grad()
    losses = products.sin().sum((1, 2))  # any loss of its own for each example
    losses.sum().backward()
    found = Statistics.of(weight, replace(observed, gradients=products.grad), 2)
    torch.testing.assert_close(found.contributions, gates.grad, **TIGHT)
    torch.testing.assert_close(found.mean_gradient, weight.grad / 5, **TIGHT)


@pytest.mark.parametrize("with_loss", [True, False])
@pytest.mark.parametrize("cuts", [[2], [1, 4], [1, 2, 3, 4, 5, 6]])
def test_merged_chunks_are_one_chunk(cuts, with_loss):
    weight, observed = naive.make_layer(7, per_neuron=2, examples=7, values=3)
    if not with_loss:
        observed = replace(observed, gradients=None)
    whole = Statistics.of(weight, observed, 2)
    edges = [0, *cuts, 7]
    parts = [Statistics.of(weight, chunk(observed, a, b), 2) for a, b in pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    for field in fields(Statistics):
        expected, found = getattr(whole, field.name), getattr(merged, field.name)
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(found, expected, **TIGHT)
        else:
            assert found == expected
    assert (whole.mean_gradient is None) is not with_loss


def test_tangents_count_in_gradients_only():
    weight, observed = naive.make_layer(2, values=2)
    changed = observed.inputs.clone()
    changed[:, 2:] *= 10
    before, after = Statistics.of(weight, observed), Statistics.of(weight, replace(observed, inputs=changed))
    for name in ("shares", "neuron_shares", "means", "inputs"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    for name in ("mean_gradient", "squared_gradients", "contributions"):
        assert (getattr(before, name) - getattr(after, name)).abs().max() > 0.1


def test_the_size_of_a_block_does_not_matter(monkeypatch):
    weight, observed = naive.make_layer(4, examples=9)
    whole = Statistics.of(weight, observed)
    monkeypatch.setattr(module, "ELEMENTS", 2 * weight.numel())
    parts = Statistics.of(weight, observed)
    for name in ("mean_gradient", "squared_gradients", "contributions"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), **TIGHT)


def test_nothing_carries_gradients():
    weight, observed = naive.make_layer(0)
    found = Statistics.of(weight.requires_grad_(), replace(observed, inputs=observed.inputs.requires_grad_()))
    tensors = [getattr(found, f.name) for f in fields(Statistics)]
    assert not any(t.requires_grad for t in tensors if isinstance(t, torch.Tensor))


def test_observations_that_do_not_fit_are_refused():
    weight, observed = naive.make_layer(0)
    nan = observed.inputs.clone()
    nan[0, 0, 0] = torch.nan
    refused = [
        (replace(observed, inputs=observed.inputs[..., :2]), r"\(5, 4, 2\) at a weight matrix of shape \(4, 3\)"),
        (replace(observed, inputs=observed.inputs[0]), r"must be \(N, S, C\)"),
        (replace(observed, values=0), "0 values among"),
        (replace(observed, values=5), "5 values among"),
        (replace(observed, gradients=observed.gradients[:, :2]), r"they must have \(5, 4, 4\)"),
        (replace(observed, inputs=nan), "infinite or not a number"),
        (replace(observed, gradients=observed.gradients / 0), "infinite or not a number"),
    ]
    for wrong, message in refused:
        with pytest.raises(InputError, match=message) as refusal:
            Statistics.of(weight, wrong)
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="no neurons of 2 columns"):
        Statistics.of(weight, replace(observed, gradients=None), 2)


def test_chunks_of_different_layers_are_not_merged():
    weight, observed = naive.make_layer(0)
    one = Statistics.of(weight, observed)
    with pytest.raises(InputError, match="merge chunks of one layer"):
        one.merged(Statistics.of(weight[:2], replace(observed, gradients=None)))
    with pytest.raises(InputError, match="give a loss for all or for none"):
        one.merged(Statistics.of(weight, replace(observed, gradients=None)))
