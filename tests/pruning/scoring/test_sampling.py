"""Random choices: nested, unbiased, in proportion; and the budgets of pfp against trying and against hand."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_criteria as naive

from sparseflows.errors import InputError
from sparseflows.pruning.scoring.allocation import rank_globally
from sparseflows.pruning.scoring.bounds import promise_kept, promise_sampled
from sparseflows.pruning.scoring.neuron_budget import allocate_neurons, draws_for, expected_distinct, samples_per_layer
from sparseflows.pruning.scoring.sampling import (
    arrivals,
    best_top,
    draw_neurons,
    hybrid,
    inclusion,
    reweighting,
    top_neurons,
)

fast = settings(max_examples=30, deadline=None, derandomize=True)
scores_of_a_layer = st.lists(st.sampled_from([0.0, 1e-12, 0.01, 0.3, 0.3, 1.0]), min_size=1, max_size=8).map(
    lambda xs: torch.tensor(xs, dtype=torch.float64)
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_mean(draws, expected, errors=5.0):
    """The mean over the first axis is `expected` within so many standard errors (seeded: no false alarm later)."""
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - expected).abs() <= errors * error + 1e-12).all()


# --- weights


def test_arrivals_are_exponential_at_the_rate_of_the_share():
    shares = torch.tensor([1.0, 0.1, 0.02, 0.0], dtype=torch.float32).expand(20_000, 4)
    times = arrivals(shares, generator())
    assert times.dtype == torch.float64
    assert times[:, 3].isinf().all()
    for tau in (0.5, 5.0, 40.0):
        chances = inclusion(shares[0], tau)
        assert chances.tolist() == pytest.approx([1 - math.exp(-tau * s) for s in (1, 0.1, 0.02, 0)], rel=1e-6)
        assert_mean((times <= tau).double(), chances)
    both = (times[:, 0] <= 0.5) & (times[:, 1] <= 5.0)  # independent
    assert_mean(both.double(), inclusion(shares[0], 0.5)[0] * inclusion(shares[0], 5.0)[1])


def test_prefixes_of_the_ranking_are_the_choices_at_falling_thresholds():
    layers = [torch.rand(6, 5, generator=generator(1)), torch.rand(3, 6, generator=generator(2))]
    layers[0][2:4] = 0
    times = [arrivals(layer, generator(3 + i)) for i, layer in enumerate(layers)]
    scores = [-time for time in times]
    flat, order = torch.cat([t.flatten() for t in times]), rank_globally(scores)
    scored = int(flat.isfinite().sum())
    assert scored == 38
    assert flat[order[scored:]].isinf().all()  # what has no share is last
    for size in range(scored):
        kept = torch.zeros(len(flat), dtype=torch.bool)
        kept[order[:size]] = True
        tau = naive.first_left_out([flat], [kept])
        assert torch.equal(kept, flat < tau)
        assert (flat <= tau).sum() == size + 1


def test_reweighting_at_a_fixed_threshold_is_unbiased():
    shares = torch.tensor([1.0, 0.3, 0.1, 0.02, 0.3], dtype=torch.float64).expand(20_000, 5)
    kept = arrivals(shares, generator()) <= 4.0
    kept[:, 4] = True
    certain = torch.tensor([False] * 4 + [True]).expand_as(kept)
    factors = reweighting(shares, kept, 4.0, certain)
    assert_mean(factors, torch.ones(5, dtype=torch.float64))
    assert (factors[:, 4] == 1).all()
    assert torch.equal(factors > 0, kept)
    # The variance of an inverse-probability estimate: (1 − p)/p.
    p = inclusion(shares[0], 4.0, certain[0])
    assert ((factors[:, :4].var(0) / ((1 - p) / p)[:4] - 1).abs() < 0.1).all()


def test_reweighting_at_a_fixed_number_is_unbiased_with_the_first_arrival_left_out():
    shares = torch.tensor([1.0, 0.5, 0.3, 0.1, 0.05], dtype=torch.float64)
    factors, biased = [], []
    rng = generator(5)
    for _ in range(1000):
        times = arrivals(shares, rng)
        kept = times <= times.kthvalue(3).values
        factors.append(reweighting(shares, kept, naive.first_left_out([times], [kept])))
        biased.append(reweighting(shares, kept, float(times[kept].max())))
    assert_mean(torch.stack(factors), torch.ones(5, dtype=torch.float64))
    with pytest.raises(AssertionError):  # the last arrival kept is not the threshold
        assert_mean(torch.stack(biased), torch.ones(5, dtype=torch.float64))


def test_reweighting_where_everything_or_something_without_a_share_is_kept():
    shares = torch.tensor([0.4, 0.0, 0.2], dtype=torch.float32)
    everything = torch.ones(3, dtype=torch.bool)
    assert reweighting(shares, everything, math.inf).tolist() == [1, 1, 1]
    factors = reweighting(shares, torch.tensor([True, True, False]), 2.0)
    assert factors.dtype == torch.float32
    assert factors.tolist() == pytest.approx([1 / (1 - math.exp(-0.8)), 1, 0])


@pytest.mark.parametrize("inflation", [1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_hybrid_takes_the_smaller_promise_at_equal_numbers(seed, inflation):
    rng = generator(seed)
    weight = torch.randn(8, 400, generator=rng, dtype=torch.float64)
    weight[:4] = weight[:4].sign()  # all alike: better left to chance
    weight[4:] = weight[4:] ** 7  # a few large weights: better kept by rank
    shares = 2 * weight.abs() / weight.abs().sum(1, True)
    shares *= 1 + 0.01 * torch.rand(weight.shape, generator=rng, dtype=torch.float64)
    times = arrivals(shares, rng)
    tau = 0.5 / float(shares[:4].median())
    certain = torch.zeros(weight.shape, dtype=torch.bool)
    certain[:, -1] = True
    kept = (times <= tau) | certain
    found = hybrid(weight, shares, kept, tau, certain, inflation=inflation)
    assert torch.equal(found.kept.sum(1), kept.sum(1))
    assert torch.equal(found.factors > 0, found.kept)
    assert found.kept[:, -1].all()
    drawn = promise_sampled(weight, shares, inclusion(shares, tau, certain), inflation=inflation)
    by_rank = []
    for neuron in range(8):
        order = sorted(range(399), key=lambda j: -float(shares[neuron, j]))[: int(kept[neuron].sum()) - 1]
        own = torch.zeros(400, dtype=torch.bool)
        own[[*order, 399]] = True
        by_rank.append(own)
        promised = promise_kept(weight[neuron : neuron + 1], shares[neuron : neuron + 1], own, inflation)
        if drawn[neuron] < promised:
            assert torch.equal(found.kept[neuron], kept[neuron])
            assert torch.equal(found.factors[neuron], reweighting(shares, kept, tau, certain)[neuron])
        else:
            assert torch.equal(found.kept[neuron], own)
            assert torch.equal(found.factors[neuron], own.double())
        assert found.promised[neuron] == pytest.approx(min(float(drawn[neuron]), float(promised)), rel=1e-12)
    random_rows = (found.factors > 1).any(1)
    assert random_rows.tolist() == [True] * 4 + [False] * 4


# --- neurons


def test_draws_per_layer_by_hand():
    # 3 · (6 + 1) · 2 · 2 · 3 · log(8 · 2 · 1 / 0.05) / 0.25 = 1008 · log 320 = 5814.51…
    # 3 · (6 + 1) · 0.5 · 2 · 3 · log(8 · 65 · 9 / 0.05) / 0.25 = 252 · log 93600 = 2884.46…
    assert samples_per_layer([2.0, 0.5], 0.5, [1, 64], [1, 9]) == [5815, 2885]
    # 3 · 8 · 1 · 6 · log(16 / 0.05) = 144 · log 320 = 830.63…
    assert samples_per_layer([1.0], 1.0, [1], [1]) == [831]
    assert samples_per_layer([0.0], 1.0, [1], [1]) == [0]


def test_expected_distinct_against_all_outcomes_and_its_inverse():
    scores = torch.tensor([5.0, 3.0, 2.0, 0.0], dtype=torch.float64)
    q = [0.5, 0.3, 0.2, 0.0]
    for m in range(1, 6):
        outcomes = itertools.product(range(4), repeat=m)
        mean = sum(len(set(outcome)) * math.prod(q[j] for j in outcome) for outcome in outcomes)
        assert expected_distinct(scores, m) == pytest.approx(mean, rel=1e-12)
        assert draws_for(scores, 1) == pytest.approx(1, rel=1e-12)
    assert expected_distinct(scores, draws_for(scores, 2)) == pytest.approx(2, rel=1e-10)
    assert draws_for(scores, 3) == draws_for(scores, 4) == math.inf
    assert expected_distinct(torch.zeros(3), 5) == 0
    assert expected_distinct(torch.tensor([0.0, 2.0]), 5) == 1


@pytest.mark.parametrize("power", [0, 1, 5, 30])
def test_the_inverse_holds_for_uneven_scores_too(power):
    scores = torch.rand(300, generator=generator(power), dtype=torch.float64) ** power
    for wanted in (1, 2, 37, 150, 299):
        assert expected_distinct(scores, draws_for(scores, wanted)) == pytest.approx(wanted, rel=1e-9)


@given(scores_of_a_layer, st.integers(1, 8), st.integers(0, 8), st.integers(0, 1000))
@fast
def test_exactly_the_wanted_number_of_neurons_is_kept(scores, count, certain, seed):
    count = min(count, len(scores))
    certain = min(certain, count)
    found = draw_neurons(scores, count, generator(seed), certain)
    best = top_neurons(scores, count)
    for drawn in (found, best):
        assert int(drawn.kept.sum()) == count
        assert torch.equal(drawn.factors > 0, drawn.kept)
    assert scores[best.kept].min() >= scores[~best.kept].max() if count < len(scores) else best.kept.all()
    if certain:
        by_rank = top_neurons(scores, certain).kept
        assert (found.factors[by_rank] == 1).all()
        assert (found.probabilities[by_rank] == 0).all()
    scored = int((scores > 0).sum())
    assert int((found.kept & (scores > 0)).sum()) == min(count, scored)  # what has no score comes last
    if found.draws:
        assert float(found.probabilities.sum()) == pytest.approx(1, rel=1e-12)
        repeats = found.factors * found.probabilities * found.draws
        assert float(repeats.sum()) == pytest.approx(found.draws, rel=1e-9)
        torch.testing.assert_close(repeats, repeats.round(), rtol=1e-9, atol=1e-9)  # whole numbers of draws
    else:
        assert count >= scored or count == certain


def test_drawn_neurons_are_unbiased_and_follow_the_draws_one_by_one():
    scores = torch.tensor([4.0, 3.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    rng, own = generator(2), random.Random(0)
    found = [draw_neurons(scores, 3, rng) for _ in range(1000)]
    one_by_one = []
    for _ in range(1000):
        drawn: list[int] = []
        while True:
            neuron = own.choices(range(5), scores.tolist())[0]
            if len({*drawn, neuron}) > 3:
                break
            drawn.append(neuron)
        one_by_one.append(drawn)
    factors = torch.stack([f.factors for f in found])
    assert_mean(factors, torch.ones(5, dtype=torch.float64))
    naive_kept = torch.tensor([[float(j in drawn) for j in range(5)] for drawn in one_by_one], dtype=torch.float64)
    kept = torch.stack([f.kept for f in found]).double()
    assert_mean(kept - naive_kept, torch.zeros(5, dtype=torch.float64))
    numbers = torch.tensor([[f.draws, len(d)] for f, d in zip(found, one_by_one, strict=True)], dtype=torch.float64)
    assert_mean(numbers[:, 0] - numbers[:, 1], 0.0)
    naive_factors = torch.tensor(
        [[d.count(j) / len(d) / float(scores[j] / scores.sum()) for j in range(5)] for d in one_by_one],
        dtype=torch.float64,
    )
    assert_mean(factors.square() - naive_factors.square(), torch.zeros(5, dtype=torch.float64))


def test_neurons_kept_by_rank_leave_the_rest_unbiased():
    scores = torch.tensor([4.0, 0.2, 1.0, 0.5, 3.0], dtype=torch.float64)
    rng = generator(3)
    factors = torch.stack([draw_neurons(scores, 3, rng, 2).factors for _ in range(1000)])
    assert_mean(factors, torch.ones(5, dtype=torch.float64))
    assert (factors[:, [0, 4]] == 1).all()


def test_tiny_scores_cost_no_time():
    scores = torch.tensor([1.0, 1e-13, 1e-200, 1e-300], dtype=torch.float64)
    found = draw_neurons(scores, 2, generator(0))
    assert found.kept.tolist() == [True, True, False, False]
    assert found.factors[0] == pytest.approx(1, rel=1e-6)
    assert found.draws > 1e15


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [1, 40, 100, 120])
def test_the_neurons_kept_by_rank_are_the_number_of_smallest_promise(seed, count):
    # Few neurons stand out, the others are equally small: the case where both ways have something to give.
    scores = 0.0005 * (1 + torch.rand(120, generator=generator(seed), dtype=torch.float64))
    scores[torch.randperm(120, generator=generator(seed))[:10]] = 0.5
    log_term = math.log(2 * 4 * 6 / 0.05)
    ordered = sorted(scores.tolist(), reverse=True)
    promises = []
    for k in range(count + 1):
        rest = ordered[k:]
        total = sum(rest)
        if k == count:
            promises.append(min(1.0, total))
        elif count == 120:
            promises.append(0.0)
        else:
            low, high = 1.0, 1e9
            for _ in range(60):
                m = math.sqrt(low * high)
                distinct = sum(1 - (1 - s / total) ** m for s in rest)
                low, high = (m, high) if distinct < count - k else (low, m)
            promises.append(naive.root(total / m, total * min(1.0, total) / m, log_term))
    found = best_top(scores, count, neurons=6)
    assert promises[found] <= min(promises) * (1 + 1e-9)
    drawn = draw_neurons(scores, count, generator(seed), found)
    assert (drawn.factors[top_neurons(scores, found).kept if found else []] == 1).all()
    assert int(drawn.kept.sum()) == count


@pytest.mark.parametrize("count", [0, 6])
def test_more_or_fewer_neurons_than_there_are_are_refused(count):
    scores = torch.rand(5)
    for refused in (lambda: draw_neurons(scores, count, generator()), lambda: top_neurons(scores, count)):
        with pytest.raises(InputError, match=f"{count} of 5 neurons to be kept"):
            refused()
    with pytest.raises(InputError, match="3 of 2 neurons to be kept by rank"):
        draw_neurons(scores, 2, generator(), 3)


# --- the budget of neurons


def params(kept, inputs=3, outputs=2):
    """Of a chain of linear layers with so many hidden neurons."""
    sizes = [inputs, *kept, outputs]
    return sum((n + 1) * m for n, m in itertools.pairwise(sizes))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.95])
def test_neurons_are_shared_out_by_one_error_for_all_layers(seed, share):
    rng = generator(seed)
    sizes = [30, 50, 20]
    scores = [torch.rand(n, generator=rng, dtype=torch.float64) ** (1 + i) for i, n in enumerate(sizes)]
    target = round(share * params(sizes))
    kept = allocate_neurons(scores, params, target, [1, 16, 1], [1, 9, 4])
    assert all(1 <= n <= size for n, size in zip(kept, sizes, strict=True))
    # Against trying many ε: no allocation of the family is nearer, and this one is between two of it.
    tried = []
    for step in range(401):
        draws = samples_per_layer([float(s.sum()) for s in scores], 10 ** (-3 + step / 40), [1, 16, 1], [1, 9, 4])
        tried.append([max(1, round(expected_distinct(s, max(1, m)))) for s, m in zip(scores, draws, strict=True)])
    assert abs(params(kept) - target) <= min(abs(params(t) - target) for t in tried)
    below = max((t for t in tried if all(a <= b for a, b in zip(t, kept, strict=True))), key=sum)
    above = min((t for t in tried if all(a >= b for a, b in zip(t, kept, strict=True))), key=sum)
    assert sum(above) - sum(below) <= 3  # neighbours in the family


def test_a_layer_of_even_scores_keeps_more_than_one_of_uneven_scores():
    even, uneven = torch.ones(40, dtype=torch.float64), torch.logspace(0, -4, 40, dtype=torch.float64)
    kept = allocate_neurons([even, uneven], params, params([40, 40]) // 2)
    assert kept[0] > kept[1] + 5


def test_one_neuron_a_layer_at_least_and_neurons_without_a_score_at_last():
    scores = [torch.tensor([1.0, 0, 0, 0]), torch.zeros(5), torch.tensor([0.5, 0.5, 0, 0])]
    assert allocate_neurons(scores, params, 0) == [1, 1, 1]
    assert allocate_neurons(scores, params, params([1, 1, 2])) == [1, 1, 2]
    assert allocate_neurons(scores, params, 10**9) == [4, 5, 4]
    some = allocate_neurons(scores, params, params([3, 3, 3]))
    assert abs(params(some) - params([3, 3, 3])) <= 5
    assert some[2] >= 2


def test_of_layers_with_equal_scores_one_may_keep_a_neuron_more():
    scores = [torch.ones(10, dtype=torch.float64)] * 3
    assert sorted(allocate_neurons(scores, sum, 17)) == [5, 6, 6]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "no layers"),
        ([torch.ones(2), torch.tensor([1.0, -1.0])], "scores of layer 1"),
        ([torch.tensor([torch.nan])], "scores of layer 0"),
        ([torch.ones(0)], "scores of layer 0"),
        ([torch.ones(2, 2)], "scores of layer 0"),
    ],
)
def test_scores_that_are_none_are_refused(scores, message):
    with pytest.raises(InputError, match=message):
        allocate_neurons(scores, sum, 3)
