from __future__ import annotations

import csv
import io
import math

import pytest

from analysis.runs.records import read_run
from analysis.tables.markup import latex as to_latex
from analysis.tables.markup import markdown as to_markdown
from analysis.tables.means import mean_over_seeds, tabulate
from analysis.tables.nll import rows_csv as to_csv
from analysis.tables.nll import sheet
from analysis.tables.text import text as to_text


def table_of(run):
    (table,) = tabulate(read_run(run))
    return table


def row(table, method, stage):
    (found,) = [row for row in table.rows if (row.method, row.stage) == (method, stage)]
    return found


def test_mean_and_standard_error_by_hand():
    # 1, 2, 6: mean 3; squared deviations 4 + 1 + 9 = 14; sample variance 7; s.e. sqrt(7 / 3)
    mean = mean_over_seeds([1.0, 2.0, 6.0])
    assert mean.value == pytest.approx(3.0)
    assert mean.se == pytest.approx(math.sqrt(7 / 3))
    assert mean_over_seeds([4.0]).se is None
    with pytest.raises(ValueError, match="at least one"):
        mean_over_seeds([])


def test_three_seeds(make_run, rows_of):
    table = table_of(make_run(rows_of()))
    assert (table.se_over, table.seeds) == ("seeds", 3)
    dense = row(table, "dense", 0)
    assert dense.nll_test.value == pytest.approx(0.61)
    assert dense.nll_test.se == pytest.approx(0.01 / math.sqrt(3))  # 0.60, 0.61, 0.62: deviation 0.01
    assert dense.kl_gap.value == pytest.approx(0.11)
    assert (dense.nfe, dense.params, dense.prune_ratio) == (52, 1000, 0)
    assert table.entropy == pytest.approx(0.5)


def test_params_are_averaged_too(make_run, row_of):
    rows = [row_of("structured", seed, 1, params, 0.7) for seed, params in [(0, 480), (1, 500)]]
    assert row(table_of(make_run(rows)), "structured", 1).params == 490
    assert row(table_of(make_run(rows, folder="b")), "structured", 1).prune_ratio == pytest.approx(0.51)


def test_one_seed_has_the_error_of_the_test_set(make_run, rows_of):
    table = table_of(make_run(rows_of([5])))
    assert table.se_over == "test set"
    assert row(table, "dense", 0).nll_test.se == 0.02
    assert row(table, "dense", 0).kl_gap.se == 0.004
    assert "1 seed, ± standard error over the test set" in to_text(sheet(table))


def test_dense_first_then_methods_in_file_order(make_run, rows_of):
    table = table_of(make_run(reversed(rows_of())))
    order = [(row.method, row.stage) for row in table.rows]
    assert order == [
        ("dense", 0),
        ("structured", 1),
        ("structured", 2),
        ("unstructured", 1),
        ("unstructured", 2),
    ]


def test_failed_seeds_leave_the_mean(make_run, rows_of, failed_of):
    rows = [row for row in rows_of() if not (row["method"] == "structured" and row["seed"] == 2)]
    rows += [failed_of("structured", 2, 1, "underflow in dt")]  # and stage 2 of that seed was never reached
    table = table_of(make_run(rows))
    first, second = row(table, "structured", 1), row(table, "structured", 2)
    assert (first.status, second.status) == ("2 of 3", "2 of 3")
    assert first.nll_test.value == pytest.approx(0.655)
    assert first.nll_test.se == pytest.approx(0.005)  # |0.65 - 0.66| / 2
    assert first.failures == ("seed 2: underflow in dt",)
    text = to_text(sheet(table))
    assert "2 of 3: the means are over the seeds that are done" in text
    assert "failed: structured, stage 1, seed 2: underflow in dt" in text


def test_a_stage_that_always_failed_has_no_number(make_run, rows_of, failed_of):
    rows = rows_of() + [failed_of("structured", seed, 3, "loss is not finite") for seed in range(3)]
    table = table_of(make_run(rows))
    last = row(table, "structured", 3)
    assert (last.status, last.nll_test, last.params, last.prune_ratio, last.nfe) == ("failed", *[None] * 4)
    assert not last.best
    assert last.failures == ("seeds 0, 1, 2: loss is not finite",)
    (line,) = [
        line for line in to_text(sheet(table)).splitlines() if line.startswith("structured") and "failed" in line
    ]
    assert line.split() == ["structured", "3", "-", "-", "-", "-", "-", "failed"]
    assert "| structured | 3 | - | - | - | - | - | failed |" in to_markdown(sheet(table))


def test_a_failed_stage_without_a_reason_says_so(make_run, failed_of):
    table = table_of(make_run([failed_of("dense", 0, 0, "")]))
    assert table.rows[0].failures == ("seed 0: no reason was recorded",)
    assert "failed" in to_text(sheet(table))


def test_one_seed_of_several_done_has_no_error(make_run, rows_of, row_of):
    table = table_of(make_run([*rows_of(), row_of("structured", 0, 3, 100, 1.5)]))
    late = row(table, "structured", 3)
    assert (late.status, late.nll_test.se) == ("1 of 3", None)
    lines = {line[:20]: line for line in to_text(sheet(table)).splitlines() if line.startswith("structured")}
    columns = {line.index(number) for line, number in zip(lines.values(), ("0.660", "0.910", "1.500"), strict=True)}
    assert len(columns) == 1  # the mean without an error stands under the means with one


