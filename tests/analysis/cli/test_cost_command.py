"""`analysis cost` on a run of seconds."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from support import small_runs

from analysis import analyse
from analysis.cost import Job
from analysis.runs.study import Study
from sparseflows.experiment.loading import load
from sparseflows.flow.smaller.sparse import BREAK_EVEN
from sparseflows.flow.solvers.ode import SolveFailed, Status


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small_runs.train(tmp_path_factory.mktemp("plane"), {"name": "gaussian_spiral", "n_train": 400})


@pytest.fixture
def plane(trained, tmp_path):
    """A copy: analyses write into the folder."""
    return shutil.copytree(trained, tmp_path / "plane")


@pytest.fixture
def call(capsys):
    return partial(small_runs.call, capsys)


def test_cost_of_every_stage(call, plane):
    threads = torch.get_num_threads()
    stages = small_runs.stages_of(call("cost", plane, "--rows", 40, "--repeats", 2, "--json"))
    assert torch.get_num_threads() == threads
    dense, masked, shrunk = stages
    for stage in stages:
        flow = load(plane, f"{stage['method']}-s0/{stage['stage']}")
        assert stage["bytes"] == sum(p.numel() * 4 for p in flow.parameters())
        assert stage["bytes_file"] >= stage["bytes"]
        for way in ("log_prob", "sample"):
            seconds = [stage[f"{way}_seconds{end}"] for end in ("_min", "", "_max")]
            assert 0 < seconds[0] <= seconds[1] <= seconds[2]
            assert stage[f"{way}_speedup"] == pytest.approx(1 / stage[f"{way}_ratio"])
            assert stage[f"{way}_ratio"] == pytest.approx(stage[f"{way}_seconds"] / dense[f"{way}_seconds"])
            assert stage[f"{way}_nfe"] > 6
        assert stage["nfe"] == next(
            r.nfe for r in Study.open(plane).records if (r.method, r.stage) == (stage["method"], stage["stage"])
        )
        assert (stage["rows"], stage["repeats"], stage["timing_failure"]) == (40, 2, None)
    assert dense["bytes_ratio"] == dense["macs_ratio"] == dense["log_prob_ratio"] == 1
    assert masked["bytes"] == dense["bytes"]
    assert masked["macs"] == dense["macs"]
    assert masked["macs_kept"] < masked["macs"]
    assert shrunk["macs"] == shrunk["macs_kept"] < masked["macs"]
    assert shrunk["bytes"] == shrunk["bytes_sparse"] == 4 * shrunk["params"]
    assert shrunk["bytes_ratio"] == shrunk["bytes"] / dense["bytes"]
    for stage in stages:  # half of the weights are left: too many
        assert stage["break_even"] == BREAK_EVEN
        assert {stage[f"{way}_sparse_seconds"] for way in ("log_prob", "sample")} == {None}
    assert {path.name for path in (plane / "analysis").iterdir()} == {"cache", "cost.json", "cost.csv"}


def test_masked_flows_of_mostly_zeros_are_timed_sparse_too(call, tmp_path):
    wide = {
        "flow": {"hidden": [40, 40], "activation": "silu", "time": "concat"},
        "train": {"objective": "flow_matching", "steps": 5, "batch": 64, "lr": 0.02},
        "prune": {"methods": ["unstructured", "structured"], "keep_ratios": [0.1], "retrain": {"steps": 2}},
    }
    run = small_runs.train(tmp_path, {"name": "gaussian_spiral", "n_train": 400}, **wide)
    arguments = ("cost", run, "--rows", 20, "--repeats", 2)
    dense, masked, shrunk = small_runs.stages_of(call(*arguments, "--json"))
    for way in ("log_prob", "sample"):
        name = f"{way}_sparse"
        for other in (dense, shrunk):
            assert {other[f"{name}_{end}"] for end in ("seconds", "nfe", "ratio", "speedup_masked")} == {None}
        assert 0 < masked[f"{name}_seconds_min"] <= masked[f"{name}_seconds"] <= masked[f"{name}_seconds_max"]
        # torchdiffeq looks for its first step on the way, the engine beforehand: a step or two more, no more.
        assert masked[f"{name}_nfe"] == pytest.approx(masked[f"{way}_nfe"], abs=14)
        for base, ratio in ((dense, "speedup"), (masked, "speedup_masked")):
            expected = base[f"{way}_seconds"] / masked[f"{name}_seconds"]
            assert masked[f"{name}_{ratio}"] == pytest.approx(expected)
        assert masked[f"{name}_ratio"] == pytest.approx(1 / masked[f"{name}_speedup"])
    said = call(*arguments).out
    assert "sparse execution of the matrices that are more than 80 % zeros" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith("unstructured")] == [
        "unstructured-s0/1"
    ] * 3
    assert max(map(len, said.splitlines())) <= 110


def test_cost_is_cached_and_has_ratios_without_the_dense_stage(call, plane):
    arguments = ("cost", plane, "--rows", 20, "--repeats", 1, "--stage", "structured-s0/1", "--json")
    (stage,) = small_runs.stages_of(call(*arguments))
    assert stage["log_prob_ratio"] > 0
    (again,) = small_runs.stages_of(call(*arguments))
    assert again == stage | {"cached": True}
    said = call("cost", plane, "--rows", 20, "--repeats", 1)
    assert said.status == 0
    assert "speed-up" in said.out
    assert max(map(len, said.out.splitlines())) <= 110
    stages = small_runs.stages_of(call("cost", plane, "--rows", 20, "--repeats", 1, "--json"))
    assert [one["cached"] for one in stages] == [True] * 3
    assert stages[2] == again


def test_cost_of_a_flow_that_cannot_sample(call, plane, monkeypatch):
    def fails(self):
        raise SolveFailed(Status.UNDERFLOW, 9)

    monkeypatch.setattr(Job, "sample", fails)
    said = call("cost", plane, "--rows", 20, "--repeats", 1, "--stage", "dense-s0/0", "--json")
    (stage,) = small_runs.stages_of(said)
    assert stage["sample_seconds"] is stage["sample_ratio"] is None
    assert stage["log_prob_seconds"] > 0
    assert stage["timing_failure"].startswith("sampling: the solver's step")
    assert "not timed: dense-s0/0" in call("cost", plane, "--rows", 20, "--repeats", 1, "--stage", "dense-s0/0").out


def test_a_batch_larger_than_the_data(plane):
    (entry,) = analyse(plane, "cost", "dense-s0/0", rows=100_000, repeats=1)
    assert entry.result.values["rows"] == 400 + 2 * 200
