from __future__ import annotations

from pathlib import Path

import pytest

from analysis.runs.records import read_run
from sparseflows.errors import InputError


def edit(run: Path, old: str, new: str) -> None:
    path = run / "results.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_reads_every_row_with_its_types(make_run, rows_of):
    run = read_run(make_run(rows_of(), name="first"))
    assert (run.name, run.seeds, len(run.stages)) == ("first", (0, 1, 2), 15)
    stage = run.stages[1]
    assert (stage.method, stage.seed, stage.stage, stage.params) == ("unstructured", 0, 1, 500)
    assert stage.nll_test == 0.58
    assert isinstance(stage.params, int)
    assert stage.done


def test_empty_cells_are_none(make_run, row_of):
    (stage,) = read_run(make_run([row_of("dense", 0, 0, 1000, 0.6, kl_gap="", protocol="")])).stages
    assert stage.kl_gap is None
    assert stage.protocol is None
    assert stage.reason is None
    assert stage.accuracy_test is None


def test_a_failed_stage_keeps_its_reason_on_one_line(make_run, failed_of):
    (stage,) = read_run(make_run([failed_of("structured", 1, 3, "the solver\n  gave up")])).stages
    assert not stage.done
    assert stage.reason == "the solver gave up"
    assert stage.params is None


def test_seeds_are_those_asked_for_and_those_found(make_run, rows_of):
    assert read_run(make_run(rows_of([0, 7]), seeds=[0, 1])).seeds == (0, 1, 7)
    assert read_run(make_run(rows_of([4]), folder="b", seeds="3")).seeds == (4,)


def test_unknown_columns_are_ignored(make_run, rows_of):
    run = make_run(rows_of())
    lines = (run / "results.csv").read_text().splitlines()
    (run / "results.csv").write_text("\n".join([lines[0] + ",later", *(line + ",1" for line in lines[1:])]))
    assert len(read_run(run).stages) == 15


def test_the_name_falls_back_on_the_folder(make_run, rows_of):
    run = make_run(rows_of(), folder="seventh")
    (run / "spec.yaml").write_text("seeds: [0, 1, 2]\n")
    assert read_run(run).name == "seventh"


def test_refuses_what_is_no_run_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        read_run(tmp_path / "file")
    with pytest.raises(InputError, match=r"not a run folder; it has no spec\.yaml and no results\.csv"):
        read_run(tmp_path)
    (tmp_path / "spec.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match=r"not a run folder; it has no results\.csv,"):
        read_run(tmp_path)


@pytest.mark.parametrize("content", ["", "header"])
def test_nothing_finished_yet(make_run, rows_of, content):
    run = make_run(rows_of())
    header = (run / "results.csv").read_text().splitlines()[0] + "\n"
    (run / "results.csv").write_text(header if content else "")
    with pytest.raises(InputError, match="no stage has finished yet"):
        read_run(run)


@pytest.mark.parametrize("content", ["a: [", "- just\n- a list\n", ""])
def test_refuses_a_malformed_spec(make_run, rows_of, content):
    run = make_run(rows_of())
    (run / "spec.yaml").write_text(content)
    with pytest.raises(InputError, match=r"spec\.yaml"):
        read_run(run)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("params", "many", r"line 2: params is 'many'; it should be a whole number, at least 1"),
        ("params", "0", "params is '0'"),
        ("params", "12.5", "params is '12.5'"),
        ("params", "", "params is empty"),
        ("seed", "", "seed is empty"),
        ("seed", "-1", "seed is '-1'"),
        ("dataset", "", "dataset is empty"),
        ("status", "fine", "it should be 'done' or 'failed'"),
        ("nll_test", "nan", "nll_test is 'nan'; it should be a finite number"),
        ("nll_test", "inf", "nll_test is 'inf'"),
        ("prune_ratio", "50", "prune_ratio is '50'; it should be a finite number, at least 0 and at most 1"),
        ("nll_test_se", "-0.1", "nll_test_se is '-0.1'"),
    ],
)
def test_refuses_a_malformed_cell(make_run, row_of, column, value, message):
    with pytest.raises(InputError, match=message):
        read_run(make_run([row_of("dense", 0, 0, 1000, 0.6) | {column: value}], seeds=[0]))


def test_refuses_rows_of_the_wrong_length(make_run, rows_of):
    run = make_run(rows_of())
    edit(run, "\n", "\nrings,nll\n")
    with pytest.raises(InputError, match="line 2: has fewer cells"):
        read_run(run)
    edit(run, "\nrings,nll\n", "\n" + "x," * 40 + "\n")
    with pytest.raises(InputError, match="line 2: has more cells"):
        read_run(run)


def test_refuses_a_missing_column(make_run, rows_of):
    run = make_run(rows_of())
    edit(run, "nll_test,", "nll,")
    with pytest.raises(InputError, match="line 1: lacks the column nll_test;"):
        read_run(run)


def test_refuses_the_same_stage_twice(make_run, rows_of):
    with pytest.raises(InputError, match=r"line 3: repeats line 2 \(dense, seed 0, stage 0\)"):
        read_run(make_run([rows_of()[0]] * 2))


def test_refuses_what_is_not_text(make_run, rows_of):
    run = make_run(rows_of())
    (run / "results.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_run(run)


def test_a_row_that_is_not_what_its_stage_says_is_refused(tiny_run):
    before = read_run(tiny_run).stages
    nll = before[1].nll_test
    edit(tiny_run, f",{nll},", ",1.25,")
    with pytest.raises(InputError, match=rf"nll_test of unstructured-s0/1 is 1\.25, but the stage says {nll}; "):
        read_run(tiny_run)


def test_a_stage_without_a_row_is_read_from_its_own_record(tiny_run):
    before = read_run(tiny_run).stages
    path = tiny_run / "results.csv"
    head, dense, _, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, dense, *others]))
    assert read_run(tiny_run).stages == before


def test_a_row_stands_where_its_stage_is_damaged(tiny_run):
    before = read_run(tiny_run).stages
    (tiny_run / "cascades/unstructured-s0/stages/1/record.json").write_text("{")
    assert read_run(tiny_run).stages == before


def test_a_row_of_a_stage_that_the_run_does_not_have_is_refused(tiny_run):
    edit(tiny_run, ",unstructured,", ",unstructure_d,")
    with pytest.raises(InputError, match=r"unstructure_d-s0/1 is no stage of this run's settings"):
        read_run(tiny_run)
