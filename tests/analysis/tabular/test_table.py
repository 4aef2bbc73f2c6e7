"""The front against a naive twin, the choice on validation rows, bold, groups, footnotes."""

from __future__ import annotations

import math
import random

import pytest
from support.compare_rows import choices_of, fitted

from analysis.reference import load_reference
from analysis.tables.numbers import Mean
from analysis.tabular.baseline_results import RunBaselines
from analysis.tabular.front import Point, best_validated, pareto_front, pruned_of, thinned
from analysis.tabular.table import OURS, OURS_SPARSE, PUBLISHED, PUBLISHED_SPARSE, tabular_table
from analysis.tabular.words import with_words

PUBLISHED_ROWS = load_reference().tabular


def table_of(*runs, published=None, baselines=None):
    choices = choices_of(*runs)
    baselines = baselines or {}
    table, _ = with_words(tabular_table(choices, baselines, published), choices, baselines, published)
    return table


def cells(table, dataset, group=None):
    return {
        line.model: line.cells[dataset] for line in table.lines if dataset in line.cells and group in (None, line.group)
    }


def point(params, nll_val, nll_test=0.0, seeds=(0,)):
    return Point("unstructured", "unstructured", 1, params, 0.5, nll_val, Mean(nll_test, 0.1), dict.fromkeys(seeds))


def dominated(one, other):
    a, b = (one.params, one.nll_val), (other.params, other.nll_val)
    return b[0] <= a[0] and b[1] <= a[1] and b != a


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_no_other_beats(seed):
    draw = random.Random(seed)
    points = [point(draw.randint(1, 12), draw.randint(0, 12)) for _ in range(draw.randint(1, 30))]
    naive = {(p.params, p.nll_val) for p in points if not any(dominated(p, other) for other in points)}
    front = [(p.params, p.nll_val) for p in pareto_front(points)]
    assert front == sorted(naive)
    assert best_validated(points).nll_val == front[-1][1]


def test_thinning_keeps_the_ends_and_spreads_in_log_params():
    front = [point(params, -params) for params in (10, 11, 100, 900, 1000, 9000, 10_000)]
    assert [p.params for p in thinned(front)] == [10_000, 1000, 100, 10]
    assert [p.params for p in thinned(front[:3])] == [100, 11, 10]
    assert thinned([]) == []


def test_a_point_that_saves_next_to_nothing_is_left_out():
    front = [point(990, 2.0), point(1000, 1.0), point(2000, 0.5)]
    assert [p.params for p in thinned(front)] == [2000, 1000]


def test_stages_are_chosen_on_validation_rows_and_printed_on_test_rows(make_set):
    # The best test NLL, 9.0, is that of a stage that another beats on the validation rows with fewer params.
    stages = {"unstructured": [(500, 11.0, 9.0), (400, 10.5, 12.5)], "structured": [(100, 11.5, 13.0)]}
    table = table_of(make_set("wine", "a", (1000, 12.0, 12.0), stages))
    shown = cells(table, "wine", OURS_SPARSE)
    assert [(cell.params, cell.nats.value) for cell in shown.values()] == [(400, 12.5), (100, 13.0)]
    assert shown["Sparse Flow, ours, 1"].chosen == "unstructured stage 2, PR 60 %"
    assert shown["Sparse Flow, ours, 2"].chosen == "structured stage 1, PR 90 %"
    assert "chosen on validation (unstructured stage 2, PR 60 %)" in table.comparisons[0]


def test_the_better_run_on_validation_rows_is_shown(make_set):
    stages = {"unstructured": [(500, 11.0, 11.0)]}
    first = make_set("wine", "first", (1000, 12.0, 8.0), stages)  # the better one on test rows
    second = make_set("wine", "second", (2000, 11.5, 12.0), stages)
    other = make_set("wine", "other", (3000, 13.0, 13.0), stages, objective="flow_matching")
    table = table_of(first, second, other)
    shown = cells(table, "wine", OURS)
    assert shown["FFJORD (ours)"].params == 2000
    assert shown["flow matching (ours)"].params == 3000
    (note,) = [note for note in table.notes if "chosen on validation rows among" in note]
    assert "among 2 runs: second is shown (mean dense validation NLL: first 12.00, second 11.50)" in note
    assert "nll, unstructured stage 1" in cells(table, "wine", OURS_SPARSE)["Sparse Flow, ours, 1"].chosen


