"""Settings → flow → tensors → flow."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.truths import normal

from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow, flow_from_tensors
from sparseflows.flow.fields import MLPField
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs import FlowSpec, Spec

# Dimension, hidden layers, blocks and the published number of trainable scalars (FFJORD's tabular flows, dense).
PUBLISHED = {
    "power": (6, [60, 60, 60], 5, 43_325),
    "gas": (8, [160, 160, 160], 5, 278_565),
    "hepmass": (21, [210, 210], 10, 546_850),
    "miniboone": (43, [860, 860], 1, 820_613),
    "bsds300": (63, [1260, 1260, 1260], 2, 6_698_666),
}


def spec_of(**changes):
    return FlowSpec.model_validate(changes)


def count(flow):
    return sum(p.numel() for p in flow.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tabular_params(name):
    dim, hidden, blocks, params = PUBLISHED[name]
    spec = spec_of(hidden=hidden, blocks=blocks, time="concat_squash", train_end_time=True, activation="softplus")
    assert spec.dense_params(dim) == params
    if params < 1_000_000:
        assert count(build_flow(spec, dim)) == params


def test_published_toy_params():
    spec = spec_of()  # 64-64-64, no time
    assert spec.dense_params(2) == 8642
    assert count(build_flow(spec)) == 8642


@given(
    dim=st.integers(1, 6),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    blocks=st.integers(1, 3),
    time=st.sampled_from(["none", "concat", "concat_squash"]),
    train_end_time=st.booleans(),
    base=st.sampled_from(["none", "gaussian"]),
)
@settings(max_examples=40, deadline=None)
def test_the_arithmetic_is_the_count(dim, hidden, blocks, time, train_end_time, base):
    spec = spec_of(hidden=hidden, blocks=blocks, time=time, train_end_time=train_end_time, base=base)
    flow = build_flow(spec, dim)
    assert spec.dense_params(dim) == count(flow)
    assert [field.hidden for field in flow.fields()] == [hidden] * blocks
    assert flow.dim == dim


def test_every_setting_reaches_the_flow():
    spec = spec_of(hidden=[5, 4], activation="softplus", time="concat", blocks=2, train_end_time=True, base="gaussian")
    whitening = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    flow = build_flow(spec, 2, whitening=whitening)
    for field in flow.fields():
        assert isinstance(field, MLPField)
        assert (field.activation, field.time, field.base, field.hidden) == ("softplus", "concat", "gaussian", [5, 4])
    assert all(block.sqrt_end_time is not None for block in flow.chain())
    assert torch.equal(flow.whitening, whitening)
    assert flow.standardiser is None


def test_the_seed_and_the_gain_decide_the_weights():
    spec, louder = spec_of(hidden=[6, 6]), spec_of(hidden=[6, 6], gain=4.0)
    before = torch.get_rng_state()
    one, again, other = (build_flow(spec, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    *inner, last = next(one.fields()).linear_layers()
    *loud, loud_last = next(build_flow(louder, seed=1).fields()).linear_layers()
    for a, b in zip(inner, loud, strict=True):
        torch.testing.assert_close(b.weight, 4 * a.weight)  # the same draws, further apart
        assert torch.equal(b.bias, a.bias)
    assert torch.equal(last.weight, loud_last.weight)


def test_a_whole_spec_will_do():
    whole = Spec.model_validate(
        {"name": "x", "data": {"name": "moons"}, "train": {"steps": 1}, "flow": {"hidden": [7]}}
    )
    one, other = build_flow(whole), build_flow(whole.flow)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("whitening", [None, torch.tensor([[2.0, 0.0], [1.0, 1.0]])])
def test_tensors_there_and_back(dtype, whitening):
    spec = spec_of(hidden=[5, 4], time="concat_squash", blocks=2, train_end_time=True)
    flow = build_flow(spec, 2, seed=3, whitening=whitening).to(dtype)
    again = flow_from_tensors(spec, flow.state_dict())
    x, solver = normal(4, 2, dtype=dtype), Solver("rk4", steps=3)
    assert torch.equal(flow.log_prob(x, solver=solver), again.log_prob(x, solver=solver))
    assert {name: t.dtype for name, t in again.state_dict().items()} == dict.fromkeys(flow.state_dict(), dtype)
    with torch.no_grad():  # a copy, not a view
        next(flow.parameters()).add_(1)
    assert not torch.equal(next(flow.parameters()), next(again.parameters()))


def test_widths_come_from_the_tensors():
    # A shrunk flow has other widths than its settings, and not the same ones in every block.
    settings_ = spec_of(hidden=[5, 4], blocks=2, time="concat_squash")
    first = build_flow(spec_of(hidden=[3, 1], time="concat_squash"), 3)
    second = build_flow(spec_of(hidden=[2, 4], time="concat_squash"), 3)
    tensors = dict(first.state_dict())
    tensors |= {name.replace("blocks.0", "blocks.1"): tensor for name, tensor in second.state_dict().items()}
    flow = flow_from_tensors(settings_, tensors)
    assert [field.hidden for field in flow.fields()] == [[3, 1], [2, 4]]
    assert flow.dim == 3
    x, solver = normal(4, 3, dtype=torch.float32), Solver("rk4", steps=3)
    expected = second.to_noise(first.to_noise(x, solver=solver), solver=solver)
    assert torch.equal(flow.to_noise(x, solver=solver), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": 1},
        {"blocks": 3},
        {"hidden": [5]},
        {"hidden": [5, 4, 3]},
        {"time": "none"},
        {"time": "concat_squash"},
        {"train_end_time": False},
    ],
)
def test_tensors_of_another_flow_are_refused(changes):
    own = {"hidden": [5, 4], "blocks": 2, "time": "concat", "train_end_time": True}
    tensors = build_flow(spec_of(**own)).state_dict()
    with pytest.raises(InputError, match="do not belong to a flow of these settings") as caught:
        flow_from_tensors(spec_of(**own | changes), tensors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "reshaped", "empty"])
def test_damaged_tensors_are_refused(damage):
    spec = spec_of(hidden=[5, 4])
    tensors = dict(build_flow(spec).state_dict())
    name = "blocks.0.field.layers.1.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "reshaped":
        tensors[name] = tensors[name].T.contiguous()
    else:
        tensors = {}
    with pytest.raises(InputError, match="do not belong to a flow of these settings") as caught:
        flow_from_tensors(spec, tensors)
    assert "\n" not in str(caught.value)
