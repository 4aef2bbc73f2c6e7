"""Every seed its own split; and data that come from a prepared folder or stay on disk."""

import json

import numpy as np
import pytest

from sparseflows import load
from sparseflows.data.splits import make_splits

WINE = {
    "data": {"name": "wine", "val_fraction": 0.15, "test_fraction": 0.15, "seed": 3},
    "seeds": [0, 2],
    "train.select": "best_val",
    "train.selections": 2,
    "prune.keep_ratios": [0.5],
    "prune.methods": ["structured"],
    "evaluate": {},
}
SPLIT = WINE | {"data": WINE["data"] | {"split_by_seed": True}}


def numbers(rows, folder):
    seconds = {"train_seconds"}
    return [{k: v for k, v in row.items() if k not in seconds} for row in rows(folder)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, call, tiny_params):
    place = tmp_path_factory.mktemp("split")
    (place / "wine.yaml").write_text(tiny_params(SPLIT))
    assert call("run", place / "wine.yaml", "--out", place).status == 0
    return place / "tiny"


def test_every_seed_is_scored_on_its_own_rows(folder, rows, call, tmp_path):
    document = json.loads((folder / "data.json").read_text())
    assert sorted(document["seeds"]) == ["0", "2"]
    for seed in (0, 2):
        splits = make_splits("wine", val_fraction=0.15, test_fraction=0.15, seed=3 + seed)
        flow = load(folder, f"dense-s{seed}/0")
        np.testing.assert_array_equal(flow.standardiser.shift, splits.standardiser.shift)
        own = splits.standardiser.invert(splits.test)
        np.save(tmp_path / "own.npy", own)
        for stage, row in (("dense", 0), ("structured", 1)):
            found = call("score", folder, tmp_path / "own.npy", "--stage", f"{stage}-s{seed}/{row}", "--json")
            wanted = next(r for r in rows(folder) if (r["method"], r["seed"]) == (stage, str(seed)))
            # There and back through the standardiser, and the solver's own tolerance of 1e-5.
            assert json.loads(found.out)["nll"] == pytest.approx(float(wanted["nll_test"]), abs=1e-4)


def test_seeds_share_a_split_unless_asked(folder, changed, tmp_path, call):
    assert call("run", changed(WINE), "--out", tmp_path).status == 0
    assert "seeds" not in json.loads((tmp_path / "tiny" / "data.json").read_text())
    one, other = (load(tmp_path / "tiny", f"dense-s{seed}/0").standardiser.shift for seed in (0, 2))
    assert np.array_equal(one, other)
    assert not np.array_equal(*(load(folder, f"dense-s{seed}/0").standardiser.shift for seed in (0, 2)))


def test_side_by_side_gives_the_same_numbers(folder, changed, tmp_path, call, rows):
    assert call("run", changed(SPLIT), "--out", tmp_path, "--jobs", "2").status == 0
    assert numbers(rows, tmp_path / "tiny") == numbers(rows, folder)


def test_an_analysis_takes_each_stage_with_its_own_rows(folder):
    from analysis.curvature.subsets import Settings, subsets_of
    from analysis.runs.study import Study

    study = Study.open(folder)
    for seed in (0, 2):
        own = make_splits("wine", val_fraction=0.15, test_fraction=0.15, seed=3 + seed)
        assert np.array_equal(study.splits_of(seed).train, own.train)
        (rows,) = subsets_of(study, Settings(subset=100, subsets=1), seed)
        assert np.isin(rows[:, 0], own.train[:, 0]).all()
    assert study.splits is study.splits_of(0)


def test_rows_that_stay_on_disk_are_trained_on_and_resumed(changed, tmp_path, call, rows, monkeypatch):
    from sparseflows.data import splits
    from sparseflows.data.tables import mapped

    table = np.random.default_rng(0).normal(size=(4000, 3)) @ np.array([[2, 1, 0], [0, 1, 1], [0, 0, 0.5]])
    np.save(tmp_path / "large.npy", table)
    changes = {"data": {"name": "table", "path": str(tmp_path / "large.npy")}, "evaluate": {"max_rows": 50}}
    monkeypatch.setattr(mapped, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 2400)
    assert isinstance(splits.make_splits("table", str(tmp_path / "large.npy")).train, mapped.MappedRows)
    for jobs in (1, 2):  # workers read the file for themselves
        said = call("run", changed(changes), "--out", tmp_path / str(jobs), "--jobs", jobs)
        assert said.status == 0, said.err
    found = [numbers(rows, tmp_path / str(jobs) / "tiny") for jobs in (1, 2)]
    assert found[0] == found[1]
    assert all(row["status"] == "done" for row in found[0])
