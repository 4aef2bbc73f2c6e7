"""Tables of one's own through whole runs: names are kept, slopes of maps are in every NLL, notes come before it all."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from sparseflows import load
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
from sparseflows.data.transforms.transformed import standardiser_from_dict
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.identity import identity
from sparseflows.experiment.rows import prepare
from sparseflows.specs.yaml import load_spec

SETTINGS = {
    "seeds": [0],
    "flow": {"hidden": [16], "activation": "silu", "time": "concat", "base": "gaussian"},
    "train": {"objective": "flow_matching", "steps": 300, "batch": 128, "lr": 0.01, "select": "best_val"},
    "prune": {"methods": ["unstructured"], "keep_ratios": [0.5], "retrain": {"steps": 100}},
}
LOG_PAY = 1.0, 3.0  # mean and deviation


def frame(rows=1500, seed=0):
    rng = np.random.default_rng(seed)
    mean, deviation = LOG_PAY
    pay, size = np.exp(mean + deviation * rng.normal(size=rows)), rng.normal(170, 9, size=rows)
    return pd.DataFrame({"pay": pay, "day": pd.date_range("2000", periods=rows), "size": size})


def truth(table):
    """log p (N,) of the rows in their own coordinates."""
    mean, deviation = LOG_PAY
    return stats.lognorm.logpdf(table["pay"], deviation, scale=np.exp(mean)) + stats.norm.logpdf(table["size"], 170, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    frame().to_csv(folder / "table.csv")
    return folder


def param(folder, name, **data):
    path = folder / f"{name}.yaml"
    section = {"name": "table", "path": str(folder / "table.csv"), "drop": ["day"]} | data
    path.write_text(yaml.safe_dump({"name": name, "data": section} | SETTINGS))
    return path


@pytest.fixture(scope="module")
def logged(folder):
    path = param(folder, "logged", transform={"pay": "log"})
    assert run_app(app, "sparseflows", ["run", str(path), "--out", str(folder)]) == 0
    return folder / "logged"


def test_check_and_run_say_what_was_found(folder, call):
    path = param(folder, "plain")
    said = call("check", path, "--json")
    notes = json.loads(said.out)["notes"]
    assert any("column 'pay': heavy tails" in note and "data.transform: {pay: log}" in note for note in notes)
    assert any("data.index" in note for note in notes)
    assert "note: column 'pay': heavy tails" in call("check", path).out
    said = call("run", path, "--out", folder, "--set", "train.steps=2", "--set", "prune.retrain.steps=2")
    assert "note: column 'pay': heavy tails" in said.err
    said = call("check", param(folder, "dates", drop=[]))
    assert (said.status, said.out) == (2, "")
    assert "column 'day' holds dates" in said.err


def test_names_and_maps_are_kept_as_plain_numbers(logged):
    kept = json.loads((logged / "data.json").read_text())
    assert kept["columns"] == ["pay", "size"]
    assert kept["transform"] == {"1": {"kind": "log"}}
    assert kept["dim"] == len(kept["shift"]) == 2


def test_the_reported_nll_is_that_of_the_columns(logged):
    """Not of the logarithms: the determinant, by finite differences, is in it, and so is the truth nearly reached."""
    run = RunFolder.open(logged)
    (record, *_) = [one for one in run.records() if one.method == "dense"]
    splits = prepare(run.spec)[0][0]
    standardiser = standardiser_from_dict(json.loads((logged / "data.json").read_text()))
    flow = load(logged, "dense-s0/0").double()
    with torch.no_grad():
        seen = flow.log_prob(torch.from_numpy(np.asarray(splits.test))).numpy()
    own = standardiser.invert(splits.test)
    step = 1e-6 * np.abs(own)
    slopes = (standardiser.apply(own + step) - standardiser.apply(own - step)) / (2 * step)
    log_p = seen + np.log(slopes).sum(axis=1) + standardiser.log_scale
    assert record.nll_test == pytest.approx(-log_p.mean(), abs=1e-5)
    true = truth(pd.DataFrame(own, columns=["pay", "size"])) + standardiser.log_scale
    assert abs((true - log_p).mean()) < 0.1  # nats, of a training this short


def test_score_agrees_with_the_truth_in_the_datas_own_coordinates(logged, folder, call):
    other = frame(600, seed=1)
    other.to_csv(folder / "other.csv", index=False)
    said = call("score", logged, folder / "other.csv", "--coordinates", "data", "--json", "-o", folder / "p.npy")
    assert said.status == 0, said.err
    assert json.loads(said.out)["nll"] == pytest.approx(-truth(other).mean(), abs=0.15)
    assert abs(np.load(folder / "p.npy") - truth(other)).mean() < 0.3


def test_score_finds_columns_by_name(logged, folder, call):
    other = frame(50, seed=2)
    found = {}
    for name, table in (("same", other), ("turned", other[["size", "pay"]])):
        table.to_csv(folder / f"{name}.csv", index=False)
        said = call("score", logged, folder / f"{name}.csv", "--json")
        assert said.status == 0, said.err
        found[name] = json.loads(said.out)["nll"], said.err
    assert found["same"][0] == found["turned"][0]
    assert "another order" in found["turned"][1]
    assert found["same"][1] == ""
    np.save(folder / "nameless.npy", other[["pay", "size"]].to_numpy())
    assert json.loads(call("score", logged, folder / "nameless.npy", "--json").out)["nll"] == found["same"][0]
    other.rename(columns={"size": "height"}).to_csv(folder / "wrong.csv")
    said = call("score", logged, folder / "wrong.csv")
    assert said.status == 2
    assert "lacks 'size' and has 'height'" in said.err


def test_samples_carry_the_names_and_come_back(logged, folder, call):
    assert call("sample", logged, "-n", 40, "-o", folder / "s.csv").status == 0
    assert call("sample", logged, "-n", 40, "-o", folder / "s.npy").status == 0
    drawn = pd.read_csv(folder / "s.csv", float_precision="round_trip")
    assert list(drawn.columns) == ["pay", "size"]
    np.testing.assert_array_equal(drawn.to_numpy(), np.load(folder / "s.npy"))
    assert (drawn["pay"] > 0).all()
    assert call("map", logged, folder / "s.csv", "--to", "noise", "-o", folder / "z.csv").status == 0
    assert call("map", logged, folder / "z.csv", "--to", "data", "-o", folder / "back.csv").status == 0
    np.testing.assert_allclose(pd.read_csv(folder / "back.csv").to_numpy(), drawn.to_numpy(), rtol=1e-3)


@pytest.fixture
def below(folder):
    """A file of six rows, two of them with numbers that have no logarithm, and the others alone."""
    table = frame(6).assign(pay=[1.0, 2.0, -3.0, 4.0, 0.0, 5.0])
    table.to_csv(folder / "below.csv")
    table.iloc[[0, 1, 3, 5]].to_csv(folder / "above.csv")
    return folder / "below.csv"


FAULT = "data.transform does not take them (row 3, column 'pay': -3 has no logarithm; row 5, column 'pay': 0 has no"


@pytest.mark.parametrize("coordinates", ["standardised", "data"])
def test_a_row_that_a_map_does_not_take_has_density_0_and_costs_no_other(logged, below, folder, call, coordinates):
    options = "--coordinates", coordinates, "--json", "-o", folder / "p.npy"
    said = call("score", logged, below, *options)
    assert said.status == 0
    assert f"note: 2 of 6 rows have density 0: {FAULT} logarithm)\n" in said.err
    found, summary = np.load(folder / "p.npy"), json.loads(said.out)
    assert np.isneginf(found).tolist() == [False, False, True, False, True, False]
    alone = json.loads(call("score", logged, folder / "above.csv", *options).out)
    np.testing.assert_allclose(found[[0, 1, 3, 5]], np.load(folder / "p.npy"), rtol=1e-12)
    assert (summary["rows_infinite"], summary["rows_unsolved"], summary["nll"], summary["n"]) == (2, 0, None, 6)
    assert summary["nll_finite"] == pytest.approx(alone["nll"], rel=1e-12)
    said = call("score", logged, below)
    assert said.out.startswith("NLL inf over all 6 rows, 2 of which have no finite log p; ")


def test_no_noise_belongs_to_a_row_that_a_map_does_not_take(logged, below, folder, call):
    said = call("map", logged, below, "--to", "noise", "-o", folder / "z.npy")
    assert said.status == 0
    assert f"note: 2 of 6 rows have no noise: {FAULT} logarithm)\n" in said.err
    found = np.load(folder / "z.npy")
    assert np.isnan(found).all(1).tolist() == [False, False, True, False, True, False]
    call("map", logged, folder / "above.csv", "--to", "noise", "-o", folder / "z.npy")
    np.testing.assert_allclose(found[[0, 1, 3, 5]], np.load(folder / "z.npy"), rtol=1e-9)


def test_strict_makes_such_rows_an_error(logged, below, folder, call):
    for command in (("score", logged, below), ("map", logged, below, "--to", "noise", "-o", folder / "z.npy")):
        said = call(*command, "--strict")
        assert said.status == 1
        assert said.err.splitlines()[-1].startswith("sparseflows: ") or "2 of 6 rows have" in said.err
        assert "without --strict they are" in said.err


def test_a_file_of_nothing_else(logged, folder, call):
    frame(3).assign(pay=-1.0).to_csv(folder / "none.csv")
    said = call("score", logged, folder / "none.csv", "--json")
    assert said.status == 0
    assert json.loads(said.out)["rows_infinite"] == 3
    assert json.loads(said.out)["nll_finite"] is None
    assert "no row has a number" in call("score", logged, folder / "none.csv").out
    assert call("map", logged, folder / "none.csv", "--to", "noise", "-o", folder / "z.npy").status == 0
    assert np.isnan(np.load(folder / "z.npy")).all()


def test_such_rows_in_the_training_table_stay_refused(folder, call):
    frame(200).assign(pay=lambda table: table["pay"] - 1).to_csv(folder / "debts.csv")
    said = call("check", param(folder, "debts", path=str(folder / "debts.csv"), transform={"pay": "log"}))
    assert said.status == 2
    assert "has no logarithm" in said.err


def test_the_flow_alone_has_the_density_that_score_writes(logged, below, folder, call):
    options = "--coordinates", "data", "--dtype", "float64", "-o", folder / "p.npy"
    assert call("score", logged, below, *options).status == 0
    p = load(logged).double().distribution(coordinates="data")
    rows = torch.from_numpy(pd.read_csv(below)[["pay", "size"]].to_numpy(dtype=float))
    with torch.no_grad():
        np.testing.assert_allclose(p.log_prob(rows).numpy(), np.load(folder / "p.npy"), atol=1e-9)
    drawn = load(logged).distribution(coordinates="data", generator=torch.Generator().manual_seed(0)).sample((4000,))
    own = pd.DataFrame(drawn.numpy(), columns=["pay", "size"])
    assert (own["pay"] > 0).all()
    assert np.log(own["pay"]).mean() == pytest.approx(LOG_PAY[0], abs=0.4)
    assert np.log(own["pay"]).std() == pytest.approx(LOG_PAY[1], abs=0.4)
    assert own["size"].mean() == pytest.approx(170, abs=2)


def test_a_run_is_known_by_what_was_decided_in_reading_its_file(folder, call):
    """An earlier version trained on the index; its folder is not gone on with."""
    _, known = prepare(load_spec(param(folder, "plain")))
    assert known.endswith(" (index)")
    frame()[["pay", "size"]].to_csv(folder / "bare.csv", index=False)
    _, known = prepare(load_spec(param(folder, "bare", path=str(folder / "bare.csv"), drop=[])))
    assert len(known) == 64


def test_a_run_of_an_earlier_version_says_why_it_cannot_be_gone_on_with(logged):
    from analysis.runs.study import Study

    run, known = json.loads((logged / "run.json").read_text()), RunFolder.open(logged)
    bare = run["data"].partition(" ")[0]
    plain = run | {"data": bare, "identity": identity(known.spec, bare)}
    try:
        (logged / "run.json").write_text(json.dumps(plain))
        with pytest.raises(ValueError, match=r"read it otherwise \(index\); run logged again"):
            _ = Study.open(logged).splits
    finally:
        (logged / "run.json").write_text(json.dumps(run))
    assert Study.open(logged).splits.columns == ("pay", "size")


@pytest.mark.parametrize("suffix", [".csv", ".npy"])
def test_rows_with_a_missing_value_keep_their_place_where_the_run_left_such_rows_out(folder, call, suffix):
    rows = np.random.default_rng(1).normal(170, 9, size=(60, 2))
    pd.DataFrame(rows, columns=["a", "b"]).mask(rows > 185).to_csv(folder / "holes.csv", index=False)
    assert (rows > 185).any(1).sum() >= 1
    path = param(folder, "holes", path=str(folder / "holes.csv"), drop=[], missing="drop")
    quick = ("--set", "train.steps=2", "--set", "prune.methods=[]", "--set", "prune.keep_ratios=[]", "--force")
    assert call("run", path, "--out", folder, *quick).status == 0
    points, whole = folder / f"points{suffix}", folder / "whole.npy"
    some = np.where(np.arange(10).reshape(5, 2) == 5, np.nan, rows[:5])
    if suffix == ".npy":
        np.save(points, some)
    else:
        pd.DataFrame(some, columns=["a", "b"]).to_csv(points, index=False)
    np.save(whole, rows[:5])
    said = call("score", folder / "holes", points, "-o", folder / "found.npy", "--json")
    assert call("score", folder / "holes", whole, "-o", folder / "expected.npy").status == 0
    summary, found, expected = json.loads(said.out), np.load(folder / "found.npy"), np.load(folder / "expected.npy")
    assert (summary["n"], summary["rows_unsolved"], summary["rows_infinite"]) == (5, 1, 0)
    assert np.isnan(found).tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(np.delete(found, 2), np.delete(expected, 2), atol=1e-4)
    assert "1 of 5 rows cannot be solved (from 1: 3)" in said.err
    assert call("map", folder / "holes", points, "--to", "noise", "-o", folder / "z.npy").status == 0
    assert np.isnan(np.load(folder / "z.npy")).any(1).tolist() == [False, False, True, False, False]
