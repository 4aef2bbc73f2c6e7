"""A table of one's own from a file to its parts: columns, missing rows and maps, in memory and on disk."""

import pickle

import numpy as np
import pytest

from sparseflows.data.splits import make_splits
from sparseflows.data.tables.choosing import Reading
from sparseflows.data.tables.mapped import MappedRows
from sparseflows.errors import InputError

ROWS = 2000


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    array = np.c_[np.arange(ROWS), np.exp(2.5 * rng.normal(size=ROWS)), rng.normal(size=ROWS), rng.beta(2, 3, ROWS)]
    array[::10, 2] = np.nan
    np.save(tmp_path / "t.npy", array)
    return tmp_path / "t.npy"


@pytest.fixture(params=[False, True], ids=["in memory", "on disk"])
def large(request, monkeypatch):
    if request.param:
        monkeypatch.setattr("sparseflows.data.tables.mapped.IN_MEMORY_BYTES", 100)
    return request.param


READING = Reading(drop=(1,), missing="drop")
MAPS = {"2": "log", "4": {"logit": [0, 1]}}  # places in the file


def test_columns_missing_rows_and_maps(table, large):
    splits = make_splits("table", str(table), reading=READING, transform=MAPS)
    assert isinstance(splits.train, MappedRows) == large
    parts = [np.asarray(part) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [1440, 180, 180]
    whole = np.load(table)[:, 1:]
    whole = whole[~np.isnan(whole).any(axis=1)]
    own = splits.standardiser.invert(np.concatenate(parts))
    np.testing.assert_allclose(own[np.argsort(own[:, 0])], whole[np.argsort(whole[:, 0])], rtol=1e-9)
    np.testing.assert_allclose(parts[0].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(parts[0].std(axis=0), 1, rtol=1e-9)
    training = splits.standardiser.invert(parts[0])
    np.testing.assert_allclose(splits.standardiser.shift, training.mean(axis=0))  # the columns', not the maps'
    np.testing.assert_allclose(splits.standardiser.scale, training.std(axis=0))
    assert splits.notes == ("left out 200 of 2,000 rows in which a value is missing (data.missing: drop)",)
    assert splits.warnings == ()
    again = pickle.loads(pickle.dumps(splits))
    np.testing.assert_array_equal(np.asarray(again.train), parts[0])


def test_notes_name_the_columns_that_are_left(table, large):
    splits = make_splits("table", str(table), reading=READING)
    (note,) = splits.warnings
    assert note.startswith("column 2: heavy tails")
    assert '{"2": log}' in note
    (note, *_) = make_splits("table", str(table), reading=Reading(missing="drop")).warnings
    assert note.startswith("column 1: ")
    assert "data.drop: [1]" in note


@pytest.mark.parametrize(
    ("reading", "maps", "words"),
    [
        (Reading(drop=(1,)), {}, "NaN"),
        (Reading(drop=(9,)), {}, "data.drop says '9'"),
        (READING, {"3": "log"}, "has no logarithm"),
        (READING, {"7": "log"}, "data.transform says '7'"),
        (
            READING,
            {"1": "log"},
            "'1', but no column that is trained on has that place (there are: 2, 3, 4)",
        ),
        (READING, {"4": {"logit": [0, 0.5]}}, "not between 0 and 0.5"),
    ],
)
def test_refusals(table, large, reading, maps, words):
    with pytest.raises(InputError) as caught:
        np.asarray(make_splits("table", str(table), reading=reading, transform=maps).test)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_maps_are_fitted_to_the_training_rows_alone(table):
    splits = make_splits("table", str(table), n_train=300, reading=READING, transform={"2": "rank"})
    training = np.sort(splits.standardiser.invert(splits.train)[:, 0])
    knots = dict(splits.standardiser.maps)[0].values
    assert training[0] <= knots[0]
    assert knots[-1] <= training[-1]
    np.testing.assert_allclose(np.quantile(training, (np.arange(len(knots)) + 0.5) / len(knots)), knots)


def test_an_index_before_an_array_and_the_order_of_its_rows(tmp_path, large):
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(ROWS, 2)), axis=0)
    np.save(tmp_path / "w.npy", np.c_[np.arange(ROWS), walk])
    splits = make_splits("table", str(tmp_path / "w.npy"), reading=Reading(index=True))
    assert isinstance(splits.train, MappedRows) == large
    own = splits.standardiser.invert(np.concatenate([np.asarray(part) for part in (splits.train, splits.test)]))
    assert np.isin(np.round(own, 9), np.round(walk, 9)).all()
    assert len(splits.warnings) == 1
    assert "rows resemble the one before" in splits.warnings[0]
    assert "column 2" in splits.warnings[0] or "column 3" in splits.warnings[0]  # places in the file
    with pytest.raises(InputError, match="no first line"):
        make_splits("table", str(tmp_path / "w.npy"), reading=Reading(header=False))


@pytest.mark.parametrize(
    ("rows", "said"),
    [(8, "1 row to validate and 1 row to test"), (24, "2 rows to validate and 2 rows to test"), (30, "")],
)
def test_parts_with_hardly_any_row_are_told(tmp_path, rows, said):
    np.save(tmp_path / "few.npy", np.random.default_rng(0).normal(size=(rows, 2)))
    notes = make_splits("table", str(tmp_path / "few.npy")).notes
    assert [note.split(":")[0] for note in notes] == [said] * bool(said)
