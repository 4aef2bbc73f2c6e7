"""Every criterion from the network to its scores, against loops over examples, points, neurons and weights."""

import functools
import re
from itertools import pairwise

import pytest
import torch
from support import naive_criteria
from support.arrays import rotating
from support.naive_observe import logits_loss, observed_one_by_one
from support.naive_pruning import make_flow, points
from support.networks import assert_same_state, make, sample, state_of
from torch import nn
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.methods import prune_by_masks, prune_by_scores
from sparseflows.pruning.observing.observe import Sample, classification_loss, observe
from sparseflows.pruning.scoring.criteria import score
from sparseflows.specs.methods import criteria

CRITERIA = criteria()
LABELS = torch.tensor([1, 0])
RANDOM = ("random_weights", "random_neurons")
NETWORKS = {
    "flow": lambda: make_flow((4, 3), time="concat_squash", activation="softplus", blocks=2, train_end_time=True),
    "flow that classifies": lambda: make_flow((4, 3), time="concat", activation="tanh"),
    "mlp": lambda: make("mlp", "tanh"),
    "norm_mlp": lambda: make("norm_mlp", "relu"),
    "conv": lambda: make("conv", "silu"),
}


def given(name):
    """A network and its sample of two rows, with a loss unless the network is a flow of a density."""
    network = NETWORKS[name]()
    if name == "flow":
        return network, Sample(points(rows=2))
    rows = points(rows=2) if name.startswith("flow") else sample(name, 2)
    return network, Sample(rows, classification_loss(LABELS))


def cross_entropy(logits, n):
    return F.cross_entropy(logits, LABELS[n : n + 1])


@functools.cache
def layers_of(name):
    """What the loops over the examples observe."""
    network, taken = given(name)
    if name == "flow":
        return observed_one_by_one(network, taken.rows)
    if name == "flow that classifies":
        return observed_one_by_one(network, taken.rows, logits_loss(cross_entropy))
    return observed_one_by_one(network, taken.rows, lambda module, row, n: cross_entropy(module(row), n))


# --- the criteria's formulas, loop by loop


def each_weight(layer, rule):
    """(n_out, C) of rule(w, [g_1, …, g_N])."""
    gradients = [g.tolist() for g in layer.gradients]
    weight = layer.weight.tolist()
    return [[rule(w, [g[i][c] for g in gradients]) for c, w in enumerate(row)] for i, row in enumerate(weight)]


def each_neuron_before(layer, rule):
    """(n_in,) of rule([c_1, …, c_N])."""
    gates = [gate.tolist() for gate in layer.gates]
    return [rule([gate[j] for gate in gates]) for j in range(len(gates[0]))]


def largest_share(following):
    lists = naive_criteria.shares(following.weight, [p.tolist() for p in following.points], following.per_neuron)
    return [max(row[j] for row in lists) for j in range(len(lists[0]))]


WEIGHTS = {
    "magnitude": lambda layer: each_weight(layer, lambda w, g: abs(w)),
    "snip": lambda layer: each_weight(layer, lambda w, g: abs(w * sum(g) / len(g))),
    "fisher_weights": lambda layer: each_weight(layer, lambda w, g: w**2 * sum(x**2 for x in g) / (2 * len(g))),
    "sipp": lambda layer: naive_criteria.shares(layer.weight, [p.tolist() for p in layer.points]),
}
NEURONS = {
    "neuron_l1": lambda layer, following: naive_criteria.norms(layer.weight, 1),
    "neuron_l2": lambda layer, following: naive_criteria.norms(layer.weight, 2),
    "pfp": lambda layer, following: largest_share(following),
    "fisher_neurons": lambda layer, following: each_neuron_before(
        following, lambda c: sum(x**2 for x in c) / (2 * len(c))
    ),
    "taylor": lambda layer, following: each_neuron_before(following, lambda c: sum(abs(x) for x in c) / len(c)),
}


def blocks_of(layers):
    """The layers of each chain: a flow's names say the block."""
    blocks = {}
    for layer in layers:
        key = layer.name.split(".")[1] if layer.name.startswith("blocks.") else ""
        blocks.setdefault(key, []).append(layer)
    return blocks.values()


