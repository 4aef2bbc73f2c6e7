"""Every method on modules of Linear and Conv2d layers: how far it prunes, what it keeps, what the result computes."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from support import naive_criteria
from support.arrays import pairwise as pairwise_cases
from support.arrays import rotating
from support.naive_pruning import make_flow, points
from support.networks import assert_same_state, make, sample, state_of
from torch import nn

from sparseflows.errors import InputError
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample, classification_loss
from sparseflows.specs.methods import SYNONYMS

ALL = [name for name in METHODS if name not in SYNONYMS.values()]
WEIGHTS = [name for name in ALL if METHODS[name].kind == "weights"]
NEURONS = [name for name in ALL if METHODS[name].kind == "neurons"]
TOP_WEIGHTS = [name for name in WEIGHTS if METHODS[name].choice == "top"]
TOP_NEURONS = [name for name in NEURONS if METHODS[name].choice == "top"]
BY_SCORE = [name for name in TOP_NEURONS if name != "pfp"]  # pfp has an allocation of its own
MODULES = ("mlp", "conv")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def sample_of(name):
    return Sample(sample(name), classification_loss(LABELS))


def total_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


def pruned_to(method, name, ratio, **options):
    module = make(name)
    target = round(ratio * total_of(module))
    return module, target, prune(method, unpruned(module), module, target, sample=sample_of(name), **options)


def masked(module, masks):
    """A copy with the masks multiplied in by hand."""
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for name, mask in masks.items():
            copied.get_parameter(name).mul_(mask)
    return copied


def sizes_of(module):
    """Neurons of every weight layer but the last."""
    return [link.n_out for link in follow(module)[:-1]]


def costs_of_neurons(module):
    """Params that leave with one neuron of each hidden layer, counted off the shapes."""
    links = follow(module)
    return [
        link.n_in * link.per_neuron + len(link.vectors) + following.n_out * following.per_neuron
        for link, following in pairwise(links)
    ]


# --- how far


@pytest.mark.parametrize(*pairwise_cases(method=WEIGHTS, ratio=[0.7, 0.4], name=MODULES))
def test_weights_go_to_the_target(method, ratio, name):
    module, target, pruned = pruned_to(method, name, ratio)
    # The hybrid chooses anew in every neuron: its cuts jump by the neurons that come and go, and the nearest is taken.
    share = 0.03 if method == "sipp_hybrid" else 0.001
    assert abs(pruned.params - target) <= max(1, round(share * total_of(module)))
    living = sum(int((p != 0).sum()) for p in pruned.flow.parameters())
    assert living <= pruned.params == pruned.masks.kept(pruned.flow)
    for key, mask in pruned.masks.items():
        assert not pruned.flow.get_parameter(key)[~mask].any()
    assert pruned.masks is pruned.dense_masks


@pytest.mark.parametrize(("method", "name"), rotating(NEURONS, MODULES))
def test_neurons_go_to_within_one_of_the_target(method, name):
    module, target, pruned = pruned_to(method, name, 0.5)
    # Of a neuron that goes or stays the nearer is taken; none costs more than in the dense module.
    assert abs(pruned.params - target) <= max(costs_of_neurons(module)) / 2
    assert pruned.params == total_of(pruned.flow) == pruned.dense_masks.kept(module)
    assert pruned.masks is None
    assert all(small <= whole for small, whole in zip(sizes_of(pruned.flow), sizes_of(module), strict=True))


@pytest.mark.parametrize(("method", "name"), rotating(ALL, MODULES))
def test_a_ratio_that_would_empty_a_layer_keeps_one_neuron_of_each(method, name):
    module, _, pruned = pruned_to(method, name, 0.001, nearest=True)
    kept = [int(pruned.dense_masks[link.weight].flatten(1).any(1).sum()) for link in follow(module)[:-1]]
    assert kept == [1] * len(kept)
    if METHODS[method].kind == "neurons":
        assert sizes_of(pruned.flow) == kept
    with torch.no_grad():
        assert pruned.flow(sample(name)).std(0).max() > 0  # it still sees its input


# --- what the result computes


@pytest.mark.parametrize(("method", "name"), rotating(TOP_NEURONS, ["norm_mlp", "conv"]))
def test_a_shrunk_module_is_the_masked_one(method, name):
    module = make(name)
    loss = classification_loss(LABELS)
    given = Sample(sample(name), lambda y: loss(y.flatten(1)))
    pruned = prune(method, unpruned(module), module, total_of(module) // 2, sample=given)
    assert sizes_of(pruned.flow) != sizes_of(module)
    rows = sample(name, rows=4, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(pruned.flow(rows), masked(module, pruned.dense_masks)(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("method", "name"), rotating(TOP_WEIGHTS, MODULES))
def test_weights_that_stay_are_as_they_were(method, name):
    module, _, pruned = pruned_to(method, name, 0.95, allocation="uniform")
    assert all(pruned.masks[own].all() for link in follow(module) for own in link.vectors)  # no neuron died
    rows = sample(name, rows=4, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(pruned.flow(rows), masked(module, pruned.masks)(rows), rtol=1e-12, atol=1e-12)
    for key, parameter in module.named_parameters():
        mask = pruned.masks[key] if key in pruned.masks else torch.ones_like(parameter).bool()
        assert torch.equal(pruned.flow.get_parameter(key)[mask], parameter[mask])


@pytest.mark.parametrize(("method", "name"), rotating(ALL, MODULES))
def test_a_second_step_keeps_a_part_of_the_first(method, name):
    module = make(name, "relu")
    before = state_of(module)
    first = prune(method, unpruned(module), module, round(0.7 * total_of(module)), sample=sample_of(name))
    content = state_of(first.flow)
    second = prune(method, first, module, round(0.4 * total_of(module)), sample=sample_of(name), seed=1)
    assert_same_state(before, state_of(module))
    assert_same_state(content, state_of(first.flow))
    assert second.params < first.params
    for key, mask in first.dense_masks.items():
        assert not (second.dense_masks[key] & ~mask).any()
    assert second.dense_masks.kept(module) == second.params


@pytest.mark.parametrize("method", ALL)
def test_seeds_matter_where_something_is_drawn(method):
    module = make("mlp")
    results = [
        prune(method, unpruned(module), module, total_of(module) // 2, sample=sample_of("mlp"), seed=seed)
        for seed in (3, 3, 4)
    ]
    first, again, other = ({k: m.clone() for k, m in result.dense_masks.items()} for result in results)
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = METHODS[method].choice != "top" or METHODS[method].criterion.startswith("random")
    if method != "pfp_top_random":  # it may leave nothing to chance
        assert drawn == any(not torch.equal(first[key], other[key]) for key in first)


# --- allocation and floor


@pytest.mark.parametrize(("method", "name"), rotating(BY_SCORE, MODULES))
def test_uniform_keeps_the_same_share_of_every_layer(method, name):
    module, _, pruned = pruned_to(method, name, 0.5, allocation="uniform")
    pairs = list(zip(sizes_of(pruned.flow), sizes_of(module), strict=True))
    shares = [kept / whole for kept, whole in pairs]
    assert max(shares) - min(shares) <= 1 / min(whole for _, whole in pairs)


@pytest.mark.parametrize("name", MODULES)
def test_global_is_one_ranking_over_all_layers(name):
    module, _, pruned = pruned_to("neuron_l1", name, 0.5, allocation="global")
    links = follow(module)[:-1]
    norms = [naive_criteria.norms(module.get_parameter(link.weight), 1) for link in links]
    kept = [pruned.dense_masks[link.weight].flatten(1).any(1).tolist() for link in links]
    ranked = sorted(
        (
            (norm, own, i)
            for i, pair in enumerate(zip(norms, kept, strict=True))
            for norm, own in zip(*pair, strict=True)
        ),
        reverse=True,
    )
    alone = {i for i, layer in enumerate(kept) if sum(layer) == 1}  # a layer's last neuron stays whatever its rank
    order = [own for _, own, i in ranked if not (own and i in alone)]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("name", MODULES)
def test_weights_uniformly_or_globally(name):
    links = follow(make(name))
    shares = {}
    for allocation in ("uniform", "global"):
        _, _, pruned = pruned_to("magnitude", name, 0.85, allocation=allocation)
        shares[allocation] = [float(pruned.masks[link.weight].double().mean()) for link in links]
    smallest = min(make(name).get_parameter(link.weight).numel() for link in links)
    assert max(shares["uniform"]) - min(shares["uniform"]) <= 2 / smallest
    assert shares["global"] != shares["uniform"]


@pytest.mark.parametrize(("method", "name"), rotating(NEURONS, MODULES))
def test_a_floor_of_neurons(method, name):
    module, _, pruned = pruned_to(method, name, 0.01, floor=0.4, nearest=True)
    for kept, whole in zip(sizes_of(pruned.flow), sizes_of(module), strict=True):
        assert kept == math.ceil(0.4 * whole)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("method", ["magnitude", "sipp_randomised"])
def test_a_floor_of_weights(method, name):
    module, _, pruned = pruned_to(method, name, 0.3, floor=0.2)
    for link in follow(module):
        mask = pruned.masks[link.weight]
        assert int(mask.sum()) >= round(0.2 * mask.numel())


@pytest.mark.parametrize("method", ["neuron_l1", "pfp"])
def test_a_floor_counts_the_neurons_of_the_dense_network(method):
    module = make("mlp")
    state = unpruned(module)
    for ratio in (0.7, 0.4, 0.1):
        target = round(ratio * total_of(module))
        state = prune(method, state, module, target, sample=sample_of("mlp"), floor=0.4, nearest=True)
    assert sizes_of(state.flow) == [math.ceil(0.4 * 7), math.ceil(0.4 * 5)]


# --- what is drawn


def assert_unbiased(errors):
    """The mean over the seeds (seeds, …) is 0 within 4 standard errors."""
    errors = torch.stack(errors).flatten(1)
    spread = errors.std(0)
    moved = spread > 0
    assert moved.any()
    z = errors.mean(0)[moved] / (spread[moved] / math.sqrt(len(errors)))
    # Some 40 values, most of them dependent: beyond 4 by chance in one of 400 such tests, and the seeds are fixed.
    assert z.abs().max() < 4, z


def test_weights_drawn_leave_pre_activations_unbiased():
    module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    rows = points(6, rows=4)
    inputs = {0: rows, 2: module[:2](rows).detach()}
    errors = {0: [], 2: []}
    for seed in range(80):
        pruned = prune(
            "sipp_randomised", unpruned(module), module, total_of(module) - 8, sample=Sample(rows), seed=seed
        )
        assert pruned.masks["0.bias"].all()  # no neuron died, which would be another change
        for layer, found in errors.items():
            change = pruned.flow[layer].weight.detach() - module[layer].weight.detach()
            found.append(inputs[layer] @ change.T)
    for found in errors.values():
        assert_unbiased(found)


def test_neurons_drawn_leave_the_next_pre_activations_unbiased():
    # A flow, for it is quicker than a module. Any activations will do: only the choice is random.
    flow, name = make_flow((6,), dim=5), "blocks.0.field.layers.1.weight"
    dense, activations = flow.get_parameter(name).detach(), points(6, rows=4)
    errors = []
    for seed in range(50):
        target = total_of(flow) - 2 * 11
        pruned = prune("pfp_randomised", unpruned(flow), flow, target, sample=Sample(points(5, rows=3)), seed=seed)
        kept = pruned.dense_masks[name].any(0)
        assert int(kept.sum()) == 4
        factors = pruned.flow.get_parameter(name).detach() / dense[:, kept]
        # One factor a neuron, for all that read it.
        torch.testing.assert_close(factors, factors[:1].expand_as(factors), rtol=1e-12, atol=0)
        whole = torch.zeros_like(dense)
        whole[:, kept] = pruned.flow.get_parameter(name).detach()
        errors.append(activations @ (whole - dense).T)
    assert_unbiased(errors)


def test_the_hybrid_takes_no_weight_back():
    # Two dead neurons: nothing that reads them has a share, whether it is masked already or not.
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        module[0].bias[:2] = -100.0
    masks = Masks.full(module)
    masks["2.weight"][0, 0] = False
    masks.apply_(module)
    state = Pruned(module, masks, masks)
    for fewer in range(1, 6):
        pruned = prune("sipp_hybrid", state, module, state.params - fewer, sample=Sample(points(3, rows=6)))
        assert not pruned.dense_masks["2.weight"][0, 0]


# --- the same through flows


@pytest.mark.parametrize("method", ALL)
def test_a_ratio_that_would_empty_a_flow_keeps_one_neuron_of_each_layer(method):
    flow = make_flow((6, 5), activation="relu", time="concat")
    pruned = prune(method, unpruned(flow), flow, 1, sample=Sample(points(rows=4)), nearest=True)
    for index in (0, 1):
        assert int(pruned.dense_masks[f"blocks.0.field.layers.{index}.weight"].any(1).sum()) >= 1
    assert int(pruned.dense_masks["blocks.0.field.layers.2.weight"].any(0).sum()) >= 1


# --- what is refused


@pytest.mark.parametrize(("method", "name"), rotating(ALL, ["flow", "mlp"]))
def test_a_method_that_looks_at_data_says_so(method, name):
    network = make_flow() if name == "flow" else make(name)
    before = state_of(network)
    target = total_of(network) // 2
    if not METHODS[method].needs_data:
        assert prune(method, unpruned(network), network, target).params > 0
        return
    with pytest.raises(InputError) as caught:
        prune(method, unpruned(network), network, target)
    assert str(caught.value) == f"method '{method}' looks at data; give sample=Sample(rows, …)"
    assert_same_state(before, state_of(network))


@pytest.mark.parametrize("method", ["magnitude", "neuron_l1"])
def test_an_unknown_allocation_is_refused(method):
    module = make("mlp")
    with pytest.raises(InputError, match=r"unknown allocation 'layerwise' \(known: global, uniform\)"):
        prune(method, unpruned(module), module, 40, "layerwise")


@pytest.mark.parametrize("method", ["magnitude", "neuron_l1", "taylor"])
def test_a_module_without_hidden_layers(method):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    given = Sample(torch.ones(3, 4, dtype=torch.float64), classification_loss(torch.tensor([0, 1, 2])))
    if METHODS[method].kind == "weights":
        assert prune(method, unpruned(module), module, 9, sample=given).params == 9
        return
    with pytest.raises(InputError, match="hidden layer"):
        prune(method, unpruned(module), module, 9, sample=given)
