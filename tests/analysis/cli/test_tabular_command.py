"""`analysis table --tabular` on runs of a second."""

from __future__ import annotations

import json
import shutil
from functools import partial

import numpy as np
import pytest
import yaml
from support import small_runs

from analysis.cli import tabular
from analysis.runs.study import Study
from analysis.tabular import baseline_results
from sparseflows.evaluation.likelihood import subset

FILES = ["tabular.txt", "tabular.csv", "tabular.md", "tabular.tex", "tabular.json"]
FIGURES = [f"nll_vs_params_tabular.{kind}" for kind in ("png", "pdf", "npz")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds on wine, each with its own split, scored on 12 test rows."""
    folder = tmp_path_factory.mktemp("wine")
    changes = {
        "seeds": [0, 1],
        "train": {"objective": "flow_matching", "steps": 20, "batch": 64, "lr": 0.02},
        "evaluate": {"max_rows": 12},
    }
    return small_runs.train(folder, {"name": "wine", "split_by_seed": True}, **changes)


@pytest.fixture
def wine(trained, tmp_path):
    """A copy: analyses write into the folder."""
    return shutil.copytree(trained, tmp_path / "wine")


@pytest.fixture
def no_figure(monkeypatch):
    """Figures take longer than all else here; two tests draw them."""
    monkeypatch.setattr(tabular, "tabular_figure", lambda arrays: {})


@pytest.fixture
def call(capsys):
    return partial(small_runs.call, capsys)


def document_of(said):
    assert said.status == 0, said.err
    return json.loads(said.out, parse_constant=small_runs.refuse)


def test_one_run(call, wine):
    said = call("table", "--tabular", wine)
    assert said.status == 0, said.err
    assert said.out == (wine / "analysis" / "tabular.txt").read_text()
    assert {path.name for path in (wine / "analysis").iterdir()} == {*FILES, *FIGURES, "cache"}
    for model in ("Gaussian (ours)", "Gaussian mixture (ours)", "flow matching (ours)", "Sparse Flow, ours, 1"):
        assert model in said.out
    shown = " ".join(said.out.split())
    assert "(paired over 2 seeds, each with its own split); not testable here: 2 seeds of both" in shown
    assert said.out.splitlines()[-1].endswith(" --set 'prune.protocols=[cascade,control]' --set 'seeds=[0,1,2]'")
    assert "scored on 12 of 18 test rows" in said.out
    assert "published" not in said.out
    assert "baselines in" in said.err
    assert "ConvergenceWarning" not in said.err


def test_the_second_call_fits_nothing(call, wine, monkeypatch, no_figure):
    first = document_of(call("table", "--tabular", wine, "--json"))

    def refuse(*args):
        raise AssertionError("fitted again")

    monkeypatch.setattr(baseline_results, "fit_baselines", refuse)
    said = call("table", "--tabular", wine, "--json")
    assert document_of(said) == first
    assert "baselines in" not in said.err
    assert json.loads((wine / "analysis" / "tabular.json").read_text()) == first


def test_baselines_are_fitted_to_the_rows_of_each_seed_and_scored_on_those_of_the_flow(call, wine, no_figure):
    found = document_of(call("table", "--tabular", wine, "--json"))
    study = Study.open(wine)
    assert [one["seed"] for one in found["baselines"]] == [0, 1]
    for one in found["baselines"]:
        splits = study.splits_of(one["seed"])
        mean, covariance = splits.train.mean(axis=0), np.cov(splits.train, rowvar=False, bias=True)
        rows = subset(splits.test, 12, study.folder.spec.data.seed_for(one["seed"]), "test")
        assert (one["n_train"], one["n_test"], one["n_scored"]) == (len(splits.train), len(splits.test), 12)
        from scipy.stats import multivariate_normal

        assert one["baselines"][0]["nll_test"] == pytest.approx(
            -multivariate_normal(mean, covariance).logpdf(rows).mean()
        )
    first, second = (one["baselines"][0]["nll_test"] for one in found["baselines"])
    assert first != second
    (row,) = [row for row in found["rows"] if row["model"] == "Gaussian (ours)"]
    assert row["nats"] == pytest.approx((first + second) / 2)
    assert row["params"] == 13 + 13 * 14 / 2


def test_rows_are_the_means_of_results_csv(call, wine, no_figure):
    found = document_of(call("table", "--tabular", wine, "--no-baselines", "--json"))
    assert found["baselines"] == []
    records = [record for record in Study.open(wine).records if record.method == "dense"]
    (row,) = [row for row in found["rows"] if row["model"] == "flow matching (ours)"]
    assert row["nats"] == pytest.approx(np.mean([record.nll_test for record in records]))
    assert not (wine / "analysis" / "cache").exists()


def test_beside_the_published_rows(call, wine, tmp_path):
    found = document_of(call("table", "--tabular", "--published", "--json", wine, "--out", tmp_path / "out"))
    assert found["datasets"] == ["POWER", "GAS", "HEPMASS", "MINIBOONE", "BSDS300", "wine"]
    assert not (wine / "analysis" / "tabular.txt").exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*FILES, *FIGURES}


def test_published_rows_need_no_run(call):
    said = call("table", "--tabular", "--published")
    assert said.status == 0
    assert "MADE (Germain et al., 2015)" in said.out
    assert "--out DIR" in said.err


def test_a_split_whose_file_has_gone_is_a_footnote(call, tmp_path, no_figure):
    rows = np.random.default_rng(0).standard_normal((80, 2))
    np.save(tmp_path / "rows.npy", rows)
    brief = {"objective": "flow_matching", "steps": 5, "batch": 64}
    run = small_runs.train(tmp_path, {"name": "table", "path": str(tmp_path / "rows.npy")}, train=brief)
    (tmp_path / "rows.npy").unlink()
    said = call("table", "--tabular", run)
    assert said.status == 0
    assert "rows: no baselines for run tiny: " in said.out
    assert f"rows: a file of the user's own ({tmp_path / 'rows.npy'})" in " ".join(said.out.split())
    np.save(tmp_path / "rows.npy", rows)  # a failure is not kept
    assert "no baselines" not in call("table", "--tabular", run).out
    assert "Gaussian (ours)" in (run / "analysis" / "tabular.txt").read_text()


def test_an_interrupted_fit_goes_on_from_there(call, wine, monkeypatch, no_figure):
    fits = []

    def interrupted(*args):
        if fits:
            raise KeyboardInterrupt
        fits.append(1)
        return real(*args)

    real = baseline_results.fit_baselines
    monkeypatch.setattr(baseline_results, "fit_baselines", interrupted)
    said = call("table", "--tabular", wine)
    assert said.status == 130
    assert "what is finished is kept" in said.err
    monkeypatch.setattr(baseline_results, "fit_baselines", lambda *args: fits.append(1) or real(*args))
    assert call("table", "--tabular", wine).status == 0
    assert len(fits) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tabular"], "no RUN is given"),
        ([], "Missing argument"),
        (["--published"], "go with --tabular"),
        (["--published", "RUN"], "go with --tabular"),
        (["--no-baselines", "RUN"], "go with --tabular"),
        (["--tabular", "RUN", "RUN"], "given twice"),
        (["--tabular", "RUN", "OTHER"], "--out DIR"),
        (["--tabular", "nowhere"], "no such folder"),
        (["--tabular", "--published", "nowhere"], "no such folder"),
        (["--tabular", "DAMAGED"], "data.json: damaged"),
        (["--tabular", "NAMELESS"], "names no data set"),
    ],
)
def test_bad_input_is_one_line(call, tmp_path, make_run, rows_of, args, message):
    run, other, damaged, nameless = (make_run(rows_of(), folder=name) for name in ("a", "b", "c", "d"))
    (damaged / "data.json").write_text("{")
    (nameless / "spec.yaml").write_text(yaml.safe_dump({"name": "d", "seeds": [0, 1, 2]}))
    paths = {"RUN": run, "OTHER": other, "DAMAGED": damaged, "NAMELESS": nameless}
    said = call("table", *(paths.get(arg, arg) for arg in args))
    assert said.status == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (run / "analysis").exists()
