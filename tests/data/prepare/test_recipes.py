"""Prepared rows equal those of the naive recipes, row for row, from every kind of source.

Tolerance: 1e-12 of a standardised value's scale; what is not standardised is exactly equal.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.data import naive_recipes as naive
from support.data import published_files as files

from sparseflows.data.benchmarks.facts import BENCHMARKS, PARTS
from sparseflows.data.benchmarks.prepared import open_prepared, verify
from sparseflows.data.files import rawtext, streaming
from sparseflows.data.prepare import prepare as preparing
from sparseflows.data.prepare.prepare import Request, prepare


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A few dozen blocks each, so that what happens between blocks is seen."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 8192)
    monkeypatch.setattr(rawtext, "TEXT_BLOCK", 10_000)


def assert_made(folder, name, wanted, dtype="float64", tolerance=1e-12):
    found = open_prepared(folder, name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        "test.npy",
        "train.npy",
        "validation.npy",
    ]
    assert not list(folder.parent.glob(".*"))
    for part, rows in zip(PARTS, wanted, strict=True):
        array = getattr(found, part)
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        np.testing.assert_allclose(array, rows, rtol=0, atol=tolerance)
        assert found.manifest.rows[part] == len(rows)
        for key, values in found.manifest.statistics[part].items():
            np.testing.assert_allclose(values, getattr(np, key)(np.float64(array), axis=0), rtol=1e-10, atol=1e-13)
    verify(folder)
    return found.manifest


# --- POWER


POWER = files.power_rows()


def power_sources(folder):
    text = files.power_text(POWER, missing={0, 7, 8, 700, 1499}).encode()
    data, plain = files.npy(POWER), folder / "household_power_consumption.txt"
    plain.write_bytes(text)
    yield plain
    yield files.write_gz(folder / "half.txt.gz", text)
    yield files.write_zip(folder / "power.zip", [("readme.md", b"x"), (plain.name, text)])
    yield files.write_tar(folder / "all.tar.gz", [("data/power/data.npy", data), ("data/gas/x", b"12")])
    yield files.write_tar(folder / "all.tgz", [("./power/data.npy", data)])
    yield files.write_tar(folder / "all.tar", [("a/b/c/power/data.npy", files.npy(np.asfortranarray(POWER)))])
    for inside in ("raw", "unpacked/data/power", "power"):
        (folder / inside).mkdir(parents=True)
    files.write_gz(folder / "raw" / f"{plain.name}.gz", text.replace(b"\n", b"\r\n"))
    yield folder / "raw"
    (folder / "unpacked/data/power/data.npy").write_bytes(data)
    yield folder / "unpacked"
    (folder / "power/data.npy").write_bytes(files.npy(POWER.astype(">f8")))
    yield folder / "power"
    yield folder / "power/data.npy"


def test_power_from_every_source(tmp_path):
    wanted, kinds = naive.power(POWER), []
    for k, source in enumerate(power_sources(tmp_path)):
        prepare(Request("POWER", source, tmp_path / f"made-{k}"))
        manifest = assert_made(tmp_path / f"made-{k}", "power", wanted)
        assert manifest.sample
        assert manifest.columns[-1] == "time"
        assert "discrete" in manifest.notes[0]
        assert "cannot be compared" in manifest.notes[1]
        assert len(manifest.source["files"]) == 1
        kinds.append(manifest.source["kind"])
    assert kinds == ["raw"] * 3 + ["archive"] * 3 + ["folder"] * 3 + ["archive"]


def test_own_units_come_back(tmp_path):
    (tmp_path / "data.npy").write_bytes(files.npy(POWER))
    manifest = prepare(Request("power", tmp_path / "data.npy", tmp_path / "made"))
    train = np.load(tmp_path / "made/train.npy") * manifest.std + manifest.mean
    step = np.array([1e-3, 1e-2, 1, 1, 1, 1e-9])
    order = np.random.RandomState(42).permutation(len(POWER))[: len(train)]
    noise = train - POWER[order][:, [0, 2, 4, 5, 6, 7]]
    assert (noise > -1e-9).all()
    assert (noise < step + 1e-9).all()


def test_the_same_files_give_the_same_manifest(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "data.npy").write_bytes(files.npy(POWER))
        prepare(Request("power", tmp_path / place / "data.npy", tmp_path / place / "made"))
    one, two = ((tmp_path / place / "made/manifest.json").read_text() for place in ("one", "two"))
    assert one == two


def test_float32(tmp_path):
    (tmp_path / "data.npy").write_bytes(files.npy(POWER))
    prepare(Request("power", tmp_path / "data.npy", tmp_path / "made", dtype="float32"))
    assert_made(tmp_path / "made", "power", naive.power(POWER), "float32", 1e-6)


def test_a_set_of_the_published_size_is_no_sample(tmp_path, monkeypatch):
    (tmp_path / "data.npy").write_bytes(files.npy(POWER))
    facts = BENCHMARKS["power"]
    sizes = tuple(len(part) for part in naive.power(POWER))
    monkeypatch.setitem(preparing.BENCHMARKS, "power", type(facts)(**{**vars(facts), "rows": sizes}))
    manifest = prepare(Request("power", tmp_path / "data.npy", tmp_path / "made"))
    assert not manifest.sample
    assert len(manifest.notes) == 1


def test_the_real_file(tmp_path, monkeypatch):
    monkeypatch.undo()
    folder = os.environ.get("SPARSEFLOWS_DATA")
    if not folder:
        pytest.skip("needs household_power_consumption_2007H1.txt.gz in the folder that SPARSEFLOWS_DATA names")
    pandas = pytest.importorskip("pandas")
    source = Path(folder) / "household_power_consumption_2007H1.txt.gz"
    manifest = prepare(Request("POWER", source, tmp_path / "made"))
    assert sum(manifest.rows.values()) == 256_869
    table = pandas.read_csv(source, sep=";", na_values="?").dropna()
    assert len(table) == 256_869
    minutes = table["Time"].str[:2].astype(int) * 60 + table["Time"].str[3:5].astype(int)
    rows = np.column_stack((table.iloc[:, 2:].to_numpy(dtype=np.float64), minutes))
    assert_made(tmp_path / "made", "power", naive.power(rows), tolerance=1e-11)


# --- GAS


GAS = files.gas_rows()


def test_gas_from_raw_text(tmp_path):
    text = files.gas_text(GAS).encode()
    (tmp_path / "ethylene_CO.txt").write_bytes(text)
    files.write_zip(tmp_path / "gas.zip", [("ethylene_CO.txt", text), ("ethylene_methane.txt", b"no")])
    for k, (source, seed) in enumerate(
        [(tmp_path / "ethylene_CO.txt", None), (tmp_path / "gas.zip", 0), (tmp_path / "ethylene_CO.txt", 5)]
    ):
        prepare(Request("gas", source, tmp_path / f"made-{k}", seed=seed))
        wanted = naive.gas_raw(GAS, seed or 0)
        manifest = assert_made(tmp_path / f"made-{k}", "gas", wanted)
        assert manifest.sample
        assert f"seed {seed or 0}" in manifest.notes[0]
        assert 10 <= len(manifest.columns) < 16
        assert "sensor_16" in manifest.columns  # it follows another, but upside down
    (tmp_path / "ethylene_CO.txt").unlink()
    files.write_gz(tmp_path / "ethylene_CO.txt.gz", text)
    (tmp_path / "gas.zip").rename(tmp_path / "elsewhere")
    prepare(Request("gas", tmp_path, tmp_path / "last"))
    assert_made(tmp_path / "last", "gas", naive.gas_raw(GAS))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_gas_from_the_pickle(tmp_path, protocol):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(GAS, columns=files.gas_names()).sample(frac=0.25, random_state=1)
    data = pickle.dumps(frame, protocol=protocol)
    archive = files.write_tar(tmp_path / "data.tar.gz", [("data/gas/ethylene_CO.pickle", data)])
    prepare(Request("gas", archive, tmp_path / "made", allow_pickle=True))
    manifest = assert_made(tmp_path / "made", "gas", naive.gas(frame.to_numpy()[:, 3:]))
    assert all(name.startswith("CO.") for name in manifest.columns)


def test_gas_from_a_pickle_of_2016(tmp_path):
    """The published one is of that time."""
    pytest.importorskip("pandas")
    (tmp_path / "ethylene_CO.pickle").write_bytes(files.old_pickle(GAS, files.gas_names()))
    prepare(Request("gas", tmp_path, tmp_path / "made", allow_pickle=True))
    assert_made(tmp_path / "made", "gas", naive.gas(GAS[:, 3:]))


# --- HEPMASS


TRAIN, TEST = files.hepmass_rows(900, 4), files.hepmass_rows(400, 5, 29)


def hepmass_sources(folder):
    train, test = files.hepmass_text(TRAIN).encode(), files.hepmass_text(TEST, ',"mass"').encode()
    short = files.hepmass_text(TEST[:, :28], ',"mass"').encode()  # the header names a column that the rows lack
    comma = short.replace(b"\n", b",\n")
    for k, content in enumerate((test, short, comma)):
        (folder / f"{k}/x/hepmass").mkdir(parents=True)
        (folder / f"{k}/x/hepmass/1000_train.csv").write_bytes(train)
        (folder / f"{k}/x/hepmass/1000_test.csv").write_bytes(content)
        yield folder / f"{k}"
    (folder / "gz").mkdir()
    files.write_gz(folder / "gz/1000_train.csv.gz", train)
    files.write_gz(folder / "gz/1000_test.csv.gz", test)
    yield folder / "gz"
    yield files.write_zip(folder / "a.zip", [("1000_test.csv", test), ("1000_train.csv", train)])
    yield files.write_zip(
        folder / "b.zip", [("1000_train.csv.gz", gzip.compress(train)), ("1000_test.csv.gz", gzip.compress(test))]
    )
    yield files.write_tar(
        folder / "c.tar.gz", [("data/hepmass/1000_test.csv", test), ("data/hepmass/1000_train.csv", train)]
    )


def test_hepmass_from_every_source(tmp_path):
    wanted = naive.hepmass(TRAIN, TEST)
    assert wanted[0].shape[1] == 25
    for k, source in enumerate(hepmass_sources(tmp_path)):
        prepare(Request("HepMass", source, tmp_path / f"made-{k}"))
        manifest = assert_made(tmp_path / f"made-{k}", "hepmass", wanted)
        assert {"f2", "f13"}.isdisjoint(manifest.columns)
        assert {"f6", "f10", "f12"} <= set(manifest.columns)
        assert any("25 columns are left, the published set has 21" in note for note in manifest.notes)


# --- MINIBOONE


MINIBOONE = files.miniboone_rows()


def test_miniboone_from_raw_text(tmp_path):
    text = files.miniboone_text(MINIBOONE, 500).encode()
    (tmp_path / "MiniBooNE_PID.txt").write_bytes(text)
    wanted = naive.miniboone_raw(MINIBOONE, 500)
    assert wanted[0].shape[1] == 43
    zipped = files.write_zip(tmp_path / "130.zip", [("MiniBooNE_PID.txt", text)])
    for k, source in enumerate((tmp_path / "MiniBooNE_PID.txt", zipped, tmp_path)):
        prepare(Request("miniboone", source, tmp_path / f"made-{k}"))
        manifest = assert_made(tmp_path / f"made-{k}", "miniboone", wanted)
        assert len(manifest.columns) == 43


def test_miniboone_from_the_archive(tmp_path):
    clean = np.random.default_rng(0).normal(size=(400, 43)) * 3 + 2
    archive = files.write_tar(tmp_path / "data.tgz", [("data/miniboone/data.npy", files.npy(clean))])
    prepare(Request("miniboone", archive, tmp_path / "made"))
    assert_made(tmp_path / "made", "miniboone", naive.miniboone(clean))


# --- BSDS300


def test_bsds300(tmp_path):
    pytest.importorskip("h5py")
    arrays = files.patches()
    file = files.hdf5(tmp_path / "BSDS300.hdf5", arrays)
    (tmp_path / "unpacked/BSDS300").mkdir(parents=True)
    shutil.copy(file, tmp_path / "unpacked/BSDS300")
    archive = files.write_tar(tmp_path / "all.tar.gz", [("data/BSDS300/BSDS300.hdf5", file.read_bytes())])
    for k, source in enumerate((file, tmp_path / "unpacked", archive)):
        prepare(Request("bsds300", source, tmp_path / f"made-{k}"))
        manifest = assert_made(tmp_path / f"made-{k}", "bsds300", arrays.values(), tolerance=0)
        assert manifest.mean is None
        assert manifest.std is None


def test_all_five_from_one_archive(tmp_path):
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("h5py")
    clean = np.random.default_rng(0).normal(size=(400, 43))
    frame = pandas.DataFrame(GAS, columns=files.gas_names())
    members = {
        "power/data.npy": files.npy(POWER),
        "gas/ethylene_CO.pickle": pickle.dumps(frame),
        "hepmass/1000_train.csv": files.hepmass_text(TRAIN).encode(),
        "hepmass/1000_test.csv": files.hepmass_text(TEST).encode(),
        "miniboone/data.npy": files.npy(clean),
        "BSDS300/BSDS300.hdf5": files.hdf5(tmp_path / "x.hdf5", files.patches()).read_bytes(),
    }
    archive = files.write_tar(tmp_path / "data.tar.gz", [(f"data/{name}", data) for name, data in members.items()])
    wanted = {
        "power": naive.power(POWER),
        "gas": naive.gas(GAS[:, 3:]),
        "hepmass": naive.hepmass(TRAIN, TEST),
        "miniboone": naive.miniboone(clean),
        "bsds300": files.patches().values(),
    }
    for name, parts in wanted.items():
        prepare(Request(name, archive, tmp_path / name, allow_pickle=True))
        assert_made(tmp_path / name, name, parts)
        document = json.loads((tmp_path / name / "manifest.json").read_text())
        assert document["source"]["path"] == "data.tar.gz"
        assert document["source"]["files"][0]["bytes"] == archive.stat().st_size
