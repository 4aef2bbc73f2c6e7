"""One step of a cascade, by method: what comes out, and that what went in stays as it was."""

import copy
import re

import pytest
import torch
from support.arrays import rotating
from support.naive_pruning import TIMES, make_flow, points, velocities

import sparseflows
from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import AutogradField, LinearField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample
from sparseflows.specs import FlowSpec

RATIOS = (0.7, 0.5, 0.3, 0.15)
SAMPLE = Sample(points(rows=5))


def content(state):
    masks = [None if m is None else {k: v.clone() for k, v in m.items()} for m in (state.masks, state.dense_masks)]
    return copy.deepcopy(state.flow.state_dict()), *masks


def same(ours, theirs):
    return all(
        a is b or (a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a))
        for a, b in zip(ours, theirs, strict=True)
    )


def cascade(method, dense, allocation="uniform", ratios=RATIOS):
    states = [unpruned(dense)]
    for ratio in ratios:
        states.append(prune(method, states[-1], dense, round(ratio * count_params(dense)), allocation, sample=SAMPLE))
    return states


def test_an_unpruned_flow_keeps_all():
    dense = make_flow()
    state = unpruned(dense)
    assert state.flow is dense
    assert state.masks is None
    assert state.params == state.dense_masks.kept(dense) == count_params(dense)


@pytest.mark.parametrize(("method", "allocation"), rotating(METHODS, ["uniform", "global"]))
def test_the_state_that_goes_in_is_left_as_it_was(method, allocation):
    dense = make_flow((16, 16), time="concat", blocks=2, train_end_time=True)
    states = cascade(method, dense, allocation)
    whole = copy.deepcopy(dense.state_dict())
    for state in states[:-1]:
        before = content(state)
        target = state.params // 2
        first = prune(method, state, dense, target, allocation, sample=SAMPLE)
        assert same(content(state), before)
        assert all(torch.equal(tensor, whole[name]) for name, tensor in dense.state_dict().items())
        with torch.no_grad():  # nothing is shared with what came out either
            for parameter in first.flow.parameters():
                parameter.fill_(7.0)
            for mask in first.dense_masks.values():
                mask.fill_(False)
        assert same(content(state), before)
        assert prune(method, state, dense, target, allocation, sample=SAMPLE).params > 0  # and it can be done again


@pytest.mark.parametrize("method", METHODS)
def test_the_same_step_twice_gives_the_same(method):
    dense = make_flow((16, 16))
    first, second = (cascade(method, dense)[-1] for _ in range(2))
    assert same(content(first), content(second))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_dense_masks_of_a_structured_stage_say_what_is_left_of_the_dense_flow(time, allocation):
    dense = make_flow((16, 12), time=time, blocks=2, train_end_time=True)
    for state in cascade("structured", dense, allocation):
        assert state.masks is None
        state.dense_masks.check(dense)
        assert state.dense_masks.kept(dense) == count_params(state.flow) == state.params
        # No retraining in between: applied to the dense flow they make the same function.
        masked = copy.deepcopy(dense)
        state.dense_masks.apply_(masked)
        torch.testing.assert_close(velocities(masked), velocities(state.flow), rtol=1e-12, atol=1e-12)


def test_dense_masks_follow_neurons_through_retraining():
    dense = make_flow((16, 12))
    state = prune("structured", unpruned(dense), dense, count_params(dense) // 2)
    with torch.no_grad():  # as if retrained: other neurons are now the weakest
        for parameter in state.flow.parameters():
            parameter.mul_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)))
    later = prune("structured", state, dense, count_params(dense) // 5)
    assert later.dense_masks.kept(dense) == later.params
    assert all(not (later.dense_masks[name] & ~mask).any() for name, mask in state.dense_masks.items())
    # Weights of the stage before, put in the dense flow's places, and masked: the same function again.
    placed = copy.deepcopy(dense)
    with torch.no_grad():
        for name, parameter in placed.named_parameters():
            kept = state.dense_masks[name]
            parameter[kept] = state.flow.get_parameter(name).flatten()
    later.dense_masks.apply_(placed)
    torch.testing.assert_close(velocities(placed), velocities(later.flow), rtol=1e-12, atol=1e-12)


def test_masks_of_an_unstructured_stage_are_its_dense_masks():
    dense = make_flow((16, 12))
    for state in cascade("unstructured", dense)[1:]:
        assert state.masks is state.dense_masks
        assert state.params == state.masks.kept(dense)
        assert not any(state.flow.get_parameter(name)[~mask].any() for name, mask in state.masks.items())


@pytest.mark.parametrize(
    ("method", "field"), rotating(METHODS, [LinearField(torch.eye(2)), AutogradField(torch.nn.Bilinear(2, 2, 2))])
)
def test_a_field_without_linear_layers_is_refused(method, field):
    flow = Flow(field)
    with pytest.raises(InputError, match=r"block 0: the field (LinearField|Bilinear) has no Linear layer"):
        prune(method, Pruned(flow, None, Masks.full(flow)), flow, 2, sample=SAMPLE)


def test_an_unknown_method_lists_the_known_ones():
    flow = make_flow()
    message = r"unknown pruning method 'structred'; did you mean 'structured'\? \(known: fisher_neurons, "
    with pytest.raises(InputError, match=message):
        prune("structred", unpruned(flow), flow, 10)


def test_the_public_names():
    assert sparseflows.prune is prune
    assert sparseflows.Masks is Masks
    dense = make_flow()
    small = sparseflows.shrink(dense, [torch.arange(6) < 3, torch.arange(5) < 2])
    assert next(small.fields()).hidden == [3, 2]


@pytest.mark.parametrize("method", ["unstructured", "structured"])
def test_targets_that_cannot_be_reached_are_refused_with_the_nearest(method):
    dense = build_flow(FlowSpec(hidden=[16, 16], activation="tanh"), seed=0)  # 354 params
    state = unpruned(dense)
    for wrong, words in ((0, "from 1 on"), (-3, "from 1 on"), (2.5, "whole number"), (True, "whole number")):
        with pytest.raises(InputError, match=words):
            prune(method, state, dense, wrong)
    with pytest.raises(InputError, match="has 354 params; ask for fewer"):
        prune(method, state, dense, 10**6)
    with pytest.raises(InputError, match=r"the nearest is (\d+)") as caught:
        prune(method, state, dense, 1)
    nearest = int(re.search(r"nearest is (\d+)", str(caught.value))[1])
    found = prune(method, state, dense, 1, nearest=True)
    assert found.asked == 1
    assert abs(found.params - nearest) <= 8  # of weights, biases that stay
    assert sparseflows.prune_by_scores(dense, sparseflows.score("magnitude", dense), 150).asked == 150
    again = prune(method, state, dense, 150)
    assert again.asked == 150
    assert abs(again.params - 150) <= (16 + 3 if method == "structured" else 1)
