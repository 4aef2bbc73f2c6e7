"""Tables in files that know their types: arrays, Parquet, workbooks."""

import numpy as np
import pandas as pd
import pytest

from sparseflows.data.tables.choosing import Expected, Reading
from sparseflows.data.tables.loading import load_points, load_table
from sparseflows.errors import InputError

A, B = [1.5, -2.25, 7.0, 0.125, 3.5], [10.5, 20.25, 3.0, 40.0625, 5.5]
ROWS = np.array([A, B]).T
FRAME = pd.DataFrame({"a": A, "b": B})


def refusal(path, **how):
    with pytest.raises(InputError) as caught:
        load_table(path, Reading(**how))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_index_is_left_out_of_every_kind_of_file(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 3)).round(6)
    rows[:, 0] = np.arange(12)
    np.save(tmp_path / "r.npy", rows)
    table = load_table(tmp_path / "r.npy", Reading(index=True))
    np.testing.assert_array_equal(table.values, rows[:, 1:])
    assert table.called == [2, 3]
    assert load_points(tmp_path / "r.npy", Expected(2), Reading(index=True)).values.shape == (12, 2)
    assert load_points(tmp_path / "r.npy", Expected(3), Reading(index=True)).values.shape == (12, 3)
    assert "no first line" in refusal(tmp_path / "r.npy", header=True)
    text = tmp_path / "r.csv"
    text.write_text(FRAME.to_csv(index=False))  # as `sample` writes it for a run whose own file has an index
    np.testing.assert_array_equal(load_points(text, Expected(2, ("a", "b")), Reading(index=True)).values, ROWS)
    pytest.importorskip("pyarrow")
    pd.DataFrame(rows).rename(columns=str).to_parquet(tmp_path / "r.parquet")
    np.testing.assert_array_equal(load_table(tmp_path / "r.parquet", Reading(index=True)).values, rows[:, 1:])
    pytest.importorskip("openpyxl")
    pd.DataFrame(rows).to_excel(tmp_path / "r.xlsx", index=False, header=False)
    table = load_table(tmp_path / "r.xlsx")
    np.testing.assert_array_equal(table.values, rows[:, 1:])
    assert "data.index" in table.notes[0]
    assert load_points(tmp_path / "r.xlsx", Expected(2)).values.shape == (12, 2)


def test_typed_files_of_nothing_and_of_lists(tmp_path):
    pytest.importorskip("pyarrow")
    FRAME.assign(both=[[1.0, 2.0]] * 5).to_parquet(tmp_path / "r.parquet")
    assert "'both' holds text" in refusal(tmp_path / "r.parquet")
    FRAME[[]].to_parquet(tmp_path / "r.parquet")
    assert "is empty" in refusal(tmp_path / "r.parquet")
    pytest.importorskip("openpyxl")
    with pd.ExcelWriter(tmp_path / "r.xlsx") as book:
        pd.DataFrame().to_excel(book, sheet_name="nothing", index=False)
        FRAME.to_excel(book, sheet_name="rows")
    assert "is empty" in refusal(tmp_path / "r.xlsx")


def test_cells_of_a_workbook(tmp_path):
    pytest.importorskip("openpyxl")
    texts = FRAME.rename(columns={"a": "a\nin m"}).map(lambda x: str(x).replace(".", ","))
    texts.to_excel(tmp_path / "r.xlsx", index=False)
    table = load_table(tmp_path / "r.xlsx")
    np.testing.assert_array_equal(table.values, ROWS)
    assert table.names == ("a in m", "b")
