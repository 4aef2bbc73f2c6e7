"""Runs of classifiers that take seconds: a neural ODE on a plane, and a perceptron on digits."""

from __future__ import annotations

from typing import Any

import yaml

from sparseflows.cli.console import run_app

MOONS: dict[str, Any] = {
    "name": "moons",
    "seeds": [0],
    "data": {"name": "moons", "n_train": 80},
    "flow": {"hidden": [8], "activation": "tanh", "time": "none"},
    "solve": {"method": "rk4", "steps": 4},
    "train": {"objective": "cross_entropy", "steps": 12, "batch": 40, "optimiser": "adam", "lr": 0.05},
    "prune": {"methods": ["unstructured", "structured"], "keep_ratios": [0.4], "retrain": {"steps": 6}},
    "evaluate": {"dtype": "float64"},
}
DIGITS: dict[str, Any] = {
    "name": "digits",
    "seeds": [0, 1],
    "data": {"name": "digits_labelled", "n_train": 400},
    "network": {"kind": "dense", "hidden": [10, 8], "activation": "relu"},
    "train": {"objective": "cross_entropy", "steps": 60, "batch": 64, "optimiser": "adam", "lr": 0.01},
    "prune": {
        "methods": ["magnitude", "neuron_l1"],
        "protocols": ["one_shot"],
        "keep_ratios": [0.6, 0.3],
    },
}


def train(folder, settings):
    """The run folder of `settings`, trained."""
    from sparseflows.cli.app import app

    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert run_app(app, "sparseflows", ["run", str(folder / "settings.yaml"), "--out", str(folder)]) == 0
    return folder / settings["name"]