def test_exactly_one_best_in_each_format(make_run, rows_of):
    table = table_of(make_run(rows_of()))
    assert [(row.method, row.stage) for row in table.rows if row.best] == [("unstructured", 1)]
    (line,) = [line for line in to_text(sheet(table)).splitlines() if " * " in line and "best" not in line]
    assert line.startswith("unstructured")
    assert "* 0.590 ± 0.006" in line
    assert "| **0.590 ± 0.006** |" in to_markdown(sheet(table))
    assert to_markdown(sheet(table)).count("| **") == 1
    assert to_latex(sheet(table)).count("\\textbf{") == 1
    assert "\\textbf{0.590 $\\pm$ 0.006}" in to_latex(sheet(table))


def test_an_nll_that_leaves_rows_out_says_so_and_is_not_the_best(make_run, row_of):
    rows = [row_of("dense", 0, 0, 1000, 0.61), row_of("structured", 0, 1, 500, 0.40)]
    rows[1] |= {"rows_unsolved": 2, "rows_infinite": 1}
    table = table_of(make_run(rows))
    assert [(one.method, one.best) for one in table.rows] == [("dense", True), ("structured", False)]
    assert "structured, stage 1: 3 test rows without a finite log p" in to_text(sheet(table))


def test_text_is_aligned_and_narrow(make_run, rows_of, failed_of):
    rows = [row | {"method": "m" * 70 if row["method"] == "structured" else row["method"]} for row in rows_of()]
    rows.append(failed_of("unstructured", 0, 9, "a long story " * 30))
    lines = to_text(sheet(table_of(make_run(rows, name="n" * 150)))).splitlines()
    assert max(map(len, lines)) <= 100
    assert len({len(line) for line in lines[3:9]}) == 1
    assert "…" in lines[-4] or any("…" in line for line in lines)


def test_numbers_as_they_are_shown(make_run, row_of):
    big = row_of(
        "dense",
        0,
        0,
        1_234_567,
        0.12345,
        dense=1_234_567,
        prune_ratio=0.98765,
        nll_test_se=0.0001,
        nfe=1234.4,
    )
    text = to_text(sheet(table_of(make_run([big]))))
    for shown in ("98.8 %", "1,234,567", "0.123 ± <0.001", "1,234 "):
        assert shown in text


def test_no_kl_gap_no_column(make_run, rows_of):
    table = table_of(make_run([row | {"kl_gap": "", "kl_gap_se": ""} for row in rows_of()]))
    assert table.entropy is None
    for shown in (to_text(sheet(table)), to_markdown(sheet(table)), to_latex(sheet(table))):
        assert "KL gap" not in shown
    assert "kl_gap" in to_csv([table])


def test_a_run_without_nll_has_dashes(make_run, rows_of):
    table = table_of(make_run([row | {"nll_test": "", "kl_gap": ""} for row in rows_of()]))
    assert not any(row.best for row in table.rows)
    assert " - " in to_text(sheet(table))


def test_csv_keeps_every_digit(make_run, rows_of):
    table = table_of(make_run(rows_of(), name="a, b"))
    read = list(csv.DictReader(io.StringIO(to_csv([table]))))
    assert len(read) == len(table.rows)
    for cells, row in zip(read, table.rows, strict=True):
        assert float(cells["nll_test"]) == row.nll_test.value
        assert float(cells["nll_test_se"]) == row.nll_test.se
        assert float(cells["prune_ratio"]) == row.prune_ratio
        assert cells["params"] == f"{row.params:.0f}"
        assert (cells["status"], cells["se_over"], cells["name"]) == ("done", "seeds", "a, b")
        assert cells["best"] == str(int(row.best))


def test_latex_escapes_and_balances(make_run, rows_of, failed_of):
    rows = [row | {"dataset": "8_rings & 50%"} for row in rows_of()]
    rows.append(failed_of("structured", 0, 3, r"cost $5 #1 {a} ~b ^c \d <e>", dataset="8_rings & 50%"))
    latex = to_latex(sheet(table_of(make_run(rows))))
    assert r"8\_rings \& 50\%" in latex
    assert r"cost \$5 \#1 \{a\} \textasciitilde{}b \textasciicircum{}c \textbackslash{}d \textless{}e" in latex
    for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\begin{table}", "\\end{table}"):
        assert latex.count(rule) == 1
    body = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert {line.count(" & ") for line in body} == {7}


def test_markdown_escapes_and_keeps_its_columns(make_run, rows_of):
    rows = [row | {"method": "a|b_c*" if row["method"] == "structured" else row["method"]} for row in rows_of()]
    markdown = to_markdown(sheet(table_of(make_run(rows))))
    assert r"| a\|b\_c\* |" in markdown
    lines = [line.replace(r"\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {9}


def test_one_table_for_each_data_set_and_objective(make_run, rows_of):
    rows = rows_of() + [row | {"objective": "flow_matching"} for row in rows_of()]
    tables = tabulate(read_run(make_run(rows)))
    assert [table.objective for table in tables] == ["nll", "flow_matching"]
    assert all(sum(row.best for row in table.rows) == 1 for table in tables)


def test_protocols_of_one_method_are_kept_apart(make_run, rows_of):
    rows = rows_of() + [row | {"protocol": "one_shot"} for row in rows_of() if row["method"] == "structured"]
    labels = [row.label for row in table_of(make_run(rows)).rows]
    assert labels.count("structured") == labels.count("one_shot structured") == 2
    assert labels.count("unstructured") == 2
