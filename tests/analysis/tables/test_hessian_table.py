from __future__ import annotations

import csv
import io
import json
import math
import statistics
from pathlib import Path

import pytest

from analysis.cli.app import app
from analysis.runs.analyses import read_stages
from analysis.runs.records import read_run
from analysis.tables.curvature import hessian_table
from analysis.tables.hessian import rows_csv as to_csv
from analysis.tables.hessian import sheets
from analysis.tables.markup import latex as to_latex
from analysis.tables.markup import markdown as to_markdown
from analysis.tables.text import text as to_text
from sparseflows.cli.console import run_app
from sparseflows.errors import InputError

# lambda_max of dense and of the pruned flow, by seed: ratios 0.5, 0.7, 0.6.
LAMBDAS = {0: (10.0, 5.0), 1: (20.0, 14.0), 2: (10.0, 6.0)}


def stage_of(method, seed, stage, params, **values):
    head = {"method": method, "seed": seed, "stage": stage, "status": "done", "prune_ratio": 1 - params / 1000}
    return head | {"params": params, "subset": 200, "subset_seed": 0, "loss": "nll"} | values


def spectra(seeds=(0, 1, 2)):
    found = []
    for seed in seeds:
        dense, pruned = LAMBDAS[seed]
        own = {"trace_se": 1.0, "effective_rank": 4.0}
        found.append(stage_of("dense", seed, 0, 1000, lambda_max=dense, trace=40.0, kappa_80=10.0, **own))
        own |= {"paper": {"lambda_max": 2 * pruned, "trace": 90.0, "kappa": 7.0}}
        found.append(stage_of("structured", seed, 1, 480, lambda_max=pruned, trace=30.0, kappa_80=8.0, **own))
    return found


def with_hessian(run: Path, stages) -> Path:
    (run / "analysis").mkdir(exist_ok=True)
    (run / "analysis" / "hessian.json").write_text(json.dumps({"run": str(run), "stages": stages}))
    return run


def table_of(run):
    return hessian_table(read_run(run), read_stages(run, "hessian"))


def test_ratios_are_taken_within_a_seed_and_then_averaged(make_run, rows_of):
    dense, pruned = table_of(with_hessian(make_run(rows_of()), spectra())).rows
    assert (dense.values["lambda_max"].value, pruned.values["lambda_max"].value) == pytest.approx((40 / 3, 25 / 3))
    ratio = pruned.change["lambda_max"]
    assert ratio.value == pytest.approx(0.6)  # not 25 / 40, the ratio of the means
    assert ratio.se == pytest.approx(0.1 / math.sqrt(3))  # 0.5, 0.6, 0.7: deviation 0.1
    assert pruned.change["nll"].value == pytest.approx(0.05)  # 0.65 + 0.01 s against 0.60 + 0.01 s
    assert pruned.change["nll"].se == pytest.approx(0.0, abs=1e-12)
    assert dense.change == {}
    assert pruned.values["nll"].value == pytest.approx(0.66)


def over_subsets(values, **several):
    """The same stage, with what three subsets gave."""
    means = {name: sum(each) / len(each) for name, each in several.items()}
    spread = {name: statistics.stdev(each) for name, each in several.items()}
    return values | means | {"subsets": 3, "subset_values": several, "subset_spread": spread}


def test_ratios_are_taken_within_a_subset(make_run, rows_of):
    """Another subset moves both flows alike: the ratio moves much less than either."""
    dense, pruned = spectra([0])
    stages = [
        over_subsets(dense, lambda_max=[10.0, 20.0, 40.0], kappa_80=[7.0, 8.0, 9.0]),
        over_subsets(pruned, lambda_max=[5.0, 11.0, 18.0], kappa_80=[7.0, None, 18.0][::2] * 2),
    ]
    stages[1]["subset_values"]["kappa_80"] = [7.0, None, 18.0]
    table = table_of(with_hessian(make_run(rows_of([0])), stages))
    ratios = [0.5, 0.55, 0.45]
    assert table.rows[1].change["lambda_max"].value == pytest.approx(statistics.fmean(ratios))
    assert table.rows[1].change["lambda_max"].se == pytest.approx(statistics.stdev(ratios))
    assert table.rows[1].change["kappa_80"].value == pytest.approx(1.5)  # of the two where it is known
    assert table.rows[0].values["lambda_max"].se == pytest.approx(statistics.stdev([10.0, 20.0, 40.0]))
    assert table.subsets == 3
    assert "3 subsets of 200 training rows" in " ".join(to_text(*sheets(table)).split())
    other = [stages[0] | {"subset_seed": 1}, stages[1]]  # other rows: no pairs
    ratio = table_of(with_hessian(make_run(rows_of([0]), folder="b"), other)).rows[1].change["lambda_max"]
    assert ratio.value == pytest.approx((34 / 3) / (70 / 3))


