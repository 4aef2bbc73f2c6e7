"""A run on a tabular set, made by hand."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def make_set(make_run, row_of):
    """A run on a set: dense, and for each method (params, validation NLL, test NLL) of its stages, a seed each."""

    def make(dataset, folder, dense, stages, objective="nll", seeds=(0,), said=None, data=None, extra=()):
        rows = [
            row_of(method, seed, number, params, test + 0.1 * seed, dense=dense[0], nll_val=val, n_test=1000)
            | {"dataset": dataset, "objective": objective, "kl_gap": "", "kl_gap_se": ""}
            for seed in seeds
            for method, cells in ({"dense": [dense]} | stages).items()
            for number, (params, val, test) in enumerate(cells, start=method != "dense")
        ]
        run = make_run([*rows, *(one | {"dataset": dataset, "objective": objective} for one in extra)], folder=folder)
        settings = json.dumps(data or {"name": dataset})
        (run / "spec.yaml").write_text(f"name: {folder}\nseeds: {list(seeds)}\ndata: {settings}\n")
        if said is not None:
            (run / "data.json").write_text(json.dumps(said))
        return run

    return make
