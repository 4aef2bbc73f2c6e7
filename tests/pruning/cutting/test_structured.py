"""Neurons removed: the smaller flow computes what the silenced one computed, and the budget is met."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arrays import pairwise, rotating
from support.naive_pruning import ACTIVATIONS, TIMES, layers_of, make_flow, points, vectors_of, velocities

from sparseflows.errors import InputError
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.cutting.structured import choose_neurons, shrink
from sparseflows.pruning.graph.groups import count_params, hidden_layers, params_counter
from sparseflows.pruning.graph.masks import masks_of_neurons
from sparseflows.pruning.scoring.criteria.formulas import neuron_l1

WHITENING = torch.tensor([[1.5, 0.2], [0.3, 0.7]], dtype=torch.float64)
# Both flows take the same steps on a fixed grid, so that only rounding separates them.
GRID = Solver("rk4", steps=8)
ADAPTIVE = Solver("dopri5", 1e-8, 1e-8)


def silenced(flow, keep):
    masked = copy.deepcopy(flow)
    masks_of_neurons(flow, keep).apply_(masked)
    return masked


def random_keep(flow, seed):
    """About half of each layer, one neuron at least."""
    generator = torch.Generator().manual_seed(seed)
    keep = []
    for layer in hidden_layers(flow):
        kept = torch.rand(layer.size, generator=generator) < 0.5
        kept[int(torch.randint(layer.size, (), generator=generator))] = True
        keep.append(kept)
    return keep


def sizes(keep):
    return [int(kept.sum()) for kept in keep]


# --- the smaller flow


@pytest.mark.parametrize(("activation", "time"), rotating(ACTIVATIONS, TIMES, times=2))
def test_a_shrunk_flow_is_the_masked_flow(activation, time):
    # 1e-12: sums of at most 7 terms of order 1 in another order.
    for blocks, end_time, white in [(1, False, False), (1, True, True), (3, True, True), (2, False, True)]:
        flow = make_flow(
            (7, 5, 6),
            seed=blocks,
            activation=activation,
            time=time,
            blocks=blocks,
            train_end_time=end_time,
            whitening=WHITENING if white else None,
        )
        keep = random_keep(flow, seed=blocks)
        small, masked = shrink(flow, keep), silenced(flow, keep)
        assert [field.hidden for field in small.fields()] == torch.tensor(sizes(keep)).view(blocks, 3).tolist()
        torch.testing.assert_close(velocities(small), velocities(masked), rtol=1e-12, atol=1e-12)
        x = points()
        with torch.no_grad():
            torch.testing.assert_close(
                small.log_prob(x, solver=GRID), masked.log_prob(x, solver=GRID), rtol=1e-11, atol=1e-11
            )


@pytest.mark.parametrize("time", TIMES)
def test_both_have_the_same_likelihood_with_an_adaptive_solver(time):
    flow = make_flow((7, 6), seed=3, time=time, blocks=2, train_end_time=True, whitening=WHITENING)
    keep = random_keep(flow, 3)
    small, masked = shrink(flow, keep), silenced(flow, keep)
    with torch.no_grad():
        ours, theirs = (one.log_prob(points(), solver=ADAPTIVE) for one in (small, masked))
        # Rounding may move a step's size; the solves agree to their tolerance all the same.
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(small.to_data(points()), masked.to_data(points()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_zeroing_rows_alone_would_not_do(activation):
    # σ(0) is ½ and ln 2: a neuron without weights still speaks through the next layer's column.
    flow = make_flow((6, 5), activation=activation)
    keep = random_keep(flow, 0)
    rows_only = copy.deepcopy(flow)
    with torch.no_grad():
        for layer, kept in zip(hidden_layers(flow), keep, strict=True):
            for name in layer.rows:
                rows_only.get_parameter(name)[~kept] = 0.0
    assert (velocities(rows_only) - velocities(shrink(flow, keep))).abs().max() > 0.01


def test_the_rest_of_a_flow_comes_along():
    flow = make_flow((6, 5), train_end_time=True, base="gaussian", time="concat", whitening=WHITENING)
    flow.solver, flow.standardiser = GRID, object()
    before = copy.deepcopy(flow.state_dict())
    small = shrink(flow, random_keep(flow, 1))
    assert small.solver is GRID
    assert small.standardiser is flow.standardiser
    assert torch.equal(small.whitening, WHITENING)
    assert small.whitening is not flow.whitening
    assert torch.equal(small.get_parameter("blocks.0.sqrt_end_time"), flow.get_parameter("blocks.0.sqrt_end_time"))
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in small.parameters())
    assert [field.base for field in small.fields()] == ["gaussian"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())
    with torch.no_grad():  # nothing is shared
        for parameter in small.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.state_dict().items())


def test_precision_is_kept():
    assert {p.dtype for p in shrink(make_flow().float(), random_keep(make_flow(), 0)).parameters()} == {torch.float32}


def test_keeping_everything_changes_nothing():
    flow = make_flow((6, 5), blocks=2, time="concat_squash")
    small = shrink(flow, [torch.ones(n, dtype=torch.bool) for n in (6, 5, 6, 5)])
    assert all(torch.equal(tensor, flow.state_dict()[name]) for name, tensor in small.state_dict().items())


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([[True] * 6], "keep has 1 layers; the network has 2 hidden ones"),
        ([[True] * 6, [True] * 4], "blocks.0.field.layers.1 must be a bool tensor of shape (5,)"),
        ([[1] * 6, [True] * 5], "blocks.0.field.layers.0 must be a bool tensor of shape (6,)"),
        ([[False] * 6, [True] * 5], "blocks.0.field.layers.0 would lose all its neurons"),
    ],
)
def test_a_keep_that_does_not_fit_is_refused(keep, words):
    for function in (shrink, masks_of_neurons):
        with pytest.raises(InputError) as caught:
            function(make_flow((6, 5)), [torch.tensor(kept) for kept in keep])
        assert words in str(caught.value)


# --- params


@pytest.mark.parametrize(*pairwise(time=TIMES, blocks=(1, 2), end_time=(False, True)))
def test_the_counter_of_params_counts_what_shrink_leaves(time, blocks, end_time):
    for seed in range(5):
        flow = make_flow((7, 3, 5), 3, seed=seed, time=time, blocks=blocks, train_end_time=end_time)
        keep = random_keep(flow, seed)
        assert params_counter(flow)(sizes(keep)) == count_params(shrink(flow, keep))
        assert params_counter(flow)([layer.size for layer in hidden_layers(flow)]) == count_params(flow)
        assert masks_of_neurons(flow, keep).kept(flow) == params_counter(flow)(sizes(keep))


# --- which neurons go


def naive_l1(flow):
    """Score of every hidden neuron, by layer."""
    scores = []
    for prefixes in layers_of(flow):
        for prefix in prefixes[:-1]:
            weight = flow.get_parameter(f"{prefix}.weight").tolist()
            scores.append([sum(abs(w) for w in row) for row in weight])
    return scores


def naive_choice(flow, target, allocation):
    """The same by sorting, and by counting every prefix of the ranking in a flow that was really shrunk."""
    scores = naive_l1(flow)
    items = [(layer, neuron) for layer, own in enumerate(scores) for neuron in range(len(own))]
    best = [(layer, own.index(max(own))) for layer, own in enumerate(scores)]

    def place(item):
        layer, neuron = item
        if allocation == "global":
            return -scores[layer][neuron]
        better = sum(other > scores[layer][neuron] for other in scores[layer])
        return (better + 0.5) / len(scores[layer])

    order = [*best, *(item for item in sorted(items, key=place) if item not in best)]
    options = []
    for n in range(len(best), len(order) + 1):
        keep = [torch.tensor([(layer, j) in order[:n] for j in range(len(own))]) for layer, own in enumerate(scores)]
        options.append((abs(count_params(shrink(flow, keep)) - target), n, keep))
    return min(options, key=lambda option: option[:2])[2]


def test_scores_are_sums_of_absolute_weights():
    flow = make_flow((7, 3, 5), 3, blocks=2)
    for layer, expected in zip(hidden_layers(flow), naive_l1(flow), strict=True):
        score = neuron_l1(flow.get_parameter(f"{layer.name}.weight"))
        assert not score.requires_grad
        assert score.tolist() == pytest.approx(expected, rel=1e-14)


@given(
    hidden=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    dim=st.integers(1, 3),
    time=st.sampled_from(TIMES),
    blocks=st.integers(1, 2),
    allocation=st.sampled_from(["uniform", "global"]),
    share=st.floats(0.01, 1.2),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_choice_is_the_nearest_that_sorting_finds(hidden, dim, time, blocks, allocation, share, seed):
    flow = make_flow(hidden, dim, seed=seed, time=time, blocks=blocks)
    target = round(share * count_params(flow))
    keep = choose_neurons(flow, target, allocation)
    expected = naive_choice(flow, target, allocation)
    assert [kept.tolist() for kept in keep] == [kept.tolist() for kept in expected]
    assert all(kept.any() for kept in keep)


@given(
    hidden=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_uniform_keeps_the_same_share_of_every_layer(hidden, share, seed):
    flow = make_flow(hidden, seed=seed)
    keep = choose_neurons(flow, round(share * count_params(flow)), "uniform")
    # Some share s explains all layers: n of them stay where |n − s·size| ≤ 1.
    lowest = max((n - 1) / size for n, size in zip(sizes(keep), hidden, strict=True))
    highest = min((n + 1) / size for n, size in zip(sizes(keep), hidden, strict=True))
    assert lowest <= highest
    for kept, scores in zip(keep, naive_l1(flow), strict=True):  # and of every layer the best
        scores = torch.tensor(scores)
        if not kept.all():
            assert scores[kept].min() >= scores[~kept].max()


def test_global_follows_the_scores_over_all_layers():
    flow = make_flow((12, 12, 12))
    with torch.no_grad():
        flow.get_parameter("blocks.0.field.layers.1.weight").mul_(10)  # this layer is much the strongest
    keep = choose_neurons(flow, round(0.4 * count_params(flow)), "global")
    assert sizes(keep)[0] < sizes(keep)[1] > sizes(keep)[2]
    scores = torch.cat([torch.tensor(own) for own in naive_l1(flow)])
    best = torch.cat([torch.tensor(own) == max(own) for own in naive_l1(flow)])  # these stay whatever happens
    kept = torch.cat(keep)
    assert scores[kept & ~best].min() >= scores[~kept].max()
    uniform = choose_neurons(flow, round(0.4 * count_params(flow)), "uniform")
    assert max(sizes(uniform)) - min(sizes(uniform)) <= 1


def test_the_best_neuron_of_every_layer_stays():
    flow = make_flow((9, 2, 30), blocks=2)
    for allocation in ("uniform", "global"):
        keep = choose_neurons(flow, 1, allocation)
        assert sizes(keep) == [1] * 6
        assert all(own[int(kept.nonzero())] == max(own) for kept, own in zip(keep, naive_l1(flow), strict=True))


def test_equal_scores_lose_the_later_neurons():
    flow = make_flow((6,))
    with torch.no_grad():
        flow.get_parameter("blocks.0.field.layers.0.weight").fill_(1.0)
    for allocation in ("uniform", "global"):
        keep = choose_neurons(flow, params_counter(flow)([4]), allocation)
        assert keep[0].tolist() == [True] * 4 + [False] * 2


def test_an_unknown_allocation_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown allocation 'unifrom'; did you mean 'uniform'\? \(known: glob"):
        choose_neurons(make_flow(), 20, "unifrom")


def test_time_gates_leave_with_their_neuron():
    flow = make_flow((6, 5), time="concat_squash")
    owned = vectors_of(flow, "blocks.0.field.layers.0")
    assert len(owned) == 4
    small = shrink(flow, [torch.arange(6) < 2, torch.arange(5) < 3])
    assert {small.get_parameter(name).shape for name in owned} == {(2,)}
    assert small.get_parameter("blocks.0.field.layers.1.weight").shape == (3, 2)
    assert small.get_parameter("blocks.0.field.layers.2.weight").shape == (2, 3)