def test_one_seed_has_the_estimators_own_error(make_run, rows_of):
    table = table_of(with_hessian(make_run(rows_of([0])), spectra([0])))
    dense, pruned = table.rows
    assert not table.over_seeds
    assert (dense.values["trace"].se, dense.values["lambda_max"].se) == (1.0, None)
    # 0.75 sqrt((1/30)² + (1/40)²)
    assert pruned.change["trace"].se == pytest.approx(0.75 * math.hypot(1 / 30, 1 / 40))
    # both flows on one test set, the density known: the paired errors of the KL gaps
    assert pruned.change["nll"].se == pytest.approx(0.004 * math.sqrt(2))


def test_a_seed_left_alone_has_no_error(make_run, rows_of):
    stages = [one | ({"status": "failed", "reason": "no"} if one["seed"] and one["stage"] else {}) for one in spectra()]
    _, pruned = table_of(with_hessian(make_run(rows_of()), stages)).rows
    assert (pruned.status, pruned.values["trace"].se) == ("1 of 3", None)
    assert pruned.failures == ("seed 1: no", "seed 2: no")


def test_the_published_row_beside_it(make_run, rows_of):
    rows = [row | {"dataset": "gaussian_spiral"} for row in rows_of()]
    table = table_of(with_hessian(make_run(rows), spectra()))
    assert [row.published.prune_ratio for row in table.rows] == [0.0, 0.48]
    assert table.measured[0].lambda_max == 75.9
    _, against, paper = sheets(table)
    assert against.body[1][-5:] == ("48 %", "-0.246", "0.38", "0.39", "0.65")
    notes = " ".join(against.notes)
    assert "could not be reproduced" in notes
    assert "neurons 48 % 73.6 (x 0.97)" in notes
    assert "no kappa_80" in notes
    assert paper.body[1][2:5] == ("17 ± 6", "90.0 ± 0", "7.00 ± 0")


def test_another_data_set_or_method_has_no_published_row(make_run, rows_of):
    assert not table_of(with_hessian(make_run(rows_of()), spectra())).has_published
    rows = [row | {"dataset": "gaussian_spiral"} for row in rows_of()]
    stages = [one | {"method": "unstructured"} if one["stage"] else one for one in spectra()]
    table = table_of(with_hessian(make_run(rows, folder="b"), stages))
    assert [row.published is None for row in table.rows] == [False, True]
    assert sheets(table)[1].body[1][-5:] == ("-",) * 5


def test_the_lowest_nll_is_marked_everywhere(make_run, rows_of):
    table = table_of(with_hessian(make_run(rows_of()), spectra()))
    assert [row.best for row in table.rows] == [True, False]
    assert "* 0.610 ± 0.006" in to_text(*sheets(table))
    assert "**0.610 ± 0.006**" in to_markdown(*sheets(table))
    latex = to_latex(*sheets(table))
    assert "\\textbf{0.610 $\\pm$ 0.006}" in latex
    assert latex.count("\\begin{tabular}") == latex.count("\\bottomrule") == 3
    assert "lambda\\_max" in latex
    assert "Δ" not in latex


def test_csv_keeps_every_digit(make_run, rows_of):
    table = table_of(with_hessian(make_run(rows_of()), spectra()))
    dense, pruned = csv.DictReader(io.StringIO(to_csv([table])))
    assert float(pruned["lambda_max_over_dense"]) == table.rows[1].change["lambda_max"].value
    assert dense["lambda_max_over_dense"] == ""
    assert float(pruned["paper_kappa"]) == 7


def test_absent_numbers_are_dashes(make_run, rows_of):
    stages = [{key: one[key] for key in ("method", "seed", "stage", "status")} for one in spectra()]
    table = table_of(with_hessian(make_run(rows_of()), stages))
    assert sheets(table)[0].body[1] == ("structured", "1", "-", "-", "0.660 ± 0.006", *["-"] * 4)


def test_a_dense_flow_with_no_positive_curvature_has_no_ratio(make_run, rows_of):
    stages = [one | {"lambda_max": -1.0} if one["method"] == "dense" else one for one in spectra()]
    assert table_of(with_hessian(make_run(rows_of()), stages)).rows[1].change["lambda_max"] is None


def test_a_document_that_is_none_is_refused(make_run, rows_of):
    run = with_hessian(make_run(rows_of()), spectra())
    (run / "analysis" / "hessian.json").write_text('{"stages": [{"method": "dense"}]}')
    with pytest.raises(InputError, match=r"hessian\.json: not a document of 'sparseflows hessian'"):
        read_stages(run, "hessian")


def test_the_command_adds_the_hessian_table(make_run, rows_of, capsys):
    run = with_hessian(make_run(rows_of()), spectra())
    assert run_app(app, "analysis", ["table", str(run)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("rings (nll), run run")
    assert out.endswith((run / "analysis" / "hessian_table.txt").read_text())
    for name in ("hessian_table.csv", "hessian_table.md", "hessian_table.tex", "nll_vs_pr.png", "hessian_vs_pr.npz"):
        assert (run / "analysis" / name).stat().st_size > 0
    assert run_app(app, "analysis", ["table", str(run), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [("hessian" in stage) for stage in stages[:3]] == [True, False, False]
