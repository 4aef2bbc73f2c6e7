"""A run that takes a second, and analyses of it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import yaml

from analysis.cli.app import app
from sparseflows.cli.console import run_app


def train(folder, data, **changes):
    from sparseflows.cli.app import app as run

    settings = {
        "name": "tiny",
        "seeds": [0],
        "data": data,
        "flow": {"hidden": [8, 8], "activation": "silu", "time": "concat"},
        "train": {"objective": "flow_matching", "steps": 60, "batch": 64, "lr": 0.02},
        "prune": {"methods": ["unstructured", "structured"], "keep_ratios": [0.5], "retrain": {"steps": 20}},
        "evaluate": {"max_rows": 50, "dtype": "float64"},
    } | changes
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    assert run_app(run, "sparseflows", ["run", str(folder / "tiny.yaml"), "--out", str(folder)]) == 0
    return folder / "tiny"


def call(capsys, *args):
    """An `analysis` command in this process: status, out, err."""
    capsys.readouterr()
    status = run_app(app, "analysis", [str(arg) for arg in args])
    out, err = capsys.readouterr()
    return SimpleNamespace(status=status, out=out, err=err)


def refuse(constant):
    raise AssertionError(constant)


def stages_of(said):
    assert said.status == 0, said.err
    return json.loads(said.out, parse_constant=refuse)["stages"]
