"""A run folder made by hand: a dense flow and two methods, numbers that are easy to average."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from sparseflows.files import sealed

COLUMNS = (
    *("dataset", "objective", "protocol", "method", "seed", "stage", "status", "reason", "keep_ratio_target"),
    *("prune_ratio", "params", "params_dense", "nll_val", "nll_test", "nll_test_se", "n_test", "nll_train"),
    *("kl_gap", "kl_gap_se", "accuracy_test", "loss_test", "nfe", "train_steps", "train_seconds"),
)

RowOf = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Path]


def stage_row(
    method: str, seed: int, stage: int, params: int, nll: float, dense: int = 1000, **changes: Any
) -> dict[str, Any]:
    """A row that is done, of a flow that has 1,000 params when dense; the true density has entropy 0.5."""
    row: dict[str, Any] = {
        "dataset": "rings",
        "objective": "nll",
        "protocol": "cascade",
        "method": method,
        "seed": seed,
        "stage": stage,
        "status": "done",
        "keep_ratio_target": params / dense,
        "prune_ratio": 1 - params / dense,
        "params": params,
        "params_dense": dense,
        "nll_test": nll,
        "nll_test_se": 0.02,
        "n_test": 2048,
        "kl_gap": nll - 0.5,
        "kl_gap_se": 0.004,
        "nfe": 50 + 2 * seed,
    }
    return row | changes


def failed_row(method: str, seed: int, stage: int, reason: str, **changes: Any) -> dict[str, Any]:
    """A row of a stage that failed: no numbers."""
    kept = ("dataset", "objective", "protocol", "method", "seed", "stage", "keep_ratio_target")
    row = stage_row(method, seed, stage, 100, 0.0)
    return {name: row[name] for name in kept} | {"status": "failed", "reason": reason} | changes


def standard_rows(seeds: Iterable[int] = (0, 1, 2)) -> list[dict[str, Any]]:
    """Dense, and two stages of two methods: test NLLs that differ by 0.01 from seed to seed."""
    nlls = {("dense", 0, 1000): 0.60, ("unstructured", 1, 500): 0.58, ("unstructured", 2, 250): 0.70}
    nlls |= {("structured", 1, 480): 0.65, ("structured", 2, 240): 0.90}
    return [
        stage_row(method, seed, stage, params, nll + 0.01 * seed)
        for seed in seeds
        for (method, stage, params), nll in nlls.items()
    ]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run folder from rows and return it."""

    def make(rows: Iterable[dict[str, Any]], folder: str = "run", seeds: object = None, name: str = "") -> Path:
        rows = list(rows)
        path = tmp_path / folder
        path.mkdir()
        asked = sorted({row["seed"] for row in rows}) if seeds is None else seeds
        (path / "spec.yaml").write_text(f"name: '{name or folder}'\nseeds: {asked}\ndata: {{name: rings}}\n")
        with (path / "results.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return make


@pytest.fixture
def row_of() -> RowOf:
    return stage_row


@pytest.fixture
def failed_of() -> RowOf:
    return failed_row


@pytest.fixture
def rows_of() -> Callable[..., list[dict[str, Any]]]:
    return standard_rows


@pytest.fixture(scope="session")
def _tiny_run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import yaml
    from support.tiny import SETTINGS

    from sparseflows.cli.app import app
    from sparseflows.cli.console import run_app

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    assert run_app(app, "sparseflows", ["run", str(folder / "tiny.yaml"), "--out", str(folder)]) == 0
    return folder / "tiny"


@pytest.fixture
def tiny_run(_tiny_run_once: Path, tmp_path: Path) -> Path:
    """A copy of a run that was really trained: dense-s0/0, unstructured-s0/1, structured-s0/1 of 80 params and less."""
    return Path(shutil.copytree(_tiny_run_once, tmp_path / "tiny"))


@pytest.fixture
def fail_stage() -> Callable[[Path, str, str], None]:
    """Make a stage of a run one that failed, for a reason."""

    def fail(run: Path, name: str, reason: str) -> None:
        cascade, stage = name.split("/")
        folder = run / "cascades" / cascade / "stages" / stage
        record = json.loads((folder / "record.json").read_text())
        record |= {"status": "failed", "reason": reason, "sha256": {}, "nll_val": None}
        (folder / "record.json").write_text(json.dumps(sealed(record)))
        for tensors in folder.glob("*.safetensors"):
            tensors.unlink()

    return fail
