"""Single weights masked: how many, which ones, and that the function survives the tidying up."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrays import rotating
from support.naive_pruning import (
    ACTIVATIONS,
    TIMES,
    alive_ends,
    count,
    living,
    make_flow,
    smallest_count,
    strongest_paths,
    vectors_of,
    velocities,
    weights_of,
)

from sparseflows.pruning.cutting import unstructured
from sparseflows.pruning.cutting.unstructured import prune_weights
from sparseflows.pruning.graph.groups import count_params, weight_names
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.specs import SolveSpec, TrainSpec
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import FlowMatching, NegativeLogLikelihood, training_solver

examples = settings(max_examples=40, deadline=None, derandomize=True)
architectures = {
    "hidden": st.lists(st.integers(1, 6), min_size=1, max_size=3),
    "dim": st.integers(1, 3),
    "time": st.sampled_from(TIMES),
    "blocks": st.integers(1, 2),
    "seed": st.integers(0, 10_000),
}


def pruned(dense, target, masks=None):
    """A copy of `dense` pruned to `target` params, and its masks."""
    flow = copy.deepcopy(dense)
    return flow, prune_weights(flow, masks or Masks.full(dense), target)


def tolerance(dense):
    return max(1, count_params(dense) // 1000)


def kept_weights(flow, masks):
    return set(weights_of(flow, masks))


def shake(flow, masks, seed):
    """As retraining does: other weights, the masked ones 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    masks.apply_(flow)


# --- how many


@given(
    hidden=st.lists(st.sampled_from([16, 24, 32, 48]), min_size=1, max_size=3),
    dim=st.integers(1, 6),
    time=st.sampled_from(TIMES),
    blocks=st.integers(1, 2),
    seed=st.integers(0, 10_000),
    shares=st.lists(st.floats(0.001, 1), min_size=1, max_size=4),
)
@examples
def test_the_target_is_met_all_along_a_cascade(hidden, dim, time, blocks, seed, shares):
    dense = make_flow(hidden, dim, seed=seed, time=time, blocks=blocks)
    total, smallest = count_params(dense), smallest_count(dense)
    state = unpruned(dense)
    for stage, share in enumerate(sorted(shares, reverse=True)):
        target = round(share * total)
        state = prune("unstructured", state, dense, target, nearest=True)
        if target <= smallest:  # one path a block stays, whatever is asked for
            assert state.params == smallest
        elif target >= 3 * smallest:
            assert abs(state.params - target) <= tolerance(dense)
        else:  # so few params that a neuron and its two weights are the neuron
            assert abs(state.params - target) < 2 + max(len(vectors_of(dense, n[:-7])) for n in weight_names(dense))
        shake(state.flow, state.masks, seed + stage)


@pytest.mark.parametrize("time", TIMES)
def test_the_published_ratios_are_met_to_a_thousandth(time):
    dense = make_flow((64, 64, 64), time=time)
    state, total = unpruned(dense), count_params(dense)
    for stage, ratio in enumerate((0.8, 0.64, 0.51, 0.41, 0.33, 0.26, 0.2, 0.16, 0.12, 0.08, 0.04, 0.02)):
        state = prune("unstructured", state, dense, round(ratio * total))
        assert abs(state.params / total - ratio) <= 1e-3
        shake(state.flow, state.masks, stage)


@given(share=st.floats(0, 1.2), end_time=st.booleans(), **architectures)
@examples
def test_the_count_is_what_loops_over_neurons_count(share, end_time, hidden, dim, time, blocks, seed):
    dense = make_flow(hidden, dim, seed=seed, time=time, blocks=blocks, train_end_time=end_time)
    flow, masks = pruned(dense, round(share * count_params(dense)))
    weights = kept_weights(dense, masks)
    neurons = living(dense, weights)
    assert masks.kept(flow) == count(dense, weights)
    assert all(alive_ends(dense, weight, neurons) for weight in weights)  # nothing is left that leads nowhere
    for name in weight_names(dense):
        prefix = name.removesuffix(".weight")
        for vector in vectors_of(dense, prefix):  # biases, gates: with their neuron
            assert masks[vector].tolist() == [(prefix, j) in neurons for j in range(len(masks[vector]))]
    # At least one path leads through every block, and none is stronger.
    magnitudes = weights_of(dense)
    kept = {weight: magnitudes[weight] for weight in weights}
    assert strongest_paths(dense, kept)[0] == strongest_paths(dense, magnitudes)[0]


