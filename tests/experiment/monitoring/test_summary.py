"""The table that a run ends with."""

from __future__ import annotations

from pathlib import Path

from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.monitoring.summary import results_text


def record_of(method, stage, **changes):
    values = {"dataset": "rings", "objective": "nll", "protocol": "cascade", "seed": 0, "status": "done"}
    return Record(**(values | {"method": method, "stage": stage} | changes))


def test_one_line_a_stage():
    records = [
        record_of("dense", 0, params=54321, prune_ratio=0.0, nll_test=0.5, nll_test_se=0.0123, nfe=44),
        record_of(
            *("structured", 1),
            **{"params": 999, "prune_ratio": 0.98161, "nll_test": -1.0 / 3, "kl_gap": 0.25, "kl_gap_se": 0.0625},
        ),
        record_of("structured", 2, status="failed", reason="the solver ran out of steps", params=7),
    ]
    assert results_text(records, Path("runs/a")).splitlines() == [
        "stage                   params      PR         test NLL           KL gap   NFE",
        "------------------------------------------------------------------------------",
        "dense-s0/0              54,321   0.0 %    0.500 ± 0.012                     44",
        "structured-s0/1            999  98.2 %           -0.333    0.250 ± 0.062      ",
        "structured-s0/2      failed: the solver ran out of steps",
        "nats, standardised coordinates, ± standard error over the test rows; written to runs/a",
        "1 of 3 stages failed",
    ]


def test_rows_that_the_nll_leaves_out_are_named():
    records = [record_of("dense", 0, params=9, prune_ratio=0.0, nll_test=0.5, rows_unsolved=2, rows_infinite=1)]
    assert any("dense-s0/0" in line and "3 test rows" in line for line in results_text(records, Path("a")).splitlines())


def test_the_table_of_a_run_holds_what_results_csv_holds(undisturbed, rows):
    folder, said = undisturbed
    lines = said.out.splitlines()
    table = rows(folder)
    assert len(lines) == len(table) + 3
    for line, row in zip(lines[2:], table, strict=False):
        cells = line.split()
        assert cells[:2] == [f"{row['method']}-s0/{row['stage']}", row["params"]]
        assert cells[2] == f"{100 * float(row['prune_ratio']):.1f}"
        assert cells[4:7] == [f"{float(row['nll_test']):.3f}", "±", f"{float(row['nll_test_se']):.3f}"]
        assert cells[7:10] == [f"{float(row['kl_gap']):.3f}", "±", f"{float(row['kl_gap_se']):.3f}"]
        assert cells[10:] == [row["nfe"]]
    assert lines[-1].endswith(f"written to {folder}")
