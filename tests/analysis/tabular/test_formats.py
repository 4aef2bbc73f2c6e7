"""The tabular table as text, CSV, Markdown, LaTeX, JSON, and the points of its figure."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from analysis.plots.tabular import tabular_arrays, tabular_figure, y_limits
from analysis.reference import load_reference
from analysis.tables.markup import latex, markdown
from analysis.tables.numbers import Mean, fixed
from analysis.tables.text import text as sheet_text
from analysis.tabular.formats import TEXT_WIDTH, params_label, sheet, to_json
from analysis.tabular.formats import rows_csv as to_csv
from analysis.tabular.front import Point
from analysis.tabular.table import OURS, OURS_SPARSE, Cell, Curve, Line, TabularTable, tabular_table
from analysis.tabular.words import with_words

PUBLISHED = load_reference().tabular


def to_text(table):
    return sheet_text(sheet(table), width=TEXT_WIDTH)


def to_markdown(table):
    return markdown(sheet(table))


def to_latex(table):
    return latex(sheet(table))


def published():
    return with_words(tabular_table([], {}, PUBLISHED), [], {}, PUBLISHED)[0]


def ours(*titles, se=0.123456, **changes):
    """A table of our own: two models and one Sparse Flow on each set, their numbers to seventeen digits."""
    dense = {title: Cell(Mean(-10.1 / 3 - k, se), 43_300, bold=True) for k, title in enumerate(titles)}
    gaussian = {titles[0]: Cell(Mean(1 / 3, None), 27, chosen="none")}
    sparse = {
        title: Cell(Mean(-11.0 - k, se), 8_660.5, True, "unstructured stage 1, PR 80 %")
        for k, title in enumerate(titles)
    }
    lines = (
        Line("Gaussian (ours)", OURS, gaussian),
        Line("FFJORD (ours)", OURS, dense),
        Line("Sparse Flow, ours, 1", OURS_SPARSE, sparse),
    )
    values = {"comparable": titles, "apart": (), "curves": (), "notes": ("a note",), "comparisons": ("a sentence",)}
    return TabularTable(titles, lines, **(values | changes))


@pytest.mark.parametrize(
    ("count", "label"),
    [
        *((None, "-"), (27, "27"), (999, "999"), (999.6, "1.00K"), (6000, "6.00K"), (43_300, "43.3K")),
        *((147_000, "147K"), (999_499, "999K"), (999_600, "1.00M"), (6_700_000, "6.70M"), (22_300_000, "22.3M")),
    ],
)
def test_params_as_published(count, label):
    assert params_label(count) == label


@pytest.mark.parametrize(
    ("mean", "label"),
    [
        (Mean(-148.854, None), "-148.85"),
        (Mean(0.456, 0.123), "0.46 ± 0.12"),
        (Mean(1.0, 0.001), "1.00 ± <0.01"),
        (Mean(1.0, 0.0), "1.00 ± 0.00"),
        (Mean(2e9, 3e8), "2.00e+09 ± 3.00e+08"),
    ],
)
def test_nats_to_two_decimals(mean, label):
    assert fixed(mean) == label


def test_text_of_the_published_rows():
    lines = to_text(published()).splitlines()
    assert max(map(len, lines)) <= 160
    (titles,) = [line.split() for line in lines if "POWER" in line and "GAS" in line and ";" not in line][:1]
    assert titles == list(PUBLISHED.datasets)
    (naf,) = [line.split() for line in lines if line.startswith("NAF")]
    wanted = "* -0.62 451K -11.96 443K 15.09 10.7M * 8.86 8.03M -157.73 42.3M"
    assert " ".join(naf).endswith(wanted)
    (tan,) = [line.split() for line in lines if line.startswith("TAN")]
    assert " ".join(tan).endswith("-0.60 - * -12.06 - * 13.78 - 11.01 - * -159.80 -")
    assert "FFJORD's own paper gives other values" in " ".join(lines)


def test_five_sets_with_errors_stand_side_by_side():
    table = ours(*PUBLISHED.datasets)
    rows = {line.model: line for line in published().lines} | {line.model: line for line in table.lines}
    text = to_text(TabularTable(table.datasets, tuple(rows.values()), (), (), ()))
    assert text.count("model ") == 1
    assert max(map(len, text.splitlines())) <= 160


def test_more_sets_go_on_below_and_leave_no_empty_rows():
    text = to_text(ours(*(f"set-{k}" for k in range(12))))
    assert max(map(len, text.splitlines())) <= 160
    assert text.count("model ") > 1
    assert text.count("Gaussian (ours)") == 1  # it has a number on the first set only
    for k in range(12):
        assert len(re.findall(rf"\bset-{k}\b", text)) == 1


def test_columns_are_aligned():
    rows = [line for line in to_text(ours("wine", "digits")).splitlines() if "(ours)  " in line or "ours, 1" in line]
    dense, sparse = (line for line in rows if "±" in line)
    assert [k for k, letter in enumerate(dense) if letter == "±"] == [
        k for k, letter in enumerate(sparse) if letter == "±"
    ]


def test_csv_round_trips_to_the_numbers():
    table = ours("wine", "digits")
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(read) == 5
    for row in read:
        (line,) = [line for line in table.lines if line.model == row["model"]]
        cell = line.cells[row["dataset"]]
        assert float(row["nats"]) == cell.nats.value
        assert (float(row["se"]) if row["se"] else None) == cell.nats.se
        assert float(row["params"]) == cell.params
        assert (row["group"], row["bold"], row["note"]) == (line.group, str(int(cell.bold)), cell.chosen)
        assert row["comparable"] == "1"
    assert [row["params"] for row in read[:2]] == ["27", "43300"]


def test_csv_of_the_published_rows_has_every_number():
    read = list(csv.DictReader(io.StringIO(to_csv(published()))))
    assert len(read) == 13 * 5
    for row in read:
        nll, params = PUBLISHED.rows[row["model"].removesuffix(" (published)")][row["dataset"]]
        assert float(row["nats"]) == nll
        assert (int(row["params"]) if row["params"] else None) == params
        assert "(published)" in row["group"]


def test_markdown_has_its_columns_and_the_best_in_bold():
    text = to_markdown(ours("a_b", "digits", apart=("a_b",)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {6}
    assert r"| model | a\_b† nats | params | digits nats | params |" in lines
    assert "| FFJORD (ours) | **-3.37 ± 0.12** | 43.3K | **-4.37 ± 0.12** | 43.3K |" in lines
    assert "| Gaussian (ours) | 0.33 | 27 | - | - |" in lines
    assert text.endswith("- a sentence\n- a note\n")


def test_latex_needs_booktabs_alone():
    text = to_latex(ours("a_b", "digits", notes=("100 % of x_1 & y",)))
    assert re.findall(r"usepackage\{(\w+)\}", text) == ["booktabs"]
    assert text.count("\\begin{") == text.count("\\end{") == 2
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert "& \\multicolumn{2}{c}{a\\_b} & \\multicolumn{2}{c}{digits} \\\\" in text
    assert "\\cmidrule(lr){2-3} \\cmidrule(lr){4-5}" in text
    assert "\\textbf{$-$3.37 $\\pm$ 0.12} & 43.3K" in text
    assert "Gaussian (ours) & 0.33 & 27 & -- & -- \\\\" in text
    assert "100 \\% of x\\_1 \\& y" in text
    body = [line for line in text.splitlines() if line.endswith("\\\\") and "multicolumn" not in line]
    assert {line.count(" & ") for line in body} == {4}
    assert text.isascii()


def test_json_is_one_document_without_nan():
    def refuse(constant):
        raise AssertionError(constant)

    document = json.loads(to_json(ours("wine"), [], {}, ["runs/a"]), parse_constant=refuse)
    assert (document["run"], document["datasets"], document["notes"]) == (["runs/a"], ["wine"], ["a note"])
    assert document["rows"][0] == {
        **{"dataset": "wine", "model": "Gaussian (ours)", "group": OURS, "nats": 1 / 3, "se": None, "params": 27},
        **{"bold": False, "comparable": True, "note": "none"},
    }


def test_a_table_without_a_number_is_written_too():
    table = TabularTable(("wine",), (), (), (), (), notes=("nothing is done",))
    for text in (to_text(table), to_markdown(table), to_latex(table)):
        assert "wine" in text
        assert "nothing is done" in text
    assert to_csv(table).count("\n") == 1
    with pytest.raises(ValueError, match="nothing to draw"):
        tabular_figure(tabular_arrays(table))


def test_an_outlier_does_not_set_the_axis():
    arrays = tabular_arrays(published())
    low, high = y_limits(arrays, "POWER")
    assert low < -0.62
    assert -0.17 < high < 3.08  # MADE's 3.08 is an arrow
    low, high = y_limits(arrays, "BSDS300")
    assert low < -159.80
    assert high > -128.33


def test_our_own_flows_are_always_on_the_axis():
    far = Point("dense", "dense", 0, 1000, 0.0, 50.0, Mean(50.0, 1.0), {})
    line = Line("FFJORD (ours)", OURS, {"POWER": Cell(far.nll_test, 1000)})
    table = published()
    table = TabularTable(table.datasets, (*table.lines, line), (), (), (Curve("POWER", "nll", "dense", (far,)),))
    arrays = tabular_arrays(table)
    assert y_limits(arrays, "POWER")[1] > 51
    assert arrays["datasets"].tolist() == list(PUBLISHED.datasets)
    assert np.isnan(arrays["params"][arrays["series"] == "TAN"]).all()


def test_the_figure_is_files_with_the_plotted_numbers():
    point = Point("unstructured", "unstructured", 1, 500, 0.5, 1.0, Mean(1.2, 0.1), {})
    table = ours("wine", curves=(Curve("wine", "nll", "unstructured", (point,)),))
    files = tabular_figure(tabular_arrays(table))
    assert set(files) == {"png", "pdf", "npz"}
    with np.load(io.BytesIO(files["npz"]), allow_pickle=False) as stored:
        assert stored["datasets"].tolist() == ["wine"]
        assert stored["nll"].tolist() == [1 / 3, 1.2]
        assert stored["series"].tolist() == ["Gaussian (ours)", "FFJORD, unstructured (ours)"]
    assert len(files["png"]) > 15_000
