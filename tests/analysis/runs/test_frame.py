"""The frame of results: what results.csv holds, and the same means as the tables'."""

import math

import numpy as np
import pytest

import analysis
from analysis.runs.frame import means
from analysis.runs.records import read_run
from analysis.tables.means import tabulate
from sparseflows.errors import InputError


def test_a_row_a_stage_with_the_columns_of_the_file(make_run, rows_of, failed_of):
    run = make_run([*rows_of(), failed_of("structured", 0, 3, "underflow in dt")])
    table = analysis.frame(run)
    assert len(table) == 16
    assert (table["run"] == str(run)).all()
    assert table["dense"].sum() == 3
    assert table.loc[table["status"] == "failed", "nll_test"].isna().all()
    assert set((run / "results.csv").read_text().splitlines()[0].split(",")) <= set(table.columns)
    assert len(analysis.frame(run, read_run(run))) == 32


def test_means_are_those_of_the_table(make_run, rows_of, failed_of):
    run = make_run([*rows_of(), failed_of("structured", 0, 3, "underflow in dt")])
    found = means(analysis.frame(run)).set_index(["method", "stage"])
    (table,) = tabulate(read_run(run))
    rows = [row for row in table.rows if row.seeds_done]
    assert len(found) == len(rows)
    for row in rows:
        mean = found.loc[(row.method, row.stage)]
        assert mean["seeds"] == row.seeds_done
        assert mean["nll_test"] == pytest.approx(row.nll_test.value, rel=1e-14)  # a sum of three, in another order
        assert mean["nll_test_se"] == pytest.approx(row.nll_test.se, rel=1e-12)
        assert math.isnan(mean["accuracy_test"])


def test_one_seed_has_no_error(make_run, rows_of):
    found = means(analysis.frame(make_run(rows_of([0]))), ["kl_gap"])
    assert np.isnan(found["kl_gap_se"]).all()


def test_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        analysis.frame(tmp_path / "nothing")