def test_nothing_to_prune_keeps_everything():
    dense = make_flow((16, 12), time="concat")
    for target in (count_params(dense), 10 * count_params(dense)):
        flow, masks = pruned(dense, target)
        assert masks.kept(flow) == count_params(dense)
        assert torch.equal(velocities(flow), velocities(dense))


@pytest.mark.parametrize("time", TIMES)
def test_one_weight_less_is_one_weight_less(time):
    dense = make_flow((16, 12), time=time)
    flow, masks = pruned(dense, count_params(dense) - 1)
    assert masks.kept(flow) == count_params(dense) - 1
    gone = set(weights_of(dense)) - kept_weights(dense, masks)
    magnitudes = weights_of(dense)
    assert [magnitudes[weight] for weight in gone] == [min(magnitudes.values())]


def test_biases_alone_may_exceed_the_target():
    # 8 output biases, one path of 2 weights and a hidden bias: 11 of 139 are the least there can be.
    dense = make_flow((8,), dim=8)
    for target in (0, 5, 11):
        flow, masks = pruned(dense, target)
        assert masks.kept(flow) == smallest_count(dense) == 11
        assert {name: int(mask.sum()) for name, mask in masks.items()} == {
            "blocks.0.field.layers.0.weight": 1,
            "blocks.0.field.layers.0.bias": 1,
            "blocks.0.field.layers.1.weight": 1,
            "blocks.0.field.layers.1.bias": 8,
        }


def test_where_a_neuron_is_in_the_way_the_nearest_count_is_taken():
    # The output's bias, and 3 params for every neuron: nothing in between can be had.
    dense = make_flow((4,), dim=1)
    reached = [pruned(dense, target)[1].kept(dense) for target in range(1, 14)]
    assert reached == [4, 4, 4, 4, 4, 7, 7, 7, 10, 10, 10, 13, 13]


# --- which ones


@given(share=st.floats(0.02, 1), **architectures)
@examples
def test_the_largest_weights_stay_except_for_what_dead_neurons_took(share, hidden, dim, time, blocks, seed):
    dense = make_flow(hidden, dim, seed=seed, time=time, blocks=blocks)
    magnitudes = weights_of(dense)
    _, masks = pruned(dense, round(share * count_params(dense)))
    weights = kept_weights(dense, masks)
    neurons, total = living(dense, weights), count(dense, weights)
    _, path = strongest_paths(dense, magnitudes)
    left_out = [magnitudes[w] for w in magnitudes if w not in weights and alive_ends(dense, w, neurons)]
    for weight in weights - path:  # the strongest path stays in any case
        # A kept weight is weaker than one left out between living neurons only where a neuron hangs on it.
        if left_out and magnitudes[weight] < max(left_out):
            assert count(dense, weights - {weight}) < total - 1


@pytest.mark.parametrize("time", TIMES)
def test_a_moderate_cut_is_a_threshold(time):
    dense = make_flow((24, 24), dim=12, time=time)
    _, masks = pruned(dense, round(0.8 * count_params(dense)))
    assert all(mask.all() for name, mask in masks.items() if name.endswith("bias"))  # no neuron has died
    magnitudes = weights_of(dense)
    kept = [magnitudes[w] for w in kept_weights(dense, masks)]
    gone = [magnitudes[w] for w in set(magnitudes) - kept_weights(dense, masks)]
    assert min(kept) > max(gone)


