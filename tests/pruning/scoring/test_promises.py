"""What sipp and pfp promise on whole networks: kept on the sample, checked on fresh rows, said layer by layer."""

import copy

import pytest
import torch
from support.naive_pruning import make_flow, points

from sparseflows.errors import InputError
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import METHODS, prune, unpruned
from sparseflows.pruning.observing.observe import Sample, observe
from sparseflows.pruning.scoring.bounds import FRESH, observed_error, promise_of
from sparseflows.pruning.scoring.criteria.sipp import Sipp

PROMISING = [name for name, method in METHODS.items() if method.criterion in ("sipp", "pfp")]
SAMPLE = Sample(points(rows=24), fresh=points(rows=200, seed=5))


def test_which_methods_promise():
    assert sorted(PROMISING) == [
        *("pfp", "pfp_randomised", "pfp_top_random"),
        *("sipp", "sipp_hybrid", "sipp_randomised"),
    ]


@pytest.mark.parametrize("method", PROMISING)
@pytest.mark.parametrize("keep", [0.8, 0.4])
def test_promises_are_kept_on_the_sample_and_on_fresh_rows(method, keep):
    dense = make_flow((16, 16), time="concat_squash", activation="tanh")
    pruned = prune(method, unpruned(dense), dense, round(keep * count_params(dense)), sample=SAMPLE, seed=3)
    # sipp looks at every weight layer, pfp at every layer that reads neurons.
    assert len(pruned.promises) == (3 if "sipp" in method else 2)
    for promise in pruned.promises:
        assert promise.kept or method in ("sipp_randomised", "sipp_hybrid", "pfp_randomised", "pfp_top_random")
        assert promise.observed <= promise.promised + 1e-9
        assert promise.mean_observed <= promise.mean_promised + 1e-9
        assert promise.fresh_kept >= 0.95
        assert promise.fresh_promised >= promise.promised - 1e-12


def test_the_observed_error_is_that_of_the_pruned_weights():
    dense = make_flow((12, 12), time="concat")
    network = copy.deepcopy(dense)
    sipp = Sipp(network, Sample(points(rows=9)), "top", 0)
    from sparseflows.pruning.graph.masks import Masks

    chosen = Masks({name: score > score.median() for name, score in sipp.scores.items()})
    sipp.settle(chosen, Masks({name: torch.zeros_like(mask) for name, mask in chosen.items()}))
    seen = observe(dense, Sample(points(rows=9)))
    for promise, statistics, (name, mask) in zip(sipp.promises, seen, chosen.items(), strict=True):
        weight = dense.get_parameter(name).detach()
        errors = observed_error(weight, weight * mask, statistics.inputs)
        assert promise.layer == name
        assert promise.observed == pytest.approx(float(errors.max()), abs=1e-12)
        assert promise.fresh_kept is None


def test_a_broken_promise_is_said():
    weight, inputs = torch.ones(1, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)
    after = weight * torch.tensor([[1.0, 0.0]])
    found = promise_of("w", weight, after, inputs, lambda wider: torch.full((1,), 0.1 * wider), inputs)
    assert not found.kept
    assert (found.promised, found.observed) == (pytest.approx(0.1), 0.5)
    assert found.fresh_promised == pytest.approx(0.1 * FRESH)
    assert found.fresh_kept == 0.0


@pytest.mark.parametrize("time", ["none", "concat", "concat_squash"])
def test_compensation_keeps_the_mean_of_what_the_next_layer_computes(time):
    """One hidden layer: its neurons' means are the dense flow's, so the mean output over the solve's inputs is kept."""
    dense = make_flow((10,), time=time)
    x = points(rows=20)
    pruned = prune("neuron_l1", unpruned(dense), dense, count_params(dense) // 2, sample=Sample(x), compensated=True)
    bare = prune("neuron_l1", unpruned(dense), dense, count_params(dense) // 2, sample=Sample(x))
    last = observe(dense, Sample(x), gradients=False)[-1]
    kept = pruned.dense_masks["blocks.0.field.layers.0.bias"]
    weight = dense.get_parameter("blocks.0.field.layers.1.weight").detach()
    wanted = last.inputs @ weight.T + dense.get_parameter("blocks.0.field.layers.1.bias").detach()
    ours = [
        last.inputs[:, kept] @ one.flow.get_parameter("blocks.0.field.layers.1.weight").detach().T
        + one.flow.get_parameter("blocks.0.field.layers.1.bias").detach()
        for one in (pruned, bare)
    ]
    assert (ours[0] - wanted).mean(0).abs().max() < 1e-12
    assert (ours[1] - wanted).mean(0).abs().max() > 1e-3


def test_compensation_needs_rows():
    dense = make_flow((6, 5))
    with pytest.raises(InputError, match="compensation of biases looks at data; give sample=Sample"):
        prune("neuron_l1", unpruned(dense), dense, 30, compensated=True)
