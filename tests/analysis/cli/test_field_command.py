from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from analysis.analyses import field
from analysis.cli.app import app
from analysis.fields import arrays
from analysis.runs.results import Entry, Result
from sparseflows.cli.console import run_app
from sparseflows.experiment.folder.records import Record

STEM = "structured-s0-1"
FIGURES = {f"{STEM}_{name}.{kind}" for name in ("field", "density", "trajectories") for kind in ("png", "pdf", "npz")}


def train(folder, columns):
    """A run of one dense and one pruned stage, on a toy set or on a table of so many columns."""
    from sparseflows.cli.app import app as run

    data = {"name": "gaussian_spiral", "n_train": 200}
    if columns != 2:
        rows = np.random.default_rng(0).standard_normal((200, columns))
        np.save(folder / "rows.npy", rows)
        data = {"name": "table", "path": str(folder / "rows.npy")}
    settings = {
        "name": "tiny",
        "seeds": [0],
        "data": data,
        "flow": {"hidden": [8, 8], "activation": "silu", "time": "concat"},
        "train": {"objective": "flow_matching", "steps": 30, "batch": 64, "lr": 0.02},
        "prune": {"methods": ["structured"], "keep_ratios": [0.7], "retrain": {"steps": 10}},
        "evaluate": {"max_rows": 50},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    assert run_app(run, "sparseflows", ["run", str(folder / "tiny.yaml"), "--out", str(folder)]) == 0
    return folder / "tiny"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return train(tmp_path_factory.mktemp("toy"), 2)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return train(tmp_path_factory.mktemp("table"), 4)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Coarse grids and few points: what is tested here is the command."""
    sizes = {"FIELD_CELLS": 48, "DENSITY_CELLS": 24, "SAMPLES": 200, "PATHS": 8, "PATH_TIMES": 5}
    for name, value in {**sizes, "SHARES": (0.0, 0.5)}.items():
        monkeypatch.setattr(arrays, name, value)


@pytest.fixture
def undrawn(monkeypatch):
    """The command without its figures: (colour, whether all are drawn) by call."""
    calls = []

    def figures(request, entries):
        calls.append((request.settings.colour, request.named))
        return iter(())

    monkeypatch.setattr(field, "ANALYSIS", replace(field.ANALYSIS, figures=figures))
    return calls


def call(*args):
    return run_app(app, "analysis", [str(arg) for arg in args])


def copy(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_one_stage_is_drawn_and_told(toy, tmp_path, capsys):
    run = copy(toy, tmp_path)
    out = tmp_path / "out"
    assert call("field", run, "--stage", "structured-s0/1", "--frames", 4, "--out", out) == 0
    said, err = capsys.readouterr()
    lines = said.splitlines()
    assert lines[0] == "gaussian_spiral (flow_matching), run tiny"
    assert lines[-1].split()[0] == "structured-s0/1"
    assert "wrote 10 files of structured-s0/1" in err
    assert {path.name for path in (out / "fields").iterdir()} == {*FIGURES, f"{STEM}.gif"}
    (stage,) = json.loads((out / "field.json").read_text())["stages"]
    assert {Path(name).name for name in stage["files"]} == {*FIGURES, f"{STEM}.gif"}
    assert stage["status"] == "done"
    assert 0.5 < stage["mass_on_grid"] < 1.1
    assert stage["max_abs_divergence"] > 0
    assert stage["mean_speed"] > 0
    assert len(stage["extent"]) == 4
    (row,) = csv.DictReader(io.StringIO((out / "field.csv").read_text()))
    assert float(row["mass_on_grid"]) == stage["mass_on_grid"]


def test_json_is_the_only_thing_on_standard_output_and_the_second_call_is_cached(toy, tmp_path, capsys, undrawn):
    run = copy(toy, tmp_path)
    assert call("field", run, "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert call("field", run, "--json", "--colour", "speed") == 0
    second = json.loads(capsys.readouterr().out)
    assert [stage.pop("cached") for stage in first["stages"]] == [False, False]
    assert [stage.pop("cached") for stage in second["stages"]] == [True, True]
    assert first == second
    # Two stages: the dense one and the last one, both drawn, and side by side.
    assert all("fields/panels_structured-s0.png" in stage["files"] for stage in first["stages"])
    assert undrawn == [("divergence", False), ("speed", False)]
    assert call("field", run, "--json", "--seed", 1) == 0
    other = json.loads(capsys.readouterr().out)
    assert not any(stage["cached"] for stage in other["stages"])


def test_more_columns(table, tmp_path, capsys, undrawn):
    run = copy(table, tmp_path)
    assert call("field", run, "--json", "--columns", "4-1,2-3") == 0
    (dense, _) = json.loads(capsys.readouterr().out)["stages"]
    assert dense["columns"] == [[4, 1], [2, 3]]
    assert "mass_on_grid" not in dense
    assert "fields/dense-s0-0_samples.png" in dense["files"]
    assert call("field", run, "--json") == 0
    (dense, _) = json.loads(capsys.readouterr().out)["stages"]
    assert len(dense["columns"]) == 2  # four columns, each once


def test_a_stage_that_fails_says_why_and_the_others_go_on(toy, tmp_path, capsys, undrawn, monkeypatch):
    run = copy(toy, tmp_path)
    whole = arrays.field_arrays

    def fails_when_dense(flow, *rest):
        if sum(p.numel() for p in flow.parameters()) > 120:
            raise ArithmeticError("no luck")
        return whole(flow, *rest)

    monkeypatch.setattr(arrays, "field_arrays", fails_when_dense)
    assert call("field", run) == 0
    said = capsys.readouterr().out
    assert "failed: dense-s0/0: no luck" in said
    assert "structured-s0/1" in said
    monkeypatch.setattr(arrays, "field_arrays", lambda *_: 1 / 0)
    assert call("field", run, "--seed", 3) == 1
    assert "no stage could be analysed" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["1-2", "1-1", "x", "1-2,", "0-1", ""])
def test_columns_of_a_plane_or_malformed_are_refused(toy, columns, capsys):
    assert call("field", toy, "--columns", columns) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--columns" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--columns", "1-5"), "have 4 columns"),
        (("--columns", "2-2"), "paired with itself"),
        (("--stage", "dense-s0/7"), "no stage"),
        (("--frames", "1"), "frames"),
        (("--colour", "red"), "colour"),
    ],
)
def test_bad_input_is_one_line_and_status_two(table, arguments, said, capsys):
    assert call("field", table, *arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert not (table / "analysis" / "fields").exists()


# --- what is drawn


def entry(method, seed, stage, nll=1.0, failed=False):
    record = Record("toy", "nll", "cascade", method, seed, stage, "done", prune_ratio=0.1 * stage, nll_val=nll)
    subject = SimpleNamespace(record=record, name=f"{record.cascade}/{stage}")
    return Entry(subject, None if failed else Result({}, {}), "no" if failed else None)


@pytest.fixture
def entries():
    found = [entry("dense", seed, 0) for seed in (0, 1)]
    found += [entry(m, seed, k) for m in ("structured", "unstructured") for seed in (0, 1) for k in range(1, 21)]
    return found


def names(entries):
    return [entry.subject.name for entry in entries]


def test_featured_are_the_best_the_dense_and_the_last_of_each_method(entries):
    entries.append(entry("structured", 1, 21, nll=0.5))
    entries.append(entry("structured", 0, 21, failed=True))
    chosen = names(field.featured(entries))
    assert chosen == ["dense-s0/0", "structured-s0/20", "unstructured-s0/20", "structured-s1/21"]


def test_panels_are_of_the_first_seed_and_hold_dense_and_the_last(entries):
    panels = field._panels(entries, every=False)
    assert list(panels) == ["structured-s0", "unstructured-s0"]
    shown = names(panels["structured-s0"])
    assert len(shown) == 7
    assert (shown[0], shown[1], shown[-1]) == ("dense-s0/0", "structured-s0/1", "structured-s0/20")
    every = field._panels(entries, every=True)
    assert set(every) == {"structured-s0", "unstructured-s0", "structured-s1", "unstructured-s1"}
    assert names(every["structured-s1"])[0] == "dense-s1/0"


def test_no_panels_of_a_single_stage(entries):
    assert field._panels(entries[:1], every=True) == {}
    assert field._panels([entries[2]], every=True) == {}
    assert list(field._panels(entries[2:4], every=True)) == ["structured-s0"]
