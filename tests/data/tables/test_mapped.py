"""Rows on disk read as rows in memory do."""

import pickle

import numpy as np
import pytest

from sparseflows.data import splits
from sparseflows.data.splits import make_splits
from sparseflows.data.tables import mapped
from sparseflows.data.tables.mapped import TEST, TRAIN, VALIDATION, MappedRows, assign, check_table, fit_columns
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import InputError


@pytest.fixture
def table():
    return np.random.default_rng(0).normal(3, 2, (1000, 3)).astype(np.float32)


@pytest.fixture
def file(table, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 12 * 64)  # blocks of 64 rows, the last one of 40
    np.save(tmp_path / "table.npy", table)
    return tmp_path / "table.npy"


def test_without_labels_it_is_the_file(file, table):
    rows = MappedRows(file)
    assert (rows.shape, len(rows), rows.ndim, rows.blocks) == ((1000, 3), 1000, 2, 16)
    assert np.array_equal(np.asarray(rows), table.astype(np.float64))
    assert np.asarray(rows).dtype == np.float64
    assert np.array_equal(rows[[5, 999, 5, 64, 63]], table[[5, 999, 5, 64, 63]])
    assert np.array_equal(rows[10:500:7], table[10:500:7])
    assert np.array_equal(rows[-1], table[-1])
    assert np.array_equal(np.concatenate([rows.block(k) for k in range(rows.blocks)]), table)


def test_with_labels_it_is_one_part_in_the_order_of_the_file(file, table):
    labels = np.random.default_rng(1).integers(3, size=1000).astype(np.uint8)
    labels[64:128] = TRAIN  # a block without validation rows
    scale = Standardiser(np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 4.0]))
    for part in (TRAIN, VALIDATION, TEST):
        rows, own = MappedRows(file, labels, part, scale), scale.apply(table[labels == part].astype(np.float64))
        assert np.array_equal(np.asarray(rows), own)
        order = np.random.default_rng(2).permutation(len(own))
        assert np.array_equal(rows[order], own[order])
        assert np.array_equal(np.concatenate([rows.block(k) for k in range(rows.blocks)]), own)
        assert rows.block_sizes().sum() == len(own)


def test_it_survives_the_way_to_a_worker(file, table):
    rows = pickle.loads(pickle.dumps(MappedRows(file, np.zeros(1000, np.uint8))))
    assert np.array_equal(np.asarray(rows), table.astype(np.float64))


@pytest.mark.parametrize("rows", [10, 1000, 2**20 + 5, 3 * 2**20])
def test_assign_gives_exact_shares_in_every_place(rows):
    labels = assign(rows, 0.1, 0.2, np.random.default_rng(0))
    assert [int((labels == part).sum()) for part in (VALIDATION, TEST)] == [round(0.1 * rows), round(0.2 * rows)]
    if rows > 2**20:  # each half of the file has its share: 5 standard deviations of a hypergeometric draw
        half = (labels[: rows // 2] == TEST).mean()
        assert abs(half - 0.2) < 5 * np.sqrt(0.2 * 0.8 / rows)


def test_fit_columns_is_the_naive_fit(file, table):
    labels = assign(1000, 0.1, 0.1, np.random.default_rng(0))
    found = fit_columns(MappedRows(file, labels), "x")
    naive = Standardiser.fit_columns(table[labels == TRAIN].astype(np.float64))
    # float64 sums of 800 numbers: a few ulp
    np.testing.assert_allclose(found.shift, naive.shift, rtol=1e-13)
    np.testing.assert_allclose(found.scale, naive.scale, rtol=1e-13)


def test_a_large_table_is_split_like_a_small_one(file, table, monkeypatch):
    monkeypatch.setattr(mapped, "IN_MEMORY_BYTES", 1000)
    made = make_splits("table", str(file), val_fraction=0.1, test_fraction=0.2)
    parts = [np.asarray(rows) for rows in (made.train, made.validation, made.test)]
    assert [len(part) for part in parts] == [700, 100, 200]
    assert all(isinstance(rows, MappedRows) for rows in (made.train, made.validation, made.test))
    np.testing.assert_allclose(parts[0].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(parts[0].std(0), 1, rtol=1e-12)
    everything = made.standardiser.invert(np.concatenate(parts))
    np.testing.assert_allclose(
        everything[np.lexsort(everything.T)], table[np.lexsort(table.T)].astype(np.float64), rtol=1e-12
    )
    again = make_splits("table", str(file), val_fraction=0.1, test_fraction=0.2, seed=1)
    assert not np.array_equal(np.asarray(again.test), parts[2])
    some = make_splits("table", str(file), n_train=50)
    assert isinstance(some.train, np.ndarray)
    assert some.train.shape == (50, 3)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.__setitem__((70, 1), np.nan), "row 71, column 2"),
        (lambda t: t.__setitem__((slice(None), 2), 4.0), "column 3 (always 4)"),
    ],
)
def test_a_large_table_is_refused_as_a_small_one(file, table, monkeypatch, spoil, said):
    monkeypatch.setattr(mapped, "IN_MEMORY_BYTES", 1000)
    spoil(table)
    np.save(file, table)
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        make_splits("table", str(file))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 2), complex), "complex128"),
        (np.zeros(9), "shape"),
        (np.zeros((2, 3)), "fewer|transpose"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(InputError, match=said):
        check_table(tmp_path / "x.npy")


def test_only_large_npy_files_are_large(file, tmp_path, monkeypatch):
    assert not mapped.is_large(file)
    monkeypatch.setattr(mapped, "IN_MEMORY_BYTES", 1000)
    assert mapped.is_large(file)
    assert not mapped.is_large(tmp_path / "missing.npy")
    assert not mapped.is_large(file.with_suffix(".csv"))
    assert splits.is_large is mapped.is_large
