"""What pruning is asked for and cannot do is refused in one sentence, with nothing passed over."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sparseflows as sf
from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import MLPField


@pytest.fixture
def flow():
    made = sf.Flow(MLPField(2, [12, 10], "tanh", "concat"))  # 200 params
    seeded_initialise(made, 0, gain=2.0)
    return made


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("target", [0.5, 60.0, np.float64(60), True, -3, float("nan"), float("inf"), "60", None])
def test_a_target_is_a_whole_number_nearest_or_not(flow, target, nearest):
    for method in ("unstructured", "structured"):
        with pytest.raises(InputError, match="whole number from 1 on"):
            sf.prune(method, sf.unpruned(flow), flow, target, nearest=nearest)
    with pytest.raises(InputError, match="whole number from 1 on"):
        sf.prune_by_scores(flow, sf.score("magnitude", flow), target)


def test_whole_numbers_of_numpy_are_targets(flow):
    found = sf.prune("unstructured", sf.unpruned(flow), flow, np.int64(100))
    assert (found.asked, found.params, type(found.asked)) == (100, 100, int)


def test_more_params_than_there_are_is_no_target_of_scores_either(flow):
    with pytest.raises(InputError, match="201, but the network has 200 params"):
        sf.prune_by_scores(flow, sf.score("magnitude", flow), 201)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("unstructured", {"floor": -1}),
        ("unstructured", {"floor": 2}),
        ("structured", {"floor": float("nan")}),
        ("structured", {"floor": True}),
        ("unstructured", {"compensated": True}),
        ("structured", {"allocation": "glob"}),
    ],
)
def test_options_that_the_method_would_pass_over_are_refused(flow, method, options):
    with pytest.raises(InputError, match=next(iter(options))):
        sf.prune(method, sf.unpruned(flow), flow, 100, sample=sf.Sample(torch.randn(20, 2)), **options)


def test_states_that_do_not_go_together_with_the_method_are_refused(flow):
    masked = sf.prune("unstructured", sf.unpruned(flow), flow, 100)
    with pytest.raises(InputError, match="masked weights"):
        sf.prune("structured", masked, flow, 60)
    small = sf.prune("structured", sf.unpruned(flow), flow, 100)
    with pytest.raises(InputError, match=r"unpruned\(state\.flow\)"):
        sf.prune("unstructured", small, flow, 60)
    assert sf.prune("unstructured", sf.unpruned(small.flow), small.flow, 60).params == 60
    with pytest.raises(InputError, match=r"unpruned\(network\)"):
        sf.prune("unstructured", flow, flow, 60)


class Own(nn.Module):
    dim = 2

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(2, 6), nn.Linear(6, 2)

    def forward(self, t, z):
        return self.two(torch.tanh(self.one(z)))


def own_forward(layer):
    whole = layer.forward
    layer.forward = lambda h: 2 * whole(h)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.register_forward_hook(lambda module, given, out: 1.5 * out + 1),
        lambda layer: layer.register_forward_pre_hook(lambda module, given: (2 * given[0],)),
        own_forward,
    ],
    ids=["hook", "pre-hook", "forward"],
)
@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_layers_with_hooks_are_refused_in_fields_and_networks(change, method):
    field, network = Own(), nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 3))
    change(field.one)
    change(network[0])
    for whole in (sf.Flow(field), network):
        with pytest.raises(InputError, match="hooks or a forward of its own"):
            sf.prune(method, sf.unpruned(copy.deepcopy(whole)), whole, 29)
