"""Classifiers through the command line: a neural ODE on moons, networks on digits, and what they are refused for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from sparseflows import load
from sparseflows.data.splits import make_splits
from sparseflows.errors import InputError
from sparseflows.experiment.folder.choosing import find
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.loading import load_network
from sparseflows.flow.model import Flow

DENSITY = ("nll_val", "nll_test", "nll_test_se", "nll_train", "kl_gap", "kl_gap_se")
CROSS_ENTROPY = {"objective": "cross_entropy", "steps": 15, "batch": 64, "lr": 0.02}
PRUNE = {"keep_ratios": [0.5], "retrain": {"steps": 6}, "sample": 16}
MOONS = {
    "name": "tiny",
    "data": {"name": "moons", "n_train": 100},
    "flow": {"hidden": [8, 8], "activation": "tanh"},
    "solve": {"method": "rk4", "steps": 4},
    "train": CROSS_ENTROPY,
    "prune": {"methods": ["snip", "taylor"], "protocols": ["cascade", "one_shot"], **PRUNE},
}
DIGITS = {
    "name": "tiny",
    "data": {"name": "digits_labelled", "n_train": 300},
    "network": {"kind": "dense", "hidden": [12, 8], "batch_norm": True},
    "train": CROSS_ENTROPY | {"steps": 40},
    "prune": {
        "methods": ["magnitude", "fisher_neurons"],
        "protocols": ["cascade", "one_shot", "gradual", "rewind", "reduced", "control"],
        "gradual_every": 2,
        **PRUNE,
    },
}
CONV = DIGITS | {
    "network": {"kind": "conv", "channels": [4, 4], "hidden": [8], "batch_norm": True},
    "prune": {"methods": ["sipp", "pfp"], "protocols": ["cascade", "gradual", "scratch"], "gradual_every": 2, **PRUNE},
}
RUNS = {"moons": MOONS, "digits": DIGITS, "conv": CONV}


def write(folder, document):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, call):
    """The run folders by name. Not to be written to."""
    found = {}
    for name, document in RUNS.items():
        folder = tmp_path_factory.mktemp(name)
        said = call("run", write(folder, document), "--out", folder)
        assert said.status == 0, said.err
        found[name] = folder / "tiny"
    return found


def number_of_stages(document):
    prune = document["prune"]
    of_dense = {"reduced", "control"} & set(prune["protocols"])
    return 1 + len(of_dense) + (len(prune["protocols"]) - len(of_dense)) * len(prune["methods"])


@pytest.mark.parametrize("name", RUNS)
def test_columns_of_a_classifier(runs, rows, name):
    found = rows(runs[name])
    assert len(found) == number_of_stages(RUNS[name])
    for row in found:
        assert row["status"] == "done", row["reason"]
        assert row["objective"] == "cross_entropy"
        assert all(row[column] == "" for column in DENSITY)
        assert 0 <= float(row["accuracy_test"]) <= 1
        assert float(row["loss_test"]) > 0
        assert float(row["loss_val"]) > 0
        assert (int(row["nfe"]) > 1) == (name == "moons")
    assert int(found[0]["n_test"]) == {"moons": 50}.get(name, 180)
    if name != "moons":  # forty steps teach a network something, fifteen an ODE too little to tell
        assert float(found[0]["accuracy_test"]) > 0.1 + 0.15


@pytest.mark.parametrize("name", RUNS)
def test_check_counts_the_same(runs, rows, name, call, tmp_path):
    said = call("check", write(tmp_path, RUNS[name]), "--json")
    assert said.status == 0, said.err
    planned = json.loads(said.out)
    assert planned["stages"] == len(rows(runs[name]))
    assert {int(row["params_dense"]) for row in rows(runs[name])} == {planned["params_dense"]}


@pytest.mark.parametrize("name", RUNS)
def test_every_stage_computes_what_its_row_says(runs, rows, name):
    data = RUNS[name]["data"]
    splits = make_splits(data["name"], n_train=data["n_train"])
    points, labels = torch.from_numpy(splits.test), torch.from_numpy(splits.labels_test)
    for row in rows(runs[name]):
        cascade = "" if row["protocol"] == "cascade" or row["stage"] == "0" else f"{row['protocol']}."
        network = load_network(runs[name], f"{cascade}{row['method']}-s0/{row['stage']}").double()
        with torch.no_grad():
            found = network.to_noise(points) if isinstance(network, Flow) else network(points)
        assert float((found.argmax(1) == labels).double().mean()) == float(row["accuracy_test"])
        loss = nn.functional.cross_entropy(found, labels)
        assert float(loss) == pytest.approx(float(row["loss_test"]), abs=1e-6)  # stored in single precision
        if row["method"] not in ("magnitude", "snip", "sipp"):
            assert sum(p.numel() for p in network.parameters()) == int(row["params"])


@pytest.mark.parametrize("name", RUNS)
def test_weights_are_stored_as_they_were_trained(runs, name):
    for path in runs[name].glob("cascades/*/stages/*/model.safetensors"):
        kinds = {tensor.dtype for tensor in load_file(path).values() if tensor.is_floating_point()}
        assert kinds == {torch.float32}, path.parent


@pytest.mark.parametrize("name", RUNS)
def test_best_has_the_lowest_validation_loss(runs, rows, name):
    found = rows(runs[name])
    best = min(found, key=lambda row: float(row["loss_val"]))
    record = find(RunFolder.open(runs[name]))
    assert record.loss_val == float(best["loss_val"])
    assert (record.protocol, record.method, str(record.stage)) == (best["protocol"], best["method"], best["stage"])


@pytest.mark.parametrize("name", RUNS)
def test_a_classifier_has_no_density(runs, name, call, tmp_path):
    dim = {"moons": 2}.get(name, 64)
    np.save(tmp_path / "points.npy", np.zeros((3, dim)))
    output = tmp_path / "out.npy"
    for command in (
        ("score", runs[name], tmp_path / "points.npy", "-o", output),
        ("sample", runs[name], "-n", 5, "-o", output),
        ("map", runs[name], tmp_path / "points.npy", "--to", "noise", "-o", output),
    ):
        said = call(*command)
        assert (said.status, said.out) == (2, "")
        assert said.err.splitlines() == [
            f"sparseflows: {runs[name]}: a classifier has no density to sample from or to score; give a flow's run"
        ]
    assert not output.exists()


def test_load_and_load_network(runs):
    with pytest.raises(
        InputError, match=r"a neural ODE that classifies has no density; sparseflows.load_network gives it$"
    ):
        load(runs["moons"])
    assert isinstance(load_network(runs["moons"]), Flow)
    for name in ("digits", "conv"):
        with pytest.raises(InputError, match=r"a classifier without an ODE; sparseflows.load_network gives it$"):
            load(runs[name])
        network = load_network(runs[name], "dense-s0/0")
        assert not any(part.training for part in network.modules())
        with torch.no_grad():
            assert network(torch.zeros(2, 64)).shape == (2, 10)


def test_the_rewound_network_begins_as_the_dense_one(runs, rows):
    found = {(row["protocol"], row["method"]): row for row in rows(runs["digits"])}
    assert found["rewind", "magnitude"]["params"] == found["cascade", "magnitude"]["params"]
    assert found["rewind", "magnitude"]["train_steps"] == found["cascade", "magnitude"]["steps_total"] == "46"
    assert found["control", "dense"]["steps_total"] == "46"


def test_a_rerun_makes_nothing_anew(runs, call, tree):
    run = runs["conv"]
    before = tree(run / "cascades")
    said = call("run", run.parent / "tiny.yaml", "--out", run.parent)
    assert said.status == 0, said.err
    assert tree(run / "cascades") == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"name": "diabetes"}}, "needs labels of two or more classes, but 'diabetes' has no labels"),
        (
            {"train": {"objective": "nll", "steps": 3}},
            "network is a classifier: train.objective: cross_entropy, not nll",
        ),
        ({"train": {"steps": 3}}, "network is a classifier: train.objective: cross_entropy, not nll"),
        ({"data": {"name": "digits_labelled", "whiten": True}}, "data.whiten: false"),
        ({"network": {"kind": "conv", "channels": [4] * 4}}, "halve images of 8 × 8 pixels to nothing; give at most 3"),
        ({"network": {"kind": "conv", "channels": [4]}, "data": {"name": "moons"}}, "conv needs square images"),
        ({"train": CROSS_ENTROPY | {"kinetic": 0.1}}, "cross_entropy takes weight_decay"),
        (
            {"train": CROSS_ENTROPY | {"ema": 0.9}},
            "train.ema averages weights, not the statistics of network.batch_norm",
        ),
        ({"prune": {"methods": ["magnitude"], "keep_ratios": [0.5], "retrain": {"objective": "nll"}}}, "objective"),
    ],
)
def test_careless_settings(changes, words, call, tmp_path):
    said = call("check", write(tmp_path, DIGITS | changes))
    assert (said.status, said.out) == (2, "")
    assert len(said.err.splitlines()) == 1
    assert words in said.err


@pytest.mark.parametrize(("data", "words"), [("table", "no labels"), ("gaussians", "too few for")])
def test_a_flow_with_fewer_columns_than_classes_or_no_labels(data, words, call, tmp_path):
    np.savetxt(tmp_path / "own.csv", np.random.default_rng(0).standard_normal((50, 3)), delimiter=",")
    own = {"name": data} | ({"path": str(tmp_path / "own.csv")} if data == "table" else {})
    said = call("run", write(tmp_path, MOONS | {"data": own}), "--out", tmp_path)
    assert (said.status, said.out) == (2, "")
    assert words in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
    assert not (tmp_path / "tiny" / "cascades").exists()


def test_labels_do_not_disturb_a_density(call, tmp_path, rows):
    # Of a set with labels a flow may learn the density just as well: the accuracy's columns stay empty.
    document = {
        "name": "tiny",
        "data": {"name": "moons", "n_train": 100},
        "flow": {"hidden": [6], "time": "concat"},
        "train": {"objective": "flow_matching", "steps": 5},
        "prune": {"methods": ["taylor"], **PRUNE, "retrain": {"steps": 2}},
    }
    said = call("run", write(tmp_path, document), "--out", tmp_path)
    assert said.status == 0, said.err
    for row in rows(tmp_path / "tiny"):
        assert row["accuracy_test"] == row["loss_test"] == row["loss_val"] == ""
        assert float(row["nll_test"]) > 0