@pytest.mark.parametrize(("criterion", "name"), rotating(WEIGHTS, NETWORKS, times=3))
def test_weights_are_scored_as_by_loops(criterion, name):
    network, taken = given(name)
    found = score(criterion, network, taken)
    assert list(found) == [layer.name for layer in layers_of(name)]
    for layer in layers_of(name):
        expected = torch.tensor(WEIGHTS[criterion](layer), dtype=torch.float64)
        assert found[layer.name].shape == network.get_parameter(layer.name).shape
        torch.testing.assert_close(found[layer.name].flatten(1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("criterion", "name"), rotating(NEURONS, NETWORKS, times=3))
def test_neurons_are_scored_as_by_loops(criterion, name):
    network, taken = given(name)
    found = score(criterion, network, taken)
    pairs = [pair for block in blocks_of(layers_of(name)) for pair in pairwise(block)]
    assert list(found) == [layer.name for layer, _ in pairs]
    for layer, following in pairs:
        expected = torch.tensor(NEURONS[criterion](layer, following), dtype=torch.float64)
        torch.testing.assert_close(found[layer.name], expected, rtol=1e-10, atol=1e-10)


def test_no_criterion_is_left_out():
    assert set(CRITERIA) == {*WEIGHTS, *NEURONS, *RANDOM}
    assert all(criterion.source for criterion in CRITERIA.values())


@pytest.mark.parametrize("criterion", RANDOM)
@pytest.mark.parametrize("name", ["flow", "conv"])
def test_random_scores_are_seeded(criterion, name):
    network, _ = given(name)
    first, again, other = (score(criterion, network, seed=seed) for seed in (3, 3, 4))
    neurons = criterion == "random_neurons"
    for layer in first:
        weight = network.get_parameter(layer)
        assert first[layer].shape == (weight.shape[:1] if neurons else weight.shape)
        assert torch.equal(first[layer], again[layer])
        assert not torch.equal(first[layer], other[layer])
        assert first[layer].dtype == torch.float64
        assert 0 <= first[layer].min() < first[layer].max() < 1
    values = torch.cat([tensor.flatten() for tensor in first.values()])
    assert len(values.unique()) == len(values)  # no layer draws what another one has drawn


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_double_and_leave_the_network_alone(criterion):
    network, taken = given("conv")
    network.float().train()
    before = state_of(network)
    found = score(criterion, network, Sample(taken.rows.float(), taken.loss))
    assert_same_state(before, state_of(network))
    assert all(tensor.dtype == torch.float64 and not tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("criterion", ["snip", "pfp", "taylor"])
def test_what_was_seen_already_is_not_observed_again(criterion):
    network, taken = given("mlp")
    seen = observe(network, taken)
    ours, expected = score(criterion, network, seen=seen), score(criterion, network, taken)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


# --- what is refused


@pytest.mark.parametrize(("criterion", "name"), rotating(CRITERIA, ["flow", "mlp"]))
def test_a_criterion_that_needs_data_says_so(criterion, name):
    network, _ = given(name)
    if CRITERIA[criterion].needs == "nothing":
        assert score(criterion, network)
        return
    with pytest.raises(InputError, match=f"^criterion '{criterion}' needs rows of data.*; give sample=Sample"):
        score(criterion, network)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_that_needs_a_loss_says_so(criterion):
    network, taken = given("mlp")
    if CRITERIA[criterion].needs != "loss":
        assert score(criterion, network, Sample(taken.rows))
        return
    with pytest.raises(InputError) as caught:
        score(criterion, network, Sample(taken.rows))
    expected = f"criterion '{criterion}' needs the gradient of a loss; give Sample(rows, loss)"
    assert str(caught.value) == expected


def test_an_unknown_criterion_lists_the_known_ones():
    with pytest.raises(
        InputError, match=r"unknown criterion 'tailor'; did you mean 'taylor'\? \(known: fisher_neurons"
    ):
        score("tailor", given("mlp")[0])


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(x + self.first(x))


@pytest.mark.parametrize(
    ("module", "named"),
    [
        (Branching(), "add (add) joins two branches"),
        (nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), "1"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "LayerNorm"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 3)), "groups=2"),
        (nn.ReLU(), "ReLU"),
    ],
)
@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_modules_that_cannot_be_followed_are_named(criterion, module, named):
    with pytest.raises(InputError) as caught:
        score(criterion, module, Sample(torch.ones(2, 4)))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


