"""Copies of a row: found whatever the sign of a zero, and never in two parts of a split."""

import numpy as np
import pytest

from sparseflows.data.splits import make_splits
from sparseflows.data.tables.choosing import Reading
from sparseflows.data.tables.copies import groups_of, row_hashes, split_groups
from sparseflows.data.tables.mapped import MappedRows
from sparseflows.data.tables.tabular import split
from sparseflows.errors import InputError

RNG = np.random.default_rng(0)


def groups(rows):
    return groups_of([row_hashes(rows)])


@pytest.mark.parametrize("seed", range(3))
def test_without_copies_the_split_is_the_one_of_rows(seed):
    rows = RNG.normal(size=(401, 3))
    assert groups(rows).tolist() == list(range(401))
    wanted = split(rows, 0.1, 0.15, np.random.default_rng(seed))
    found = split_groups(groups(rows), 0.1, 0.15, np.random.default_rng(seed))
    assert all(np.array_equal(rows[numbers], part) for numbers, part in zip(found, wanted, strict=True))


def test_groups_are_those_of_equal_rows():
    rows = RNG.integers(0, 3, size=(200, 3)).astype(float) * RNG.choice([-1.0, 1.0], (200, 1))  # with −0
    found = groups(rows)
    for k in range(len(rows)):
        np.testing.assert_array_equal(found == found[k], (rows == rows[k]).all(axis=1))
    swapped = groups(np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0]]))
    assert swapped.tolist() == [0, 1, 0]


@pytest.mark.parametrize("times", [2, 5])
def test_copies_share_a_part(times):
    rows = np.tile(RNG.normal(size=(300, 2)), (times, 1))
    parts = [
        {tuple(row) for row in rows[part]} for part in split_groups(groups(rows), 0.1, 0.2, np.random.default_rng(0))
    ]
    assert sum(map(len, parts)) == len(set.union(*parts))
    sizes = [times * len(part) for part in parts]
    assert sum(sizes) == len(rows)
    np.testing.assert_allclose(sizes, np.array([0.7, 0.1, 0.2]) * len(rows), atol=times)


def test_too_few_different_rows():
    with pytest.raises(InputError, match="10 rows, 2 of them different"):
        split_groups(groups(np.tile([[1.0], [2.0]], (5, 1))), 0.1, 0.1, np.random.default_rng(0))


@pytest.mark.parametrize("large", [False, True])
def test_a_table_in_which_every_row_is_twice(tmp_path, monkeypatch, large):
    once = RNG.normal(size=(500, 2))
    path = tmp_path / "twice.npy"
    np.save(path, np.r_[once, once])
    if large:
        monkeypatch.setattr("sparseflows.data.tables.mapped.IN_MEMORY_BYTES", 100)
    splits = make_splits("table", str(path))
    assert isinstance(splits.train, MappedRows) == large
    parts = [
        {tuple(np.round(row, 9)) for row in np.asarray(part)} for part in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert any("500 of 1,000 rows are copies" in note for note in splits.warnings)
    assert splits.decided == ("copies",)
    dropped = make_splits("table", str(path), reading=Reading(copies="drop"))
    assert sum(map(len, (dropped.train, dropped.validation, dropped.test))) == 500
    assert any("left out 500 of 1,000 rows" in note for note in dropped.notes)
    np.save(path, once)
    alone = make_splits("table", str(path))
    np.testing.assert_array_equal(np.asarray(alone.train), np.asarray(dropped.train))
    assert alone.warnings == alone.decided == ()