def test_bold_is_the_lowest_printed_test_nll_of_baselines_and_of_sparse_flows(make_set):
    stages = {"unstructured": [(500, 8.0, 9.0), (250, 9.0, 8.5)]}
    run = make_set("miniboone", "a", (1000, 8.0, 8.855), stages)
    table = table_of(run, published=PUBLISHED_ROWS, baselines=fitted(run, {0: (20.0, 15.0)}))
    bold = [line.model for line in table.lines if "MINIBOONE" in line.cells and line.cells["MINIBOONE"].bold]
    assert bold == ["NAF (Huang et al., 2018)", "FFJORD (ours)", "Sparse Flow, ours, 2"]  # 8.86 and 8.855 print alike
    assert [line.model for line in table.lines if "POWER" in line.cells and line.cells["POWER"].bold] == [
        "NAF (Huang et al., 2018)",
        "Sparse Flow, 3 (published)",
    ]


@pytest.mark.parametrize("how", ["sample", "n_train"])
def test_a_sample_does_not_compete_with_the_published(make_set, how):
    said = {"sample": how == "sample", "notes": ["every tenth row"]}
    data = {"name": "miniboone", "n_train": 5000 if how == "n_train" else None}
    run = make_set("miniboone", "a", (1000, 8.0, 8.0), {"unstructured": [(500, 7.0, 7.0)]}, said=said, data=data)
    table = table_of(run, published=PUBLISHED_ROWS)
    bold = {line.model for line in table.lines if "MINIBOONE" in line.cells and line.cells["MINIBOONE"].bold}
    assert bold == {
        "NAF (Huang et al., 2018)",
        "Sparse Flow, 3 (published)",
        "FFJORD (ours)",
        "Sparse Flow, ours, 1",
    }
    assert (table.apart, table.comparable) == (("MINIBOONE",), ())
    notes = "\n".join(table.notes)
    assert "cannot be held against the published ones" in notes
    assert "every tenth row" in notes
    assert ("had 5,000 of 29,556 training rows" in notes) == (how == "n_train")
    assert "was scored on 1,000 of 3,648 test rows" in notes or how == "sample"


def test_data_sets_come_in_the_published_order_then_as_given(make_set):
    stages = {"unstructured": [(500, 1.0, 1.0)]}
    runs = [
        make_set(name, name, (1000, 2.0, 2.0), stages) for name in ("wine", "bsds300", "breast_cancer", "gas", "digits")
    ]
    assert table_of(*runs).datasets == ("GAS", "BSDS300", "wine", "breast_cancer", "digits")
    assert table_of(*runs[::2], published=PUBLISHED_ROWS).datasets == (
        *("POWER", "GAS", "HEPMASS", "MINIBOONE", "BSDS300"),
        *("wine", "breast_cancer", "digits"),
    )


def test_files_of_the_users_own_are_told_apart_by_their_path(make_set):
    stages = {"unstructured": [(500, 1.0, 1.0)]}
    runs = [
        make_set("table", f"run-{k}", (1000, 2.0, 2.0), stages, data={"name": "table", "path": path})
        for k, path in enumerate(("a/rows.npy", "b/rows.npy", "a/rows.npy"))
    ]
    table = table_of(*runs)
    assert table.datasets == ("rows", "rows'")
    assert "rows': a file of the user's own (b/rows.npy), run run-1; no published split" in table.notes
    assert any(note.startswith("rows: variant chosen on validation rows among 2 runs") for note in table.notes)
    long = make_set("table", "long", (1000, 2.0, 2.0), stages, data={"name": "table", "path": f"{'x' * 90}.npy"})
    assert table_of(long).datasets == ("x" * 29 + "...",)


