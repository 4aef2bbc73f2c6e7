"""A prepared folder is opened as it was written, or refused with what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.data.prepared_folders import write_prepared

from sparseflows.data.benchmarks.facts import PARTS
from sparseflows.data.benchmarks.prepared import MANIFEST, Manifest, manifest_digest, open_prepared, verify
from sparseflows.data.splits import make_splits
from sparseflows.data.tables import mapped
from sparseflows.data.tables.mapped import MappedRows
from sparseflows.errors import InputError
from sparseflows.experiment.plan import plan
from sparseflows.experiment.rows import prepare
from sparseflows.specs.yaml import load_spec


@pytest.fixture
def folder(tmp_path):
    return write_prepared(tmp_path / "power")


def test_open(folder):
    found = open_prepared(folder, "power")
    assert [part.shape for part in (found.train, found.validation, found.test)] == [(80, 6), (10, 6), (10, 6)]
    assert isinstance(found.train, np.memmap)
    assert found.manifest.notes == ["a note"]
    verify(folder)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_splits_are_the_rows_as_they_are(tmp_path, dtype):
    folder = write_prepared(tmp_path / "gas", "gas", dtype=dtype)
    made = make_splits("gas", str(folder))
    for part in PARTS:
        rows = getattr(made, part)
        assert rows.dtype == np.float64
        assert np.array_equal(rows, np.load(folder / f"{part}.npy"))
    assert np.array_equal(made.standardiser.apply(made.test), made.test)
    assert made.sample
    assert made.notes == ("a note",)
    assert not make_splits("gas", str(write_prepared(tmp_path / "whole", "gas", sample=False))).sample


def test_a_large_one_stays_on_disk(folder, monkeypatch):
    small = make_splits("power", str(folder))
    monkeypatch.setattr("sparseflows.data.splits.IN_MEMORY_BYTES", 1000)
    large = make_splits("power", str(folder))
    assert isinstance(large.train, MappedRows)
    assert isinstance(large.test, np.ndarray)
    assert np.array_equal(np.asarray(large.train), small.train)
    some = make_splits("power", str(folder), n_train=20)
    assert isinstance(some.train, np.ndarray)
    assert {tuple(row) for row in some.train} < {tuple(row) for row in small.train}
    assert "trained on 20 of 80 rows" in some.notes
    assert mapped.IN_MEMORY_BYTES > 1000


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / MANIFEST).unlink(), "no manifest.json"),
        (lambda f: (f / MANIFEST).write_text("{"), "damaged"),
        (lambda f: (f / MANIFEST).write_text("[]"), "damaged"),
        (lambda f: (f / MANIFEST).write_text('{"format": 2}'), "format 2"),
        (lambda f: (f / "test.npy").unlink(), "test.npy: no such file"),
        (lambda f: (f / "test.npy").write_bytes((f / "test.npy").read_bytes()[:-8]), "cut off"),
        (lambda f: np.save(f / "test.npy", np.zeros((3, 6))), "manifest says"),
    ],
)
def test_what_is_no_prepared_folder_is_refused(folder, spoil, said):
    spoil(folder)
    with pytest.raises(InputError, match=said) as caught:
        make_splits("power", str(folder))
    assert "\n" not in str(caught.value)


def test_another_set_or_no_folder_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds the set 'power', not 'gas'"):
        make_splits("gas", str(folder))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data/gas: no such folder.*sparseflows data prepare"):
        make_splits("gas")
    with pytest.raises(InputError, match=r"n_train is 99, .* 80 training rows"):
        make_splits("power", str(folder), n_train=99)


def test_verify_reads_every_byte(folder):
    rows = np.load(folder / "train.npy")
    rows[7, 3] += 1e-9
    np.save(folder / "train.npy", rows)
    open_prepared(folder)  # the header is as it was
    with pytest.raises(InputError, match=r"train\.npy: not the file"):
        verify(folder)


PARAM = Path(__file__).parents[3] / "param"


def test_a_run_does_not_begin_on_rows_that_were_changed(folder):
    spec = load_spec(PARAM / "tabular/power/fm.yaml", [f"data.path={folder}"])
    prepare(spec)
    np.save(folder / "test.npy", 2 * np.load(folder / "test.npy"))
    with pytest.raises(InputError, match=r"test\.npy: not the file that was prepared"):
        prepare(spec)
    with pytest.raises(InputError, match=r"train\.npy: is a file; give the folder"):
        prepare(load_spec(PARAM / "tabular/power/fm.yaml", [f"data.path={folder / 'train.npy'}"]))


def test_the_default_folder_and_the_plan(folder, tmp_path, monkeypatch):
    spec = load_spec(PARAM / "tabular/power/ffjord.yaml", ["data.n_train=50"])
    monkeypatch.chdir(tmp_path)
    assert plan(spec)["train_rows"] == 50  # of the published ones: nothing is here
    assert plan(spec)["params_dense"] == 43325
    (tmp_path / "data").mkdir()
    folder.rename(tmp_path / "data" / "power")
    splits, digest = prepare(spec)
    assert splits[0].train.shape == (50, 6)
    assert digest == manifest_digest(tmp_path / "data" / "power")
    with pytest.raises(InputError, match="n_train is 81"):
        plan(spec.model_copy(update={"data": spec.data.model_copy(update={"n_train": 81})}))


def test_a_manifest_survives_the_file(folder):
    manifest = open_prepared(folder).manifest
    assert Manifest(**json.loads(manifest.to_json())) == manifest
