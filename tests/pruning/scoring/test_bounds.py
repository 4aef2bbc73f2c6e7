"""The promises of sipp and pfp: computed by loops, always kept on the sample, on fresh draws as often as said."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_criteria as naive

from sparseflows.pruning.observing.shares import largest_shares
from sparseflows.pruning.scoring.bounds import (
    FRESH,
    bernstein,
    log_failures,
    observed_error,
    promise_kept,
    promise_neurons_drawn,
    promise_neurons_kept,
    promise_sampled,
)
from sparseflows.pruning.scoring.criteria.pfp import pfp
from sparseflows.pruning.scoring.sampling import (
    arrivals,
    best_top,
    draw_neurons,
    hybrid,
    inclusion,
    reweighting,
    top_neurons,
)

fast = settings(max_examples=60, deadline=None, derandomize=True)
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
ROUNDING = 1e-12  # of sums of at most a thousand terms of one sign, relative to their sum


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def chosen(shape, density, seed):
    return torch.rand(shape, generator=generator(seed)) < density


# --- against loops


@pytest.mark.parametrize("seed", range(5))
def test_promises_and_errors_against_loops(seed):
    weight, observed = naive.make_layer(seed, n_in=5, per_neuron=2)
    points = naive.points_of(observed)
    shares, neurons = largest_shares(weight, as_tensor(points)), largest_shares(weight, as_tensor(points), 2)
    kept = chosen(weight.shape, 0.6, seed)
    pruned = weight * kept
    torch.testing.assert_close(
        observed_error(weight, pruned, as_tensor(points)),
        as_tensor(naive.relative_errors(weight, pruned, points)),
        **TIGHT,
    )
    torch.testing.assert_close(
        promise_kept(weight, shares, kept), as_tensor(naive.promise_kept(weight, shares, kept)), **TIGHT
    )
    larger = (3 * shares).clamp(max=1)
    torch.testing.assert_close(
        promise_kept(weight, shares, kept, 3.0), as_tensor(naive.promise_kept(weight, larger, kept)), **TIGHT
    )
    p = inclusion(shares, 5.0)
    p[0] = 1.0  # for certain
    for inflation, s in ((1.0, shares), (3.0, larger)):
        torch.testing.assert_close(
            promise_sampled(weight, shares, p, inflation),
            as_tensor(naive.promise_sampled(weight, s, p, DELTA)),
            **TIGHT,
        )
    assert promise_sampled(weight, shares, p)[0] == 0
    stay = torch.tensor([True, False, True, False, True])
    lost = [min(1.0, sum(float(row[j]) for j in (1, 3))) for row in neurons]
    torch.testing.assert_close(promise_neurons_kept(neurons, stay), as_tensor(lost), **TIGHT)
    q = neurons.amax(0).clone()
    q[0] = 0
    q /= q.sum()
    torch.testing.assert_close(
        promise_neurons_drawn(neurons, q, 40.0),
        as_tensor(naive.promise_neurons_drawn(neurons, q, 40.0, DELTA)),
        **TIGHT,
    )


def test_the_bound_of_draws_in_proportion_is_that_of_the_source():
    # One neuron whose shares are the scores, S ≥ 1: 3 m ε² = S (6 + 2ε) L.
    shares = torch.tensor([[0.9, 0.5, 0.2, 0.1]], dtype=torch.float64)
    total, draws = float(shares.sum()), 57.0
    eps = float(promise_neurons_drawn(shares, shares[0] / total, draws))
    assert 3 * draws * eps**2 == pytest.approx(total * (6 + 2 * eps) * math.log(2 * 4 / 0.05), rel=1e-12)


def test_bernstein_by_hand():
    # L = 3, M = 2, V = 1: L M/3 = 2, so 2 + √(4 + 6).
    assert float(bernstein(torch.tensor(2.0), torch.tensor(1.0), 3.0)) == pytest.approx(2 + 10**0.5)
    assert log_failures(5) == pytest.approx(math.log(800))


# --- on the sample: always


@given(
    seed=st.integers(0, 10_000),
    n_in=st.integers(1, 6),
    per_neuron=st.integers(1, 3),
    zeros=st.sampled_from([0.0, 0.3, 0.9]),
    density=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]),
    one_sign=st.booleans(),
)
@fast
def test_what_is_kept_as_it_is_errs_on_the_sample_within_the_promise(seed, n_in, per_neuron, zeros, density, one_sign):
    weight, observed = naive.make_layer(seed, n_in=n_in, per_neuron=per_neuron, zeros=zeros)
    inputs = as_tensor(naive.points_of(observed))
    inputs = inputs.abs() if one_sign else inputs
    shares, neurons = largest_shares(weight, inputs), largest_shares(weight, inputs, per_neuron)
    kept, stay = chosen(weight.shape, density, seed), chosen((n_in,), density, seed + 1)
    bounds = [
        (promise_kept(weight, shares, kept), observed_error(weight, weight * kept, inputs).amax(0)),
        (
            promise_neurons_kept(neurons, stay),
            observed_error(weight, weight * stay.repeat_interleave(per_neuron), inputs).amax(0),
        ),
    ]
    for promised, observed in bounds:
        assert (observed <= promised + ROUNDING).all()
        assert ((promised >= 0) & (promised <= 1)).all()
        if density == 1:
            assert not promised.any()


def test_the_promise_is_met_exactly_by_one_input_and_weights_of_one_sign():
    weight, inputs = (
        torch.rand(4, 9, generator=generator(1)).double(),
        torch.rand(1, 9, generator=generator(2)).double(),
    )
    kept = chosen(weight.shape, 0.5, 3)
    promised = promise_kept(weight, largest_shares(weight, inputs), kept)
    torch.testing.assert_close(observed_error(weight, weight * kept, inputs)[0], promised, rtol=1e-12, atol=1e-12)


def test_random_choices_hold_on_the_sample_as_often_as_promised():
    weight, sample, _ = wide_layer(0)
    shares = largest_shares(weight, sample)
    p = inclusion(shares, 300.0)
    promised = promise_sampled(weight, shares, p)
    rng, held = generator(1), 0
    for draw in range(DRAWS):
        pruned = weight * reweighting(shares, arrivals(shares, rng) <= 300.0, 300.0)
        error = observed_error(weight, pruned, sample[draw % len(sample)].unsqueeze(0))[0]
        held += bool((error <= promised).all())
    assert held >= (1 - DELTA) * DRAWS


# --- on fresh inputs, with fresh draws

DELTA, DRAWS = 0.05, 200


def wide_layer(seed, n_out=6, n_in=1000, sample=64):
    """A layer wide enough for promises below 1: weights, a sample, and fresh inputs of the same distribution.

    The weights of the first half of the neurons are alike, those of the others very uneven.
    """
    rng = generator(seed)
    weight = torch.randn(n_out, n_in, generator=rng, dtype=torch.float64)
    weight[: n_out // 2] = weight[: n_out // 2].sign()
    weight[n_out // 2 :] = weight[n_out // 2 :] ** 7
    inputs = torch.sigmoid(torch.randn(sample + DRAWS, n_in, generator=rng, dtype=torch.float64))
    return weight, inputs[:sample], inputs[sample:]


def weights_by_rank(weight, shares):
    kept = shares >= shares.flatten().quantile(0.6)
    promised = promise_kept(weight, shares, kept, FRESH)
    return lambda rng: (kept.to(weight.dtype), promised)


def weights_at_a_threshold(weight, shares):
    promised = promise_sampled(weight, shares, inclusion(shares, 500.0), FRESH)
    return lambda rng: (reweighting(shares, arrivals(shares, rng) <= 500.0, 500.0), promised)


def budgeted(shares, rng):
    times = arrivals(shares, rng)
    kept = times <= times.flatten().kthvalue(int(0.4 * times.numel())).values
    return kept, naive.first_left_out([times], [kept])


def weights_of_a_budget(weight, shares):
    def draw(rng):
        kept, tau = budgeted(shares, rng)
        return reweighting(shares, kept, tau), promise_sampled(weight, shares, inclusion(shares, tau), FRESH)

    return draw


def weights_of_the_hybrid(weight, shares):
    def draw(rng):
        found = hybrid(weight, shares, *budgeted(shares, rng), inflation=FRESH)
        return found.factors, found.promised

    return draw


def neurons_by_rank(weight, shares):
    found = top_neurons(pfp(shares), 600)
    return lambda rng: (found.factors, found.promised(shares, FRESH))


def neurons_drawn(weight, shares):
    def draw(rng):
        found = draw_neurons(pfp(shares), 700, rng)
        return found.factors, found.promised(shares, FRESH)

    return draw


def neurons_by_rank_then_drawn(weight, shares):
    scores = pfp(shares)
    certain = best_top(scores, 700, len(weight))  # what pfp's mixed choice takes, once for all draws
    assert 10 <= certain < 700

    def draw(rng):
        found = draw_neurons(scores, 700, rng, certain)
        return found.factors, found.promised(shares, FRESH)

    return draw


def fresh_draws(variant):
    """Of each draw, the errors of all neurons and their promises: two tensors (DRAWS, n_out)."""
    weight, sample, fresh = wide_layer(4)
    if variant is neurons_drawn:
        weight = weight[:3]  # neurons that need all neurons alike
    elif variant is neurons_by_rank:
        weight = weight[:3].abs() * torch.logspace(0, -3, weight.shape[1], dtype=torch.float64)
    elif variant is neurons_by_rank_then_drawn:
        weight = weight[:3].clone()
        weight[:, :30] *= 1000  # some stand out, the others are alike
    shares, rng = largest_shares(weight, sample), generator(5)
    draw = variant(weight, shares)
    errors, promises = [], []
    for x in fresh:
        factors, promised = draw(rng)
        errors.append(observed_error(weight, weight * factors, x.unsqueeze(0))[0])
        promises.append(promised)
    return torch.stack(errors), torch.stack(promises)


VARIANTS = [
    weights_by_rank,
    weights_at_a_threshold,
    weights_of_a_budget,
    weights_of_the_hybrid,
    neurons_by_rank,
    neurons_drawn,
    neurons_by_rank_then_drawn,
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_on_fresh_draws_the_promise_holds_as_often_as_said(variant):
    errors, promises = fresh_draws(variant)
    assert len(errors) == DRAWS == 200
    held = (errors <= promises).all(1)
    assert held.sum() >= (1 - DELTA) * DRAWS
    # A promise that says something: less than everything, and not beyond all proportion to what happens.
    assert promises.mean(0).min() < 1
    assert not (errors <= promises / 40).all(1).double().mean() >= 1 - DELTA