# --- scores and masks of one's own


def unchanged(network, act, words):
    before = state_of(network)
    with pytest.raises(InputError) as caught:
        act()
    assert re.search(words, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert_same_state(before, state_of(network))


def scores_of(name, criterion):
    network, _ = given(name)
    return network, score(criterion, network)


@pytest.mark.parametrize("name", ["flow", "mlp", "conv"])
@pytest.mark.parametrize("criterion", ["magnitude", "neuron_l2"])
def test_scores_of_ones_own_that_do_not_fit(name, criterion):
    network, scores = scores_of(name, criterion)
    last = list(scores)[-1]
    neuron = criterion == "neuron_l2"
    half = sum(p.numel() for p in network.parameters()) // 2
    layer = re.escape(last.removesuffix(".weight"))
    for wrong, words in (
        ({**scores, last: scores[last][:-1]}, f"the scores of '?{layer}"),
        ({**scores, last: scores[last] * torch.nan}, f"score of '?{layer}.* is not finite"),
        ({**scores, last: scores[last] + torch.inf}, f"score of '?{layer}.* is not finite"),
        (
            {n: s for n, s in scores.items() if n != last},
            "no scores for|scores of" if neuron else f"no scores for '{layer}",
        ),
        ({}, "no scores for"),
    ):
        unchanged(network, lambda wrong=wrong: prune_by_scores(network, wrong, half), words)


def test_an_unknown_allocation():
    network, scores = scores_of("mlp", "magnitude")
    unchanged(network, lambda: prune_by_scores(network, scores, 20, "globl"), "unknown allocation 'globl'")


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_scores_of_ones_own_are_obeyed(name):
    network, _ = given(name)
    scores = score("random_weights", network, seed=5)
    total = sum(p.numel() for p in network.parameters())
    pruned = prune_by_scores(network, scores, round(0.8 * total))
    whole = torch.cat([s.flatten() for s in scores.values()])
    kept = torch.cat([pruned.masks[n].flatten() for n in scores])
    # A fifth goes; what is low and stays, or high and goes, hangs on a neuron that lives or dies, or keeps a path.
    wrong = int((whole.argsort().argsort() < int((~kept).sum())).eq(kept).sum())
    assert 0 < int((~kept).sum()) < len(kept)
    assert wrong <= 0.1 * int((~kept).sum())
    neurons = score("random_neurons", network, seed=5)
    smaller = prune_by_scores(network, neurons, total // 2)
    assert smaller.masks is None
    for layer, values in neurons.items():
        size = smaller.flow.get_parameter(layer).shape[0]
        rows = smaller.dense_masks[layer].flatten(1).any(1)
        assert int(rows.sum()) == size < len(values)
        assert set(values.argsort(descending=True)[:size].tolist()) == set(rows.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("name", ["flow", "mlp", "conv"])
def test_masks_of_ones_own_that_do_not_fit(name):
    network, _ = given(name)
    masks = dict(Masks.full(network))
    first = next(iter(masks))
    shape = re.escape(str(tuple(masks[first].shape)))
    wrong = {**masks, first: torch.ones(3, 77)}
    unchanged(network, lambda: prune_by_masks(network, Masks(wrong)), rf"{first}' has shape \(3, 77\).* is {shape}")
    wrong = {**masks, "nowhere.weight": torch.ones(2)}
    unchanged(network, lambda: prune_by_masks(network, Masks(wrong)), "'nowhere.weight', which this network does not")


@pytest.mark.parametrize("name", ["flow", "mlp", "conv"])
def test_masks_of_ones_own_are_applied_to_a_copy(name):
    network, _ = given(name)
    names = [layer.name for layer in layers_of(name)]
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(network.get_parameter(n).shape, generator=generator) < 0.5 for n in names[:2]}
    before = state_of(network)
    pruned = prune_by_masks(network, Masks(masks))
    assert_same_state(before, state_of(network))
    for n, parameter in network.named_parameters():
        expected = torch.where(masks[n], parameter, 0.0) if n in masks else parameter
        assert torch.equal(pruned.flow.get_parameter(n), expected)
    total = sum(p.numel() for p in network.parameters())
    assert pruned.params == total - sum(int((~m).sum()) for m in masks.values()) == pruned.dense_masks.kept(network)
