"""A run on a GPU, from the param file to the table: by itself and by two workers, taken up, and read on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseflows import load

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def made(gpu, param, tmp_path_factory, call):
    """The tiny experiment there, by one process."""
    out = tmp_path_factory.mktemp("gpu")
    said = call("run", param, "--out", out, "--set", f"device={gpu}")
    assert said.status == 0, said.err
    return out / "tiny"


def test_every_stage_is_done(made: Path, finished: Path, rows) -> None:
    table, on_cpu = rows(made), rows(finished)
    assert [row["status"] for row in table] == ["done"] * 7
    for column in ("method", "stage", "params", "prune_ratio", "n_test"):
        assert [row[column] for row in table] == [row[column] for row in on_cpu], column
    assert all(np.isfinite(float(row["nll_test"])) for row in table)
    # Other draws there, and 60 steps of them: the same experiment, not the same numbers.
    assert float(table[0]["nll_test"]) == pytest.approx(float(on_cpu[0]["nll_test"]), abs=0.3)


def test_two_workers_share_it(made: Path, gpu, param, tmp_path, call, rows) -> None:
    said = call("run", param, "--out", tmp_path, "--set", f"device={gpu}", "--jobs", 2)
    assert said.status == 0, said.err
    alone = {(row["method"], row["stage"]): float(row["nll_test"]) for row in rows(made)}
    for row in rows(tmp_path / "tiny"):
        assert float(row["nll_test"]) == pytest.approx(alone[row["method"], row["stage"]], abs=1e-3)


def test_the_same_command_again_finds_it_whole(made: Path, gpu, param, call, numbers) -> None:
    before = numbers(made)
    assert call("run", param, "--out", made.parent, "--set", f"device={gpu}").status == 0
    assert numbers(made) == before


def test_its_stages_are_read_on_the_cpu(made: Path, tmp_path, call, rows) -> None:
    flow = load(made, "structured-s0/2")
    assert {parameter.device for parameter in flow.parameters()} == {torch.device("cpu")}
    points = tmp_path / "points.npy"
    np.save(points, np.random.default_rng(0).standard_normal((20, 2)))
    said = call("score", made, points, "--json")
    assert said.status == 0, said.err
    assert np.isfinite(json.loads(said.out)["nll"])
