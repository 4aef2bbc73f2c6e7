"""`Flow.compact`: the function stays, what does nothing goes."""

import copy
from itertools import product

import pytest
import torch
from support.sparse_flows import GRID, points, zeroed_field, zeroed_flow
from support.truths import SineField, generator
from torch import nn

from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.base import BaseFlow
from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.compact import compact, compact_field, needed_neurons
from sparseflows.flow.smaller.sparse import to_sparse
from sparseflows.pruning.cutting.unstructured import prune_weights
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons
from sparseflows.specs import FlowSpec

TIMES = ["none", "concat", "concat_squash"]
# Sums of at most 12 terms of order 1 in another order.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def live_neurons(field):
    """By search, neuron by neuron: those from which a path of nonzero weights leads to the output."""
    layers = field.linear_layers()

    def reaches(layer, neuron):
        if layer == len(layers) - 1:
            return True
        column = layers[layer + 1].weight[:, neuron].tolist()
        return any(weight != 0 and reaches(layer + 1, i) for i, weight in enumerate(column))

    return [[i for i in range(n) if reaches(layer, i)] for layer, n in enumerate(field.hidden)]


@pytest.mark.parametrize(("activation", "time"), list(product(ACTIVATIONS, TIMES)))
def test_a_compacted_flow_is_the_flow(activation, time):
    flow = zeroed_flow(activation=activation, time=time, hidden=(12, 11, 9), shares=0.85)
    small = flow.compact()
    before = [field.hidden for field in flow.fields()]
    after = [field.hidden for field in small.fields()]
    assert all(m <= n for old, new in zip(before, after, strict=True) for n, m in zip(old, new, strict=True))
    assert sum(map(sum, after)) < sum(map(sum, before))
    z, v, t = points(), torch.eye(3, dtype=torch.float64)[:, None], torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        for field, smaller in zip(flow.fields(), small.fields(), strict=True):
            torch.testing.assert_close(smaller.tangents(t, z, v), field.tangents(t, z, v), **CLOSE)
        torch.testing.assert_close(small.log_prob(z), flow.log_prob(z), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(small.to_data(z), flow.to_data(z), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_those_that_reach_the_output_stay(seed):
    field = zeroed_field(hidden=(9, 8, 7), shares=0.85, seed=seed)
    kept = [mask.nonzero()[:, 0].tolist() for mask in needed_neurons(field)]
    assert kept == [live or [0] for live in live_neurons(field)]  # time gates: no neuron is constant
    assert compact_field(field).hidden == [len(layer) for layer in kept]


@pytest.mark.parametrize(("activation", "time"), list(product(ACTIVATIONS, TIMES)))
def test_constant_neurons_are_folded(activation, time):
    field = zeroed_field(hidden=(6, 5), shares=0.0, activation=activation, time=time)
    first, second, _ = field.linear_layers()
    with torch.no_grad():
        first.weight[2], second.weight[1] = 0.0, 0.0
        second.weight[3] = 0.0
        second.weight[3, 2] = 1.5  # reads nothing but the constant one
        for layer in (first, second):
            for vector in (layer.time_bias, layer.gate_weight):
                if vector is not None:
                    vector[[1, 2, 3]] = 0.0
    small = compact_field(field)
    assert small.hidden == [5, 3]
    t, v = torch.tensor(0.7, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:, None]
    torch.testing.assert_close(small.tangents(t, points(), v), field.tangents(t, points(), v), **CLOSE)


@pytest.mark.parametrize("vector", ["time_bias", "gate_weight"])
def test_a_neuron_that_sees_time_is_not_constant(vector):
    field = zeroed_field(hidden=(6, 5), shares=0.0)
    first = field.linear_layers()[0]
    with torch.no_grad():
        first.weight[2] = 0.0
        for name in {"time_bias", "gate_weight"} - {vector}:
            first.get_parameter(name)[2] = 0.0
    small = compact_field(field)
    assert small.hidden == [6, 5]
    with torch.no_grad():  # a closed gate in front of nothing: what it multiplies is 0 at all times
        first.bias[2] = 0.0
    assert compact_field(field).hidden == ([6, 5] if vector == "time_bias" else [5, 5])


@pytest.mark.parametrize("time", TIMES)
def test_a_layer_without_use_keeps_one_neuron(time):
    field = zeroed_field(hidden=(6, 5), shares=[0.0, 0.0, 1.0], time=time)
    small = compact_field(field)
    assert small.hidden[1] == 1
    t, v = torch.tensor(0.7, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:, None]
    torch.testing.assert_close(small.tangents(t, points(), v), field.tangents(t, points(), v), **CLOSE)


@pytest.mark.parametrize(
    ("time", "activation"), [("none", "sigmoid"), ("concat", "softplus"), ("concat_squash", "silu")]
)
def test_of_a_pruned_flow_all_that_is_left_is_what_the_masks_keep(time, activation):
    dense = build_flow(FlowSpec(hidden=[16, 16], activation=activation, time=time), 3, seed=1).double()
    flow = copy.deepcopy(dense)
    masks = prune_weights(flow, Masks.full(flow), 120)
    small = flow.compact()
    kept = [int(masks[f"blocks.0.field.layers.{layer}.bias"].sum()) for layer in (0, 1)]
    assert next(small.fields()).hidden == kept != [16, 16]
    nonzero = sum(int(torch.count_nonzero(p)) for n, p in small.named_parameters() if n.endswith("weight"))
    assert nonzero == sum(int(torch.count_nonzero(p)) for n, p in flow.named_parameters() if n.endswith("weight"))
    with torch.no_grad():
        torch.testing.assert_close(
            small.log_prob(points(), solver=GRID), flow.log_prob(points(), solver=GRID), rtol=1e-11, atol=1e-11
        )
    own = sum(p.numel() * p.element_size() for p in small.parameters())
    assert own < sum(p.numel() * p.element_size() for p in flow.parameters())


def test_of_silenced_neurons_none_is_left():
    flow = build_flow(FlowSpec(hidden=[10, 9], blocks=2), 3, seed=1).double()
    keep = [torch.rand(n, generator=generator(n)) < 0.5 for n in (10, 9, 10, 9)]
    masks_of_neurons(flow, keep).apply_(flow)
    small = flow.compact()
    assert [n for field in small.fields() for n in field.hidden] == [int(kept.sum()) for kept in keep]


def test_a_flow_without_dead_neurons_stays_as_it_is():
    flow = build_flow(FlowSpec(hidden=[10, 9], time="concat_squash"), 3, seed=1)
    small = flow.compact()
    assert all(torch.equal(tensor, flow.state_dict()[name]) for name, tensor in small.state_dict().items())
    with torch.no_grad():  # nothing is shared
        for parameter in small.parameters():
            parameter.add_(1.0)
    again = build_flow(FlowSpec(hidden=[10, 9], time="concat_squash"), 3, seed=1)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in flow.state_dict().items())


@pytest.mark.parametrize("kind", [BaseFlow, Flow, type("Own", (Flow,), {})])
def test_a_smaller_flow_is_of_the_same_class(kind):
    flow = kind([zeroed_field(), zeroed_field()], train_end_time=True)
    assert type(compact(flow)) is type(to_sparse(flow, 0.0)) is kind


def test_the_rest_of_a_flow_comes_along():
    flow = zeroed_flow(blocks=3)
    flow.standardiser = object()
    before = copy.deepcopy(flow.state_dict())
    small = flow.eval().compact()
    assert (small.solver, small.standardiser, small.training) == (flow.solver, flow.standardiser, False)
    assert torch.equal(small.whitening, flow.whitening)
    assert small.whitening is not flow.whitening
    ends = [[block.end_time(points()).item() for block in one.chain()] for one in (flow, small)]
    assert ends[0] == ends[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())
    assert all(p.requires_grad for p in small.parameters())
    assert {p.dtype for p in flow.float().compact().parameters()} == {torch.float32}


def test_other_fields_are_copied():
    matrix = torch.eye(3, dtype=torch.float64)
    flow = Flow([LinearField(matrix), zeroed_field(), MLPField(3, [], "tanh").double()], solver=GRID)
    small = flow.compact()
    first, _, last = small.fields()
    assert isinstance(first, LinearField)
    assert first is not next(flow.fields())
    assert last.hidden == []
    torch.testing.assert_close(small.log_prob(points()), flow.log_prob(points()), rtol=1e-11, atol=1e-11)
    assert isinstance(Flow(SineField(0.5)).compact(), nn.Module)
