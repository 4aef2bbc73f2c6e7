"""Every criterion against its loop-written twin."""

import pytest
import torch
from scipy import stats
from support import naive_criteria as naive

from sparseflows.pruning.observing.statistics import Statistics
from sparseflows.pruning.scoring import criteria as scores
from sparseflows.pruning.scoring.criteria.formulas import random_neurons, random_weights

LAYERS = pytest.mark.parametrize(
    ("seed", "per_neuron", "values"), [(0, 1, 4), (1, 1, 2), (2, 2, 4), (3, 3, 1), (4, 2, 3)]
)


def assert_equal(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@LAYERS
def test_scores_of_weights(seed, per_neuron, values):
    weight, observed = naive.make_layer(seed, per_neuron=per_neuron, values=values)
    known = Statistics.of(weight, observed, per_neuron)
    assert_equal(scores.magnitude(weight), [[abs(w) for w in row] for row in weight.tolist()])
    assert_equal(scores.snip(weight, known.mean_gradient), naive.snip(weight, observed))
    assert_equal(
        scores.fisher_weights(weight, known.squared_gradients, known.examples), naive.fisher_weights(weight, observed)
    )
    assert_equal(scores.sipp(known.shares), naive.shares(weight, naive.points_of(observed)))


@LAYERS
def test_scores_of_neurons(seed, per_neuron, values):
    weight, observed = naive.make_layer(seed, per_neuron=per_neuron, values=values)
    known = Statistics.of(weight, observed, per_neuron)
    assert_equal(scores.neuron_l1(weight), naive.norms(weight, 1))
    assert_equal(scores.neuron_l2(weight), naive.norms(weight, 2))
    shares = naive.shares(weight, naive.points_of(observed), per_neuron)
    assert_equal(scores.pfp(known.neuron_shares), [max(row[j] for row in shares) for j in range(len(shares[0]))])
    assert_equal(scores.fisher_neurons(known.contributions), naive.fisher_neurons(weight, observed, per_neuron))
    assert_equal(scores.taylor(known.contributions), naive.taylor(weight, observed, per_neuron))


def test_norms_of_kernels_are_those_of_the_matrix():
    kernel = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(scores.neuron_l1(kernel), scores.neuron_l1(kernel.flatten(1)))
    assert torch.equal(scores.neuron_l2(kernel), scores.neuron_l2(kernel.flatten(1)))


def test_scores_carry_no_gradients():
    weight, observed = naive.make_layer(0)
    known = Statistics.of(weight, observed)
    weight.requires_grad_()
    found = [
        scores.magnitude(weight),
        scores.snip(weight, known.mean_gradient),
        scores.fisher_weights(weight, known.squared_gradients, known.examples),
        scores.neuron_l1(weight),
        scores.neuron_l2(weight),
    ]
    assert not any(score.requires_grad for score in found)


def test_random_scores_are_uniform_and_belong_to_their_generator():
    weight = torch.zeros(50, 40)
    first = random_weights(weight, torch.Generator().manual_seed(1))
    assert first.shape == (50, 40)
    assert torch.equal(first, random_weights(weight, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, random_weights(weight, torch.Generator().manual_seed(2)))
    assert random_neurons(weight, torch.Generator().manual_seed(1)).shape == (50,)
    assert stats.kstest(first.flatten().numpy(), "uniform").pvalue > 1e-3  # a fixed seed: no chance of a false alarm
