"""The published tabular recipes, to the letter, and ours beside them: checked without any data."""

import json
from pathlib import Path

import pytest

from sparseflows.cli.app import app
from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.flow.build import build_flow
from sparseflows.specs.yaml import load_spec

PARAM = Path(__file__).parents[2] / "param" / "tabular"
# name: dense params, hidden layers, factor, blocks, activation, batch, epochs, milestones, last keep ratio, stages
PUBLISHED = {
    "power": (43_325, 3, 10, 5, "tanh", 10_000, 100, [90, 97], 8, (0.70, 0.10)),
    "gas": (278_565, 3, 20, 5, "tanh", 1_000, 30, [25, 28], 8, (0.70, 0.10)),
    "hepmass": (546_850, 2, 10, 10, "softplus", 10_000, 400, [325, 375], 12, (0.80, 0.05)),
    "miniboone": (820_613, 2, 20, 1, "softplus", 1_000, 400, [300, 350], 16, (0.80, 0.01)),
    "bsds300": (6_698_666, 3, 20, 2, "softplus", 10_000, 100, [96, 99], 8, (0.70, 0.10)),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_check_counts_the_published_params_without_data(name, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["check", str(PARAM / name / "ffjord.yaml"), "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["params_dense"] == PUBLISHED[name][0]
    assert document["train_rows"] == BENCHMARKS[name].rows[0]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_recipe_is_the_published_one(name):
    spec = load_spec(PARAM / name / "ffjord.yaml")
    _, layers, factor, blocks, activation, batch, epochs, milestones, stages, (first, last) = PUBLISHED[name]
    flow, train, solve = spec.flow, spec.train, spec.solve
    assert flow.hidden == [factor * BENCHMARKS[name].columns] * layers
    assert (flow.blocks, flow.activation, flow.time, flow.train_end_time) == (blocks, activation, "concat_squash", True)
    assert (train.batch, train.epochs, train.milestones, train.gamma) == (batch, epochs, milestones, 0.1)
    assert (train.objective, train.optimiser, train.lr, train.weight_decay) == ("nll", "adam", 1e-3, 1e-6)
    assert (solve.method, solve.rtol, solve.atol, solve.gradient) == ("dopri5", 1e-6, 1e-8, "adjoint")
    assert (solve.divergence, solve.noise) == ("hutchinson", "gaussian")
    ratios = spec.prune.keep_ratios
    assert len(ratios) == stages
    assert (round(ratios[0], 9), round(ratios[-1], 9)) == (first, last)
    retrain = (300, [250, 295]) if name == "hepmass" else (epochs, milestones)
    assert (spec.retrain_spec().epochs, spec.retrain_spec().milestones) == retrain


@pytest.mark.parametrize("name", BENCHMARKS)
def test_ours_is_one_block_no_larger_with_the_same_cascade(name):
    published, ours = (load_spec(PARAM / name / f"{kind}.yaml") for kind in ("ffjord", "fm"))
    columns = BENCHMARKS[name].columns
    assert ours.flow.blocks == 1
    assert ours.train.objective == "flow_matching"
    assert ours.flow.dense_params(columns) <= published.flow.dense_params(columns) == PUBLISHED[name][0]
    assert f"{ours.flow.dense_params(columns):,} params" in (PARAM / name / "fm.yaml").read_text()
    assert ours.prune.keep_ratios == published.prune.keep_ratios
    assert ours.data.name == published.data.name == name


@pytest.mark.parametrize("name", ["power", "miniboone"])
def test_the_count_is_that_of_the_flow_itself(name):
    flow = build_flow(load_spec(PARAM / name / "ffjord.yaml"), BENCHMARKS[name].columns)
    assert sum(p.numel() for p in flow.parameters()) == PUBLISHED[name][0]
