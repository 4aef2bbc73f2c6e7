"""One network in one file: what comes back is what was saved, and what cannot come back is refused."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.truths import normal
from torch import nn
from torch.nn.utils import parametrizations, prune

import sparseflows as sf
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.transforms.transformed import fit_transformed
from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import MLPField


def flow(**options):
    fields = [MLPField(2, hidden, "tanh", time) for hidden, time in (([9, 8], "concat"), ([6], "concat_squash"))]
    made = sf.Flow(fields, **options)
    seeded_initialise(made, 0, 2.0)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rich", [False, True])
def test_a_flow_comes_back_as_it_was(tmp_path, dtype, rich):
    options = {"train_end_time": True, "whitening": torch.tensor([[1.4, -0.3], [0.2, 0.9]])} if rich else {}
    one = flow(**options, solver=sf.Solver("bosh3", 1e-6, 1e-7)).to(dtype)
    if rich:
        one.standardiser = Standardiser(np.array([1.0, 2.0]), np.array([0.5, 4.0]))
    again = sf.load_file(sf.save(one, tmp_path / "flow.safetensors"))
    assert (again.solver, type(again), again.like().dtype) == (one.solver, sf.Flow, dtype)
    x = normal(5, 2).to(dtype)
    with torch.no_grad():
        assert torch.equal(again.log_prob(x), one.log_prob(x))
    if rich:
        np.testing.assert_array_equal(again.standardiser.scale, one.standardiser.scale)


def test_pruned_flows_and_networks_come_back_with_their_widths(tmp_path):
    one = flow()
    small = sf.prune("structured", sf.unpruned(one), one, 60).flow
    again = sf.load_file(sf.save(small, tmp_path / "a"))
    assert [f.hidden for f in again.fields()] == [f.hidden for f in small.fields()] != [f.hidden for f in one.fields()]
    network = nn.Sequential(nn.Linear(3, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 2))
    shrunk = sf.prune("structured", sf.unpruned(network), network, 40).flow
    with pytest.raises(InputError, match="into=network"):
        sf.load_file(sf.save(shrunk, tmp_path / "b"))
    found, x = sf.load_file(tmp_path / "b", into=network), normal(6, 3).float()
    assert torch.equal(found(x), shrunk.eval()(x))
    assert found[0].out_features == found[1].num_features == found[3].in_features < 20
    assert network[0].out_features == 20


def test_a_field_of_ones_own_comes_back_into_one_like_it(tmp_path):
    one, two = (sf.Flow(nn.Bilinear(1, 2, 2)) for _ in range(2))
    found = sf.load_file(sf.save(one, tmp_path / "a"), into=two)
    for mine, theirs in zip(found.parameters(), one.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("change", [lambda m: prune.l1_unstructured(m, "weight", 2), parametrizations.weight_norm])
def test_masks_and_parametrizations_are_refused(tmp_path, change):
    one = flow()
    change(one.chain()[0].field.layers[1])
    with pytest.raises(InputError, match="compact"):
        sf.save(one, tmp_path / "a")
    sf.save(one.compact(), tmp_path / "a")


@pytest.mark.parametrize("broken", ["missing", "folder", "text", "cut", "headless", "later", "tensors", "foreign"])
def test_files_that_are_none_are_refused_in_one_line(tmp_path, broken):
    file = sf.save(flow(), tmp_path / "flow")
    into = None
    if broken == "missing":
        file = tmp_path / "other"
    elif broken == "folder":
        file = tmp_path
    elif broken == "text":
        file.write_text("no tensors")
    elif broken == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    elif broken == "headless":
        save_file({"a": torch.ones(2)}, file)
    elif broken == "later":
        save_file({"a": torch.ones(2)}, file, {"sparseflows": json.dumps({"format": 99})})
    elif broken == "tensors":
        head = {"format": 1, "fields": [{"dim": 2, "hidden": [3]}], "train_end_time": False, "standardiser": None}
        document = head | {"solver": {"method": "dopri5"}, "dtype": "float32"}
        save_file({"a": torch.ones(2)}, file, {"sparseflows": json.dumps(document)})
    else:
        into = nn.Linear(2, 2)
    with pytest.raises(InputError) as caught:
        sf.load_file(file, into)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_flow_tells_what_it_is():
    assert repr(sf.Flow(MLPField(2, [64, 64], "tanh", "concat"))) == (
        "Flow(D = 2: 4,546 params; MLP 2-64-64-2, tanh, time concat; dopri5, rtol 1e-05, atol 1e-05)"
    )
    assert "2 blocks" in repr(flow())
    assert "Bilinear" in repr(sf.Flow(nn.Bilinear(1, 2, 2)))


@pytest.mark.parametrize("wrong", [{"rtol": -1}, {"atol": 0.0}, {"rtol": float("nan")}, {"max_nfe": 0}])
def test_solvers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        sf.Solver(**wrong)
    with pytest.raises(InputError, match="steps is 0"):
        sf.Solver("rk4", steps=0)


def test_the_maps_of_columns_come_back_and_another_standardiser_is_refused(tmp_path):
    one, rows = flow(), np.exp(np.random.default_rng(0).standard_normal((50, 2)))
    one.standardiser = fit_transformed(rows, {1: "log"}, None, "rows")
    again = sf.load_file(sf.save(one, tmp_path / "a"))
    np.testing.assert_array_equal(again.standardiser.apply(rows), one.standardiser.apply(rows))
    one.standardiser = object()
    with pytest.raises(InputError, match="standardiser is a object"):
        sf.save(one, tmp_path / "b")


def test_a_file_with_one_bit_turned_is_refused_wherever_it_was(tmp_path):
    good = sf.save(flow(solver=sf.Solver("bosh3", 1e-6, 1e-7)), tmp_path / "a").read_bytes()
    for place in (len(good) - 3, len(good) // 2, good.index(b"1e-06"), good.index(b"tanh")):
        broken = bytearray(good)
        broken[place] ^= 1
        (tmp_path / "b").write_bytes(broken)
        with pytest.raises(InputError):
            sf.load_file(tmp_path / "b")


def test_a_file_of_before_there_was_a_digest_is_read(tmp_path):
    one = flow()
    with safe_open(sf.save(one, tmp_path / "a"), framework="pt") as opened:
        head = json.loads(opened.metadata()["sparseflows"])
    del head["sha256"]
    save_file(one.state_dict(), tmp_path / "b", metadata={"sparseflows": json.dumps(head)})
    assert torch.equal(sf.load_file(tmp_path / "b").log_prob(normal(3, 2).float()), one.log_prob(normal(3, 2).float()))