def test_the_cut_is_over_all_layers_and_blocks_together():
    dense = make_flow((16, 16), blocks=2)
    with torch.no_grad():
        for name in weight_names(dense)[3:]:
            dense.get_parameter(name).mul_(1000)
    _, masks = pruned(dense, round(0.7 * count_params(dense)))
    shares = [float(masks[name].double().mean()) for name in weight_names(dense)]
    assert shares[3:] == [1.0] * 3
    assert max(shares[:3]) < 0.8


@given(shares=st.lists(st.floats(0, 1), min_size=2, max_size=5), **architectures)
@examples
def test_masks_of_a_cascade_are_nested(shares, hidden, dim, time, blocks, seed):
    dense = make_flow(hidden, dim, seed=seed, time=time, blocks=blocks)
    states = [unpruned(dense)]
    for stage, share in enumerate(sorted(shares, reverse=True)):
        states.append(prune("unstructured", states[-1], dense, round(share * count_params(dense)), nearest=True))
        shake(states[-1].flow, states[-1].masks, seed + stage)
    for before, after in pairwise(states):
        assert all(not (mask & ~before.dense_masks[name]).any() for name, mask in after.masks.items())
        assert after.params <= before.params


# --- the function


def folds(monkeypatch):
    """Every (flow before the tidying up, weights chosen) that `prune_weights` folds constants of."""
    seen = []
    fold = unstructured.fold_constants

    def spy(flow, weights, ways=None):
        seen.append(copy.deepcopy(flow))
        fold(flow, weights, ways)

    monkeypatch.setattr(unstructured, "fold_constants", spy)
    return seen


