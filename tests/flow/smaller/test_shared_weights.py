"""Layers that share a weight, or hold it as no parameter: the smaller flow computes the same, pruning refuses them."""

import pytest
import torch
from support.truths import normal

import sparseflows as sf
from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow


def tied(layers):
    layers[2].weight, layers[2].bias = layers[1].weight, layers[1].bias


def plain(layers):
    weight = layers[1].weight.detach().clone()
    del layers[1].weight
    layers[1].weight = weight


def buffered(layers):
    weight = layers[1].weight.detach().clone()
    del layers[1].weight
    layers[1].register_buffer("weight", weight)


@pytest.fixture(params=[tied, plain, buffered])
def flow(request):
    made = Flow(MLPField(2, [8, 8, 8], "tanh")).double()
    seeded_initialise(made, 0, gain=2.0)
    layers = made.chain()[0].field.layers
    with torch.no_grad():
        layers[1].weight[3] = 0.0  # a constant neuron, which is folded
        layers[1].weight[:, 2] = 0.0
    request.param(layers)
    return made


def test_smaller_flows_compute_what_the_flow_does_and_leave_it_as_it_was(flow):
    x = normal(6, 2)
    with torch.no_grad():
        expected = flow.log_prob(x)
        for smaller in (flow.compact(), flow.to_sparse(0.0)):
            torch.testing.assert_close(smaller.log_prob(x), expected, rtol=0, atol=1e-4)
        assert torch.equal(flow.log_prob(x), expected)


@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_pruning_refuses_them_and_names_the_remedy(flow, method):
    with pytest.raises(InputError, match=r"parameter of its own.*compact"):
        sf.prune(method, sf.unpruned(flow), flow, 50)
    small = flow.compact()
    assert sf.prune(method, sf.unpruned(small), small, 50).params < 60


def test_a_file_holds_all_of_it_or_is_not_written(flow, tmp_path):
    x, path = normal(6, 2), tmp_path / "flow.safetensors"
    if "blocks.0.field.layers.1.weight" not in flow.state_dict():
        with pytest.raises(InputError, match=r"layers\.1\.weight"):
            sf.save(flow, path)
        assert not path.exists()
        return
    with torch.no_grad():
        torch.testing.assert_close(sf.load_file(sf.save(flow, path)).log_prob(x), flow.log_prob(x))