def test_published_rows_alone():
    table = table_of(published=PUBLISHED_ROWS)
    assert {line.group for line in table.lines} == set(PUBLISHED)
    assert len(table.lines) == 13
    assert [line.model for line in table.lines if line.group == PUBLISHED_SPARSE] == [
        f"Sparse Flow, {number} (published)" for number in (1, 2, 3, 4)
    ]
    for title in PUBLISHED_ROWS.datasets:
        for model, (nll, params) in ((m, row[title]) for m, row in PUBLISHED_ROWS.rows.items()):
            (line,) = [line for line in table.lines if line.model in (model, f"{model} (published)")]
            assert (line.cells[title].nats, line.cells[title].params) == (Mean(nll, None), params)
    (note,) = table.notes
    assert note.startswith(f"published: {PUBLISHED_ROWS.source}; FFJORD's own paper gives other values")
    assert table.comparisons == ()


def test_stages_of_fewer_seeds_are_not_chosen(make_set, row_of):
    late = row_of("unstructured", 0, 2, 100, 5.0, nll_val=5.0)
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 11.0, 11.0)]}, seeds=(0, 1), extra=[late])
    (choice,) = choices_of(run)
    assert [p.stage for p in pruned_of(choice.shown.points)] == [1]
    table = table_of(run)
    assert [cell.params for cell in cells(table, "wine", OURS_SPARSE).values()] == [500]
    assert any("done for fewer seeds" in note for note in table.notes)


def test_failed_stages_are_named_and_choose_nothing(make_set, failed_of):
    failed = failed_of("structured", 0, 1, "underflow in dt")
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 11.0, 11.0)]}, extra=[failed])
    table = table_of(run)
    assert "wine: failed in run a: structured-s0/1: underflow in dt" in table.notes
    assert len(cells(table, "wine", OURS_SPARSE)) == 1


def test_numbers_that_are_missing_leave_no_cell(make_set):
    nothing = {"unstructured": [(500, "", 11.0)], "structured": [(400, 10.0, 10.0)]}
    run = make_set("wine", "a", (1000, 12.0, 12.0), nothing)
    table = table_of(run)
    assert [cell.params for cell in cells(table, "wine", OURS_SPARSE).values()] == [400]  # the other was not validated
    lines = [line for line in (run / "results.csv").read_text().splitlines() if "structured" not in line]
    (run / "results.csv").write_text("\n".join(line.replace(",12.0,12.0,", ",,,") for line in lines) + "\n")
    table = table_of(run)
    assert table.datasets == ("wine",)
    assert table.lines == ()
    assert "wine: no pruned stage has a validation NLL, so there is no Sparse Flow of ours" in table.notes


def test_means_are_over_the_seeds_and_their_splits(make_set):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 11.0, 11.5)]}, seeds=(0, 1, 2))
    baselines = fitted(run, {0: (13.0, 11.0), 1: (13.2, 11.1), 2: (13.1, 11.2)}, own_splits=True)
    shown = cells(table_of(run, baselines=baselines), "wine")
    assert shown["Gaussian (ours)"].nats.value == pytest.approx(13.1)
    assert shown["Gaussian (ours)"].nats.se == pytest.approx(0.1 / math.sqrt(3))
    assert shown["FFJORD (ours)"].nats.value == pytest.approx(12.1)


def test_a_split_that_is_shared_has_the_error_of_its_test_rows(make_set):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 13.0, 13.0)]}, seeds=(0, 1, 2))
    table = table_of(run, baselines=fitted(run, dict.fromkeys(range(3), (13.0, 12.5)), n_train=90_000))
    assert cells(table, "wine")["Gaussian (ours)"].nats == Mean(13.0, 0.05)
    assert "wine: Gaussian mixture: 2 components, fitted to 500 of 90,000 training rows" in table.notes
    assert "(paired over 3 seeds, one split; p " in table.comparisons[0]
    assert table.comparisons[-1].endswith("not testable here: no control in this run")


def test_a_run_without_baselines_says_why(make_set):
    run = make_set("wine", "a", (1000, 12.0, 12.0), {"unstructured": [(500, 13.0, 13.0)]})
    table = table_of(run, baselines={str(run): RunBaselines({}, reason="the file is gone")})
    assert "wine: no baselines for run a: the file is gone" in table.notes
    assert not any("Gaussian" in sentence for sentence in table.comparisons)