@pytest.mark.parametrize(("activation", "time"), rotating(ACTIVATIONS, TIMES, times=2))
def test_taking_dead_and_constant_neurons_out_leaves_the_function(activation, time, monkeypatch):
    before = folds(monkeypatch)
    for seed in range(4):
        dense = make_flow((7, 6, 5), seed=seed, activation=activation, time=time, blocks=2, train_end_time=True)
        masks = Masks.full(dense)
        flow = copy.deepcopy(dense)
        for share in (0.6, 0.4, 0.25, 0.15, 0.1):
            masks = prune_weights(flow, masks, round(share * count_params(dense)))
            # Sums of at most 7 terms of order 1, some of them taken earlier: 1e-12.
            torch.testing.assert_close(velocities(flow), velocities(before[-1]), rtol=1e-12, atol=1e-12)
            assert not any(flow.get_parameter(name)[~mask].any() for name, mask in masks.items())
    # What was there before the tidying up is the dense flow with its weights, and nothing else, masked.
    flow, _ = pruned(dense, count_params(dense) // 3)
    for name, parameter in before[-1].named_parameters():
        whole = dense.get_parameter(name)
        assert torch.equal(parameter, torch.where(parameter != 0, whole, 0.0) if parameter.ndim == 2 else whole)


@given(
    activation=st.sampled_from(ACTIVATIONS),
    time=st.sampled_from(TIMES),
    density=st.floats(0, 0.6),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_choice_of_weights_is_tidied_up_without_a_trace(activation, time, density, seed):
    dense = make_flow((5, 4, 4), seed=seed, activation=activation, time=time)
    generator = torch.Generator().manual_seed(seed)
    chosen = Masks(
        {
            name: torch.rand(dense.get_parameter(name).shape, generator=generator) < density
            for name in weight_names(dense)
        }
    )
    naive = copy.deepcopy(dense)
    chosen.apply_(naive)
    tidy = copy.deepcopy(naive)
    masks = unstructured.without_dead_neurons(dense, chosen)
    unstructured.fold_constants(tidy, chosen)
    masks.apply_(tidy)
    torch.testing.assert_close(velocities(tidy), velocities(naive), rtol=1e-12, atol=1e-12)
    assert masks.kept(dense) == count(dense, kept_weights(dense, chosen))


def test_a_chain_of_constant_neurons_is_folded_by_hand():
    # z → 0 neurons; h₁ = σ(b₁) feeds h₂ = σ(w₂ h₁ + b₂) feeds the output: f is the constant w₃ h₂ + b₃.
    dense = make_flow((1, 1), dim=1, activation="tanh")
    names = weight_names(dense)
    chosen = Masks({name: torch.full((1, 1), index > 0) for index, name in enumerate(names)})
    (b1, b2, b3), (w2, w3) = (
        [dense.get_parameter(name).item() for name in group]
        for group in ([n.replace("weight", "bias") for n in names], names[1:])
    )
    chosen.apply_(dense)
    unstructured.fold_constants(dense, chosen)
    masks = unstructured.without_dead_neurons(dense, chosen)
    masks.apply_(dense)
    tanh = lambda x: float(torch.tanh(torch.tensor(x, dtype=torch.float64)))  # noqa: E731
    assert dense.get_parameter(names[2].replace("weight", "bias")).item() == pytest.approx(
        w3 * tanh(w2 * tanh(b1) + b2) + b3, rel=1e-14
    )
    assert masks.kept(dense) == 1
    assert sum(int((p != 0).sum()) for p in dense.parameters()) == 1


@pytest.mark.parametrize(("time", "alive"), [("none", False), ("concat", True), ("concat_squash", True)])
def test_a_neuron_that_sees_time_is_not_constant(time, alive):
    dense = make_flow((2,), dim=1, time=time)
    first, second = weight_names(dense)
    chosen = Masks({first: torch.tensor([[True], [False]]), second: torch.ones(1, 2)})
    masks = unstructured.without_dead_neurons(dense, chosen)
    assert masks["blocks.0.field.layers.0.bias"].tolist() == [True, alive]
    assert masks[second].tolist() == [[True, alive]]


# --- later steps


OBJECTIVES = {
    "flow_matching": FlowMatching(),
    "nll": NegativeLogLikelihood(training_solver(SolveSpec(method="rk4", steps=2))),
}


def retrain(flow, settings, hooks=None):
    rows = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = OBJECTIVES[settings["objective"]]
    train(flow, objective, rows, TrainSpec.model_validate(settings), seed=0, purpose="test", hooks=hooks)


def exactly_zero(flow, masks):
    return not any(flow.get_parameter(name)[~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "adam", "weight_decay": 0.1},
        {"optimiser": "adamw", "weight_decay": 0.1, "clip": 0.1},
        {"optimiser": "sgd", "schedule": "one_cycle"},
        {"ema": 0.9},
        {"ema": 0.9, "select": "best_val"},
    ],
)
@pytest.mark.parametrize("objective", ["flow_matching", "nll"])
def test_masked_entries_stay_exactly_zero_through_retraining(settings, objective):
    dense = make_flow((8, 8), time="concat_squash")
    flow, masks = pruned(dense, count_params(dense) // 4)
    zero = []  # at every step, in the average, and in what is reported at the end

    def after_step(flow):
        masks.apply_(flow)
        zero.append(exactly_zero(flow, masks))

    def validate(candidate):
        zero.append(exactly_zero(candidate, masks))
        return -float(len(zero))  # always the best so far

    steps = 25 if objective == "flow_matching" else 5
    changes = {"objective": objective, "steps": steps, "batch": 16, "lr": 0.01} | settings
    before = copy.deepcopy(flow)
    retrain(flow, changes, Hooks(after_step=after_step, validate=validate))
    assert len(zero) >= steps
    assert all(zero)
    assert exactly_zero(flow, masks)
    assert (velocities(flow) - velocities(before)).abs().max() > 1e-4  # it was trained
    retrain(flow, changes | {"steps": 1})  # and the masks had work to do: without them the weights come back
    assert not exactly_zero(flow, masks)
