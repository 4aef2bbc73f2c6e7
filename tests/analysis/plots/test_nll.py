from __future__ import annotations

import io
import logging
import struct

import numpy as np
import pytest

from analysis.plots.nll import vs_params_arrays, vs_params_figure
from analysis.runs.records import read_run
from analysis.tables.means import tabulate


def tables_of(*runs):
    return [table for run in runs for table in tabulate(read_run(run))]


def test_arrays_are_the_table(make_run, rows_of):
    (table,) = tables_of(make_run(rows_of()))
    arrays = vs_params_arrays([table])
    for name, values in {
        "label": [row.label for row in table.rows],
        "stage": [row.stage for row in table.rows],
        "params": [row.params for row in table.rows],
        "prune_ratio": [row.prune_ratio for row in table.rows],
        "nll": [row.nll_test.value for row in table.rows],
        "nll_se": [row.nll_test.se for row in table.rows],
        "kl_gap": [row.kl_gap.value for row in table.rows],
    }.items():
        assert arrays[name].tolist() == values
    assert arrays["entropy"] == pytest.approx(0.5)
    assert arrays["se_over"] == "3 seeds"


def test_failed_stages_are_no_points(make_run, rows_of, failed_of):
    rows = rows_of() + [failed_of("structured", seed, 3, "no") for seed in range(3)]
    assert vs_params_arrays(tables_of(make_run(rows)))["nll"].size == 5


def test_no_entropy_without_a_kl_gap(make_run, rows_of):
    arrays = vs_params_arrays(tables_of(make_run([row | {"kl_gap": ""} for row in rows_of()])))
    assert "entropy" not in arrays
    assert np.isnan(arrays["kl_gap"]).all()


def test_labels_say_what_differs(make_run, rows_of):
    one = make_run(rows_of(), folder="one", name="same")
    flow_matching = make_run([row | {"objective": "fm"} for row in rows_of()], folder="two", name="same")
    again = make_run(rows_of([0]), folder="three", name="again")
    twin = make_run(rows_of(), folder="four", name="same")
    by_objective = vs_params_arrays(tables_of(one, flow_matching))
    assert {"dense (nll)", "structured (fm)"} <= set(by_objective["label"].tolist())
    by_name = vs_params_arrays(tables_of(one, again))
    assert {"dense (same)", "structured (again)"} <= set(by_name["label"].tolist())
    assert by_name["se_over"] == "3 seeds, or the test set"
    by_folder = vs_params_arrays(tables_of(one, twin))
    assert len(set(by_folder["label"].tolist())) == 6


def test_one_data_set_a_figure(make_run, rows_of):
    other = make_run([row | {"dataset": "moons"} for row in rows_of()], folder="other")
    with pytest.raises(ValueError, match="one data set"):
        vs_params_arrays(tables_of(make_run(rows_of()), other))


def test_files(make_run, rows_of):
    arrays = vs_params_arrays(tables_of(make_run(rows_of())))
    files = vs_params_figure(arrays)
    assert files["png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", files["png"][16:24]) == (1280, 800)  # 6.4 x 4 inches at 200 dpi
    assert len(files["png"]) > 15_000
    assert files["pdf"].startswith(b"%PDF")
    assert len(files["pdf"]) > 5_000
    with np.load(io.BytesIO(files["npz"])) as saved:
        assert set(saved) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(saved[name], array)
    assert vs_params_figure(arrays) == files  # the same points give the same bytes


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["dense only", "odd names", "several runs", "no error", "three decades"])
def test_draws_without_a_warning(make_run, rows_of, row_of, kind, capfd):
    rows = rows_of()
    if kind == "dense only":
        rows = rows[:1]
    elif kind == "odd names":
        rows = [row | {"method": row["method"].replace("unstructured", "_$x^"), "dataset": "字$"} for row in rows]
    elif kind == "no error":
        rows = [row | {"nll_test_se": ""} for row in rows_of([0])]
    elif kind == "three decades":
        rows = [row_of("a", 0, k, 10**k, 1.0 / k, dense=10**5) for k in range(1, 6)]
    runs = [make_run(rows, folder=f"run{k}") for k in range(2 if kind == "several runs" else 1)]
    assert vs_params_figure(vs_params_arrays(tables_of(*runs)))["png"]
    assert capfd.readouterr() == ("", "")


def test_nothing_global_is_left_behind(make_run, rows_of):
    import matplotlib

    with matplotlib.rc_context({"font.size": 17.0}):
        level = logging.getLogger("matplotlib").level
        vs_params_figure(vs_params_arrays(tables_of(make_run(rows_of()))))
        assert matplotlib.rcParams["font.size"] == 17.0
        assert logging.getLogger("matplotlib").level == level


def test_the_axes_of_params(make_run, rows_of, drawn):
    vs_params_figure(vs_params_arrays(tables_of(make_run(rows_of()))))
    ((axes, ratios),) = [figure.axes for figure in drawn]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "params", "test NLL (nats)")
    low, high = axes.get_xlim()
    assert low < 240 < 1000 < high
    assert ratios.get_xlim() == (low, high)
    assert [label.get_text() for label in ratios.get_xticklabels()] == ["0 %", "50 %", "75 %"]
    assert ratios.get_xlabel() == "prune ratio"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["dense", "unstructured", "structured", "entropy of the true density"]
    points = {line.get_marker(): len(line.get_xdata()) for line in axes.lines if line.get_marker() in ("*", "o", "s")}
    assert points == {"*": 1, "o": 2, "s": 2}
    assert len(axes.containers) == 3  # each with its error bars


def test_a_long_legend_stands_below_in_as_many_columns_as_fit(make_run, rows_of, drawn):
    runs = [make_run(rows_of(), folder=f"run{k}", name=f"{'long ' * 8}{k}") for k in range(4)]
    vs_params_figure(vs_params_arrays(tables_of(*runs)))
    (figure,) = drawn
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 13
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    assert figure.axes[0].get_legend() is None


def test_nothing_to_draw(make_run, failed_of):
    arrays = vs_params_arrays(tables_of(make_run([failed_of("dense", 0, 0, "no")])))
    with pytest.raises(ValueError, match="nothing to draw"):
        vs_params_figure(arrays)
