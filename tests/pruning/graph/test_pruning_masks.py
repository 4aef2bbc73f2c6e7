"""Masks as objects: applied, counted, saved, loaded, refused; and what belongs to a neuron."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.naive_pruning import TIMES, make_flow, velocities

from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.groups import count_params, hidden_layers, vector_names, weight_names
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons, neurons_of_masks
from sparseflows.specs import FlowSpec


def random_masks(flow, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Masks({name: torch.rand(p.shape, generator=generator) < 0.5 for name, p in flow.named_parameters()})


def same(ours, theirs):
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def refusal(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- applying and counting


@pytest.mark.parametrize("time", TIMES)
def test_masked_entries_become_exactly_zero_and_the_others_stay(time):
    flow = make_flow(time=time, blocks=2, train_end_time=True)
    before, masks = copy.deepcopy(flow), random_masks(flow)
    masks.apply_(flow)
    for name, parameter in flow.named_parameters():
        assert torch.equal(parameter, torch.where(masks[name], before.get_parameter(name), 0.0))
    assert masks.kept(flow) == sum(int(mask.sum()) for mask in masks.values())


def test_names_left_out_are_kept_whole():
    flow = make_flow((6, 5))
    masks = Masks({"blocks.0.field.layers.1.weight": torch.zeros(5, 6)})  # numbers become bools
    assert masks["blocks.0.field.layers.1.weight"].dtype == torch.bool
    assert masks.kept(flow) == count_params(flow) - 30
    before = copy.deepcopy(flow.state_dict())
    masks.apply_(flow)
    changed = [name for name, tensor in flow.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["blocks.0.field.layers.1.weight"]
    assert Masks({}).kept(flow) == count_params(flow)


def test_infinite_and_nan_entries_are_masked_too():
    flow = make_flow((6, 5))
    with torch.no_grad():
        flow.get_parameter("blocks.0.field.layers.0.bias").fill_(float("nan"))
    Masks({"blocks.0.field.layers.0.bias": torch.zeros(6)}).apply_(flow)
    assert flow.get_parameter("blocks.0.field.layers.0.bias").tolist() == [0.0] * 6


def test_full_masks_keep_everything():
    flow = make_flow(blocks=2, train_end_time=True)
    masks = Masks.full(flow)
    assert set(masks) == {name for name, _ in flow.named_parameters()}
    assert len(masks) == len(list(flow.parameters()))
    assert masks.kept(flow) == count_params(flow) == sum(p.numel() for p in flow.parameters())
    before = velocities(flow)
    masks.apply_(flow)
    assert torch.equal(velocities(flow), before)


# --- another flow


def test_masks_go_on_any_flow_of_the_architecture():
    masks = random_masks(make_flow(seed=0))
    other = make_flow(seed=1)
    masks.apply_(other)
    assert masks.kept(other) == masks.kept(make_flow(seed=0))
    assert not any(other.get_parameter(name)[~mask].any() for name, mask in masks.items())


@pytest.mark.parametrize("method", ["check", "apply_", "kept"])
def test_another_architecture_is_refused_by_name(method):
    masks = random_masks(make_flow((6, 5)))
    use = getattr(masks, method)
    wider = make_flow((6, 7))
    before = copy.deepcopy(wider.state_dict())
    assert "'blocks.0.field.layers.1.weight' has shape (5, 6); the network's is (7, 6)" in refusal(use, wider)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())
    two_blocks = random_masks(make_flow((6, 5), blocks=2))
    message = refusal(getattr(two_blocks, method), make_flow((6, 5)))
    assert "the masks name 'blocks.1.field.layers.0.weight', which this network does not have" in message
    assert "time_bias" in refusal(getattr(random_masks(make_flow(time="concat")), method), make_flow())


# --- files


def test_save_and_load(tmp_path):
    masks = random_masks(make_flow(blocks=2, time="concat_squash", train_end_time=True))
    masks.save(tmp_path / "masks.safetensors")
    loaded = Masks.load(str(tmp_path / "masks.safetensors"))
    assert same(loaded, masks)
    assert {mask.dtype for mask in loaded.values()} == {torch.bool}
    Masks({"w": torch.ones(3, 4, dtype=torch.bool)[:, ::2]}).save(tmp_path / "views.safetensors")
    assert Masks.load(tmp_path / "views.safetensors")["w"].shape == (3, 2)


@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff" * 100])
def test_a_file_that_holds_no_masks_is_named(tmp_path, content):
    path = tmp_path / "masks.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert refusal(Masks.load, path).startswith(f"{path}: not readable as masks (")


def test_a_cut_off_file_is_named(tmp_path):
    path = tmp_path / "masks.safetensors"
    random_masks(make_flow()).save(path)
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in refusal(Masks.load, path)


# --- neurons


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_masks_of_neurons_and_back(keep):
    flow = make_flow((5, 5), blocks=2, time="concat_squash")
    keep = [torch.tensor(kept) for kept in keep]
    masks = masks_of_neurons(flow, keep)
    assert [kept.tolist() for kept in neurons_of_masks(flow, masks)] == [kept.tolist() for kept in keep]


def test_all_that_belongs_to_a_neuron_is_masked_and_nothing_else():
    flow = make_flow((3, 4), time="concat_squash")
    masks = masks_of_neurons(flow, [torch.tensor([True, False, True]), torch.ones(4, dtype=torch.bool)])
    gone = {name: (~mask).nonzero().tolist() for name, mask in masks.items() if not mask.all()}
    own = ("bias", "gate_weight", "gate_bias", "time_bias")
    assert gone == {f"blocks.0.field.layers.0.{name}": [[1]] for name in own} | {
        "blocks.0.field.layers.0.weight": [[1, 0], [1, 1]],
        "blocks.0.field.layers.1.weight": [[0, 1], [1, 1], [2, 1], [3, 1]],
    }


def test_masks_without_biases_keep_all_neurons():
    flow = make_flow((3, 4))
    assert [kept.tolist() for kept in neurons_of_masks(flow, Masks({}))] == [[True] * 3, [True] * 4]
    assert "which this network does not have" in refusal(neurons_of_masks, flow, Masks({"w": torch.ones(2)}))


def test_neurons_of_masks_are_the_callers_own():
    flow = make_flow((3, 4))
    masks = Masks.full(flow)
    neurons_of_masks(flow, masks)[0].fill_(False)
    assert all(mask.all() for mask in masks.values())


# --- groups


@pytest.mark.parametrize(
    ("time", "first", "later"),
    [
        ("none", ["bias"], ["bias"]),
        ("concat", ["bias", "time_bias"], ["bias"]),
        ("concat_squash", ["bias", "gate_weight", "gate_bias", "time_bias"], None),
    ],
)
def test_vectors_of_a_neuron(time, first, later):
    layers = next(make_flow((6, 5), time=time).fields()).linear_layers()
    assert [vector_names(layer) for layer in layers] == [first, later or first, later or first]


def test_hidden_layers_and_weights_by_name():
    flow = make_flow((6, 5), blocks=2)
    found = hidden_layers(flow)
    names = [f"blocks.{block}.field.layers.{index}" for block in (0, 1) for index in (0, 1)]
    assert [(x.name, x.size) for x in found] == list(zip(names, (6, 5, 6, 5), strict=True))
    assert found[2].name == "blocks.1.field.layers.0"
    assert found[2].next_link.name == "blocks.1.field.layers.1"
    assert found[2].rows == ("blocks.1.field.layers.0.weight", "blocks.1.field.layers.0.bias")
    assert weight_names(flow) == [name for name, p in flow.named_parameters() if p.ndim == 2]


def test_a_field_without_known_layers_is_refused_by_name():
    linear = LinearField(torch.eye(2))
    flow = Flow([MLPField(2, [3]), linear])
    for function in (hidden_layers, weight_names):
        assert "block 1: the field LinearField has no Linear layer; pruning follows" in refusal(function, flow)
    assert count_params(Flow(linear)) == 4


def test_held_masks_let_no_gradient_through() -> None:
    flow = build_flow(FlowSpec(hidden=[5, 4]), 2, seed=0).double()
    masks = Masks({name: torch.arange(p.numel()).view_as(p) % 2 == 0 for name, p in flow.named_parameters()})
    points = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow.log_prob(points).sum().backward()
    free = {name: p.grad.clone() for name, p in flow.named_parameters()}
    flow.zero_grad()
    masks.hold_(flow)
    flow.log_prob(points).sum().backward()
    for name, parameter in flow.named_parameters():
        assert torch.equal(parameter.grad, free[name] * masks[name])
    with pytest.raises(InputError):
        masks.hold_(build_flow(FlowSpec(hidden=[5, 5]), 2, seed=0))


def test_a_keeper_sets_what_is_masked_to_zero_again_and_again() -> None:
    flow = build_flow(FlowSpec(hidden=[5, 4]), 2, seed=0)
    masks = Masks({name: torch.arange(p.numel()).view_as(p) % 3 != 0 for name, p in flow.named_parameters()})
    keep = masks.keeper(flow)
    for _ in range(2):
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.data = torch.ones_like(parameter)  # as a training does, which moves them into one vector
        keep(flow)
        assert all(torch.equal(p, masks[name].float()) for name, p in flow.named_parameters())
    with pytest.raises(InputError):
        masks.keeper(build_flow(FlowSpec(hidden=[5, 5]), 2, seed=0))
