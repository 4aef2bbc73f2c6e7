"""`analysis hessian` on a run that was really trained."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.analyses import hessian as analysis_module
from analysis.analyses.shape import analyse
from analysis.cli.app import app
from analysis.curvature import stage as stage_module
from analysis.plots.spectrum import spectrum_figure
from sparseflows.cli.console import run_app
from sparseflows.errors import RunError
from sparseflows.experiment.folder.identity import identity
from sparseflows.files import sealed
from sparseflows.specs.yaml import load_spec

QUICK = ["--subset", "20", "--subsets", "2", "--tol", "1e-3", "--threads", "1"]
KEYS = {
    *("method", "seed", "stage", "prune_ratio", "params", "lambda_max", "lambda_min", "trace", "trace_se"),
    *("effective_rank", "kappa_80", "outliers", "negative_share", "negative_cut", "subset_spread", "hvps", "seconds"),
    *("peak_mib", "subset"),
}
FILES = {"hessian.json", "hessian.csv", *(f"spectral_density.{kind}" for kind in ("png", "pdf", "npz"))}


def call(*args: object) -> int:
    return run_app(app, "analysis", ["hessian", *(str(arg) for arg in args)])


@pytest.fixture
def no_figure(monkeypatch):
    """A figure takes seconds, and one test looks at it."""
    monkeypatch.setattr(analysis_module, "spectrum_figure", lambda labels, stages, title: {})


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_text_files_and_the_second_call(tiny_run, capsys):
    assert call(tiny_run, *QUICK) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    head = next(place for place, line in enumerate(lines) if line.startswith("stage"))
    assert lines[head].split()[:6] == ["stage", "prune", "ratio", "params", "λ_max", "λ_min"]
    named = [line.split()[0] for line in lines[head + 1 : head + 4]]
    assert named == ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"]
    assert len({len(line) for line in lines[head : head + 4]}) == 1  # aligned
    assert "mean NLL, exact divergence, over 2 disjoint subsets of 20 training rows (seed 0); surviving" in " ".join(
        out.split()
    )
    assert err.count("hessian in") == 3
    assert f"in {tiny_run / 'analysis'}" in err.splitlines()[-1]
    folder = tiny_run / "analysis"
    assert {path.name for path in folder.iterdir()} == FILES | {"cache"}
    document = json.loads((folder / "hessian.json").read_text(), parse_constant=refuse)
    assert document["run"] == str(tiny_run)
    assert all(set(stage) >= KEYS for stage in document["stages"])
    dense = document["stages"][0]
    assert f" {dense['lambda_max']:.0f}" in lines[head + 1] or f" {dense['lambda_max']:.1f}" in lines[head + 1]
    assert set(dense["subset_spread"]) >= {"lambda_max", "trace", "effective_rank"}
    with (folder / "hessian.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["lambda_max"]) for row in rows] == [stage["lambda_max"] for stage in document["stages"]]
    assert rows[0]["method"] == "dense"
    stored = np.load(folder / "spectral_density.npz")
    assert stored["labels"].tolist()[0] == "dense"
    assert stored["eigenvalues_0"].size == 80
    image = Image.open(folder / "spectral_density.png")
    assert min(image.size) > 400
    assert (folder / "spectral_density.pdf").read_bytes().startswith(b"%PDF")
    # Once more: the same numbers, nothing computed.
    assert call(tiny_run, *QUICK, "--json") == 0
    out, err = capsys.readouterr()
    again = json.loads(out, parse_constant=refuse)
    assert [stage | {"cached": False} for stage in again["stages"]] == document["stages"]
    assert all(stage["cached"] for stage in again["stages"])
    assert all(line.startswith("wrote ") for line in err.splitlines())  # no forecast of what takes no time


def test_what_the_results_depend_on(tiny_run, capsys, no_figure):
    def cached(*options: object) -> bool:
        assert call(tiny_run, "--subset", 5, "--tol", 0.1, "--stage", "structured-s0/1", *options, "--json") == 0
        (stage,) = json.loads(capsys.readouterr().out)["stages"]
        return bool(stage["cached"])

    assert not cached("--threads", 1)
    assert cached("--threads", 2, "--memory", 64)
    assert not cached("--seed", 1)
    assert cached("--seed", 0)


def test_one_stage_with_the_published_estimator_elsewhere(tiny_run, tmp_path, capsys, no_figure):
    out_folder = tmp_path / "elsewhere"
    options = [*QUICK, "--stage", "structured-s0/1", "--protocol", "paper", "--out", out_folder]
    assert call(tiny_run, *options) == 0
    out = capsys.readouterr().out
    assert "dense-s0/0" not in out
    assert "structured-s0/1, published estimator (sums of unweighted Ritz values, not a trace)" in out
    assert {path.name for path in out_folder.iterdir()} == {"hessian.json", "hessian.csv"}
    assert call(tiny_run, *options, "--json") == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert set(stage["paper"]) == {"lambda_max", "trace", "kappa"}
    assert (stage["method"], stage["stage"]) == ("structured", 1)


def test_one_stage_leaves_the_others_in_the_files(tiny_run, capsys):
    assert call(tiny_run, *QUICK) == 0
    folder = tiny_run / "analysis"
    before = json.loads((folder / "hessian.json").read_text())["stages"]
    figure = (folder / "spectral_density.png").read_bytes()
    capsys.readouterr()
    assert call(tiny_run, *QUICK, "--seed", 1, "--stage", "unstructured-s0/1", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)["stages"]
    after = json.loads((folder / "hessian.json").read_text())["stages"]
    assert after == [before[0], shown, before[2]]
    assert after[1] != before[1]
    with (folder / "hessian.csv").open(newline="") as stream:
        assert [row["subset_seed"] for row in csv.DictReader(stream)] == ["0", "1", "0"]
    assert (folder / "spectral_density.png").read_bytes() == figure
    assert (folder / "spectral_density-unstructured-s0-1.png").exists()
    (folder / "hessian.json").write_text("no JSON")  # a file that cannot be read is written anew
    assert call(tiny_run, *QUICK, "--stage", "dense-s0/0") == 0
    assert [one["method"] for one in json.loads((folder / "hessian.json").read_text())["stages"]] == ["dense"]


def test_what_comes_is_told_before(tiny_run, capsys, no_figure):
    assert call(tiny_run, *QUICK, "--stage", "dense-s0/0") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(rf"{tiny_run}: hessian of dense-s0/0, about \d+ s", first)


def test_leading_eigenvectors_and_the_loss_along_them(tiny_run, capsys):
    assert call(tiny_run, *QUICK, "--stage", "dense-s0/0", "--top", 3) == 0
    assert "dense-s0/0, leading eigenvalues: " in capsys.readouterr().out
    (entry,) = analyse(tiny_run, "hessian", "dense-s0/0", subset=20, subsets=2, tol=1e-3, threads=1, top=3)
    assert entry.cached
    assert len(entry.result.values["top"]) == 3
    vectors = entry.result.arrays["eigenvectors"]
    assert vectors.shape == (80, 3)
    assert np.allclose(vectors.T @ vectors, np.eye(3), atol=1e-10)
    image = Image.open(tiny_run / "analysis" / "loss_along-dense-s0-0.png")
    assert min(image.size) > 200


def test_pyhessian_beside_it(tiny_run, capsys, no_figure):
    pytest.importorskip("pyhessian")
    assert (
        call(
            tiny_run, "--subset", 6, "--tol", 0.1, "--threads", 1, "--stage", "structured-s0/1", "--check", "pyhessian"
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert "structured-s0/1, PyHessian: λ_max" in out
    assert "from 30 probes" in out
    assert "Warning" not in err


def test_the_loss_of_the_training(tiny_run, capsys, no_figure):
    assert call(tiny_run, *QUICK, "--stage", "dense-s0/0", "--loss", "flow_matching") == 0
    assert "mean flow-matching loss, over 2 disjoint subsets of 20 training rows" in capsys.readouterr().out


def test_a_failed_stage_is_told_and_the_others_go_on(tiny_run, fail_stage, monkeypatch, capsys, no_figure):
    fail_stage(tiny_run, "unstructured-s0/1", "the solver ran out of steps")
    known = stage_module.hessian_of_stage

    def sometimes(study, subject, *others):
        if subject.record.method == "structured":
            raise RunError("the loss is not deterministic")
        return known(study, subject, *others)

    monkeypatch.setattr(stage_module, "hessian_of_stage", sometimes)
    assert call(tiny_run, *QUICK) == 0
    out, _ = capsys.readouterr()
    assert "unstructured-s0/1: failed in the run: the solver ran out of steps" in out
    assert "structured-s0/1: the loss is not deterministic" in out
    document = json.loads((tiny_run / "analysis/hessian.json").read_text())
    assert [stage["status"] for stage in document["stages"]] == ["done", "failed", "failed"]
    with (tiny_run / "analysis/hessian.csv").open(newline="") as stream:
        assert [row["lambda_max"] != "" for row in csv.DictReader(stream)] == [True, False, False]


def test_nothing_at_all(tiny_run, monkeypatch, capsys):
    def never(*args: object) -> None:
        raise RunError("the loss is not deterministic")

    monkeypatch.setattr(stage_module, "hessian_of_stage", never)
    assert call(tiny_run, *QUICK) == 1
    out, err = capsys.readouterr()
    assert "the loss is not deterministic" in out
    assert err.splitlines()[-1].startswith("analysis: no stage could be analysed; dense-s0/0: the loss")
    assert {path.name for path in (tiny_run / "analysis").iterdir()} == {"hessian.json", "hessian.csv"}


def edit_spec(run: Path, *changes: tuple[str, str]) -> None:
    """Make the run one that began with other settings."""
    text = (run / "spec.yaml").read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (run / "spec.yaml").write_text(text)
    known = json.loads((run / "run.json").read_text())
    known["identity"] = identity(load_spec(run / "spec.yaml"), known["data"])
    (run / "run.json").write_text(json.dumps(known))


def many_params(run: Path) -> None:
    path = run / "cascades/dense-s0/stages/0/record.json"
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | {"params": 20_000})))


WRONG = {
    "not a run folder": (["--json"], "not a run folder", lambda run: (run / "run.json").unlink()),
    "subset too large": (["--subset", 61], "--subset is 61, but there are 60 training rows", None),
    "subset too small": (["--subset", 1], "Invalid value for '--subset'", None),
    "unknown stage": (["--stage", "dense-s0/7"], "no stage 'dense-s0/7'; did you mean 'dense-s0/0'?", None),
    "exact too large": (["--exact"], "dense-s0/0 has 20,000 params, too many for --exact", many_params),
    "tolerance": (["--tol", "0"], "--tol is 0", None),
    "loss": (["--loss", "mse"], "Invalid value for '--loss'", None),
    "no time input": (
        ["--loss", "flow_matching"],
        "flow_matching needs",
        lambda run: edit_spec(run, ("time: concat", "time: none"), ("flow_matching", "nll")),
    ),
    "out is a file": (["--out", __file__], "cannot write here", None),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_status_2(tiny_run, capsys, case):
    options, message, prepare = WRONG[case]
    if prepare:
        prepare(tiny_run)
    assert call(tiny_run, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("analysis: ")
    assert message in err
    assert not (tiny_run / "analysis").exists()


def test_a_failed_stage_by_name_is_wrong_input(tiny_run, fail_stage, capsys):
    fail_stage(tiny_run, "structured-s0/1", "underflow in dt")
    assert call(tiny_run, "--stage", "structured-s0/1") == 2
    assert "stage structured-s0/1 failed (underflow in dt); take another" in capsys.readouterr().err


def test_two_runs(tiny_run, tmp_path, capsys, no_figure):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    shutil.copytree(tiny_run, tmp_path / "deep" / "tiny")
    options = [*QUICK, "--stage", "dense-s0/0", "--out", tmp_path / "out"]
    assert call(tiny_run, other, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["run"] == [str(tiny_run), str(other)]
    assert [stage["run"] for stage in document["stages"]] == document["run"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tiny", "other"}
    assert json.loads((tmp_path / "out/other/hessian.json").read_text())["run"] == str(other)
    assert call(tiny_run, tiny_run, *options) == 2
    assert "given twice" in capsys.readouterr().err
    assert call(tiny_run, tmp_path / "deep" / "tiny", *options) == 2
    assert "two run folders are called 'tiny'" in capsys.readouterr().err


def test_panels_share_their_axes():
    # The last panel's density is a thousandth of the first one's: nothing may be cut off at the top.
    grid = np.linspace(-1, 1, 64)
    stages = [
        {"grid": grid, "density": scale * np.exp(-(grid**2) / 0.02), "eigenvalues": np.array([0.1])}
        for scale in (1000.0, 1.0, 2.0, 1.0)
    ]
    seen = []

    from matplotlib.figure import Figure

    from analysis.plots import spectrum

    def keep(draw, arrays, size):
        figure = Figure(figsize=size)
        draw(figure)
        figure.draw_without_rendering()
        seen.extend(figure.axes)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "render", keep)
        spectrum_figure(["dense", "a", "b", "c"], stages)
    assert all(axes.get_ylim()[1] > 1000 for axes in seen[:4])
    assert len({axes.get_ylim() for axes in seen[:4]}) == 1
    assert [axes.get_visible() for axes in seen] == [True] * 4 + [False] * 2
    # Powers of ten in plain text: formulas are not drawn in our style.
    labels = [label.get_text() for label in seen[0].get_yticklabels()]
    assert {"10⁰", "10⁻⁴"} <= set(labels)
    assert not any("$" in label for label in labels)
    files = spectrum_figure(["dense"], stages[:1])
    assert set(files) == {"png", "pdf", "npz"}
    assert "density_0" in np.load(io.BytesIO(files["npz"]))
