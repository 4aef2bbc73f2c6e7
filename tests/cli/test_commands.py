"""The commands that take a run folder: what they refuse, in one line and with status 2, before any work."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sparseflows.cli.app import app
from sparseflows.cli.console import run_app

PARAM = """
name: smallest
data: {name: moons, n_train: 60}
flow: {hidden: [4], activation: tanh, time: concat}
train: {objective: flow_matching, steps: 10, batch: 30}
prune: {methods: [structured], keep_ratios: [0.6]}
evaluate: {max_rows: 20}
"""


def call(*args):
    """Status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_app(app, "sparseflows", [str(arg) for arg in args])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def param(tmp_path_factory):
    path = tmp_path_factory.mktemp("param") / "smallest.yaml"
    path.write_text(PARAM)
    return path


@pytest.fixture(scope="module")
def smallest(param, tmp_path_factory):
    """A run folder with a dense and a pruned stage."""
    out = tmp_path_factory.mktemp("runs")
    status, _, err = call("run", param, "--out", out)
    assert status == 0, err
    return out / "smallest"


@pytest.fixture
def points(tmp_path):
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(5, 2)))
    return tmp_path / "points.npy"


def refused(*args):
    """The one line of a refused command."""
    status, out, err = call(*args)
    assert (status, out) == (2, ""), err
    assert err.count("\n") == 1
    assert err.startswith("sparseflows: ")
    return err.removeprefix("sparseflows: ").removesuffix("\n")


def commands(run, points, output):
    """Every command that takes a run folder."""
    return {
        "sample": ("sample", run, "-n", "3", "-o", output),
        "score": ("score", run, points, "-o", output),
        "map": ("map", run, points, "--to", "noise", "-o", output),
    }


COMMANDS = ("sample", "score", "map")


@pytest.mark.parametrize("name", COMMANDS)
def test_not_a_run_folder(name, tmp_path, points):
    for run, message in (
        (tmp_path, "not a run folder (it has no spec.yaml and run.json); give the one `sparseflows run` wrote"),
        (tmp_path / "nowhere", "no such run folder; give the folder that `sparseflows run` wrote"),
        (points, "no such run folder; give the folder that `sparseflows run` wrote"),
    ):
        assert refused(*commands(run, points, tmp_path / "o.npy")[name]) == f"{run}: {message}"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_stage_lists_the_known_ones(name, smallest, tmp_path, points):
    message = refused(*commands(smallest, points, tmp_path / "o.npy")[name], "--stage", "dense/0")
    assert message == f"{smallest}: no stage 'dense/0' (there are: best, dense-s0/0, structured-s0/1)"


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("sample", "o.txt", "results are NumPy arrays or text; give a name that ends in .npy or .csv"),
        ("score", "no/o.npy", "no such folder to write to"),
        ("map", "folder.npy", "is a folder; name a file in it"),
        ("score", "points.npy/o.npy", "no such folder to write to"),
    ],
)
def test_an_output_that_cannot_be_written(name, smallest, tmp_path, points, output, message):
    (tmp_path / "folder.npy").mkdir()
    before = sorted(tmp_path.rglob("*"))
    path = tmp_path / output
    assert refused(*commands(smallest, points, path)[name]) == f"{path}: {message}"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_whose_folder_may_not_be_written_to_is_refused_before_the_work(
    smallest, tmp_path, points, monkeypatch
):
    may = os.access
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK and may(path, mode))
    monkeypatch.setattr("sparseflows.experiment.inference.score_points", None)  # never called
    path = tmp_path / "o.npy"
    assert refused(*commands(smallest, points, path)["score"]).startswith(f"{path}: its folder cannot be written to")


def test_one_row_is_one_row(smallest, tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((1, 2)))
    status, out, _ = call("score", smallest, tmp_path / "one.npy")
    assert status == 0
    assert " over 1 row, " in out


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("score", "0"), ("map", "-1e-5"), ("map", "0.1"), ("score", "1e-13"), ("map", "nan"), ("score", "inf")],
)
def test_a_tolerance_out_of_bounds(name, smallest, tmp_path, points, tolerance):
    message = refused(*commands(smallest, points, tmp_path / "o.npy")[name], "--tol", tolerance)
    assert message == f"--tol {float(tolerance):g}: give a tolerance between 1e-12 and 1e-2"


@pytest.mark.parametrize("name", ["score", "map"])
def test_points_that_do_not_fit(name, smallest, tmp_path):
    np.save(tmp_path / "three.npy", np.zeros((4, 3)))
    np.save(tmp_path / "nan.npy", np.array([[0, np.nan]]))
    (tmp_path / "text.csv").write_text("1,2\n3,x\n")
    for file, message in (
        ("three.npy", "has 3 columns, the flow was trained on 2; give the same columns in the same order"),
        ("nan.npy", "has 1 value NaN or infinite, the first in row 1, column 2; drop the rows or fill them in"),
        ("text.csv", "line 2, column 2: 'x' is not a number; give numbers, separated by commas as here"),
        ("none.npy", f"no such file (looked in {tmp_path})"),
    ):
        path = tmp_path / file
        assert refused(*commands(smallest, path, tmp_path / "o.npy")[name]) == f"{path}: {message}"
    assert not (tmp_path / "o.npy").exists()


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("sample", "RUN", "-o", "o.npy"), "-n"),
        (("sample", "RUN", "-n", "0", "-o", "o.npy"), "'-n'"),
        (("sample", "RUN", "-n", "2.5", "-o", "o.npy"), "'-n'"),
        (("sample", "RUN", "-n", "3"), "-o"),
        (("sample", "RUN", "-n", "3", "-o", "o.npy", "--seed", "-1"), "'--seed'"),
        (("score", "RUN"), "DATA.npy"),
        (("score", "RUN", "p.npy", "--coordinates", "own"), "'own' is not one of 'standardised', 'data'"),
        (("score", "RUN", "p.npy", "--dtype", "float16"), "'float16' is not one of 'float32', 'float64'"),
        (("map", "RUN", "p.npy", "-o", "o.npy"), "--to"),
        (("map", "RUN", "p.npy", "-o", "o.npy", "--to", "x"), "'x' is not one of 'noise', 'data'"),
        (("run",), "PARAM.yaml"),
        (("run", "p.yaml", "--jobs", "0"), "'--jobs'"),
        (("run", "p.yaml", "--forc"), "--forc"),
        (("sampel",), "sampel"),
    ],
)
def test_wrong_arguments(args, part):
    assert part in refused(*args)


def test_run_refuses_before_it_makes_a_folder(param, tmp_path):
    out = tmp_path / "runs"
    assert refused("run", tmp_path / "none.yaml", "--out", out) == f"{tmp_path / 'none.yaml'}: no such param file"
    message = refused("run", param, "--out", out, "--set", "train.setps=3")
    assert message.startswith(f"{param} with --set: unknown key 'train.setps'; did you mean 'steps'?")
    message = refused("run", param, "--out", out, "--set", "data.path=x.npy")
    assert message.startswith("data set 'moons' takes no file")
    assert not out.exists()


def test_set_changes_settings_and_so_the_folder(param, smallest):
    status, out, _ = call("run", param, "--out", smallest.parent, "--set", "seeds=[3]", "--set", "prune={}", "--json")
    assert status == 0
    document = json.loads(out)
    assert document["run"].startswith(f"{smallest}-")
    (stage,) = document["stages"]
    assert (stage["method"], stage["seed"], stage["status"]) == ("dense", 3, "done")
    assert stage["accuracy_test"] is None


def test_csv_points(smallest, points, tmp_path):
    rows = np.load(points)
    np.savetxt(tmp_path / "points.csv", rows, delimiter=",", fmt="%.17g", header="x,y")
    documents = [call("score", smallest, path, "--json")[1] for path in (points, tmp_path / "points.csv")]
    assert documents[0] == documents[1]
    assert json.loads(documents[0])["n"] == 5


def test_outputs_replace_what_was_there(smallest, tmp_path):
    path = tmp_path / "o.npy"
    path.write_text("old")
    status, out, err = call("sample", smallest, "-n", "4", "-o", path)
    assert (status, out, err) == (0, "", f"wrote {path} (4, 2)\n")
    assert np.load(path).shape == (4, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.npy"]


def test_a_relative_output_needs_no_folder(smallest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("sample", smallest, "-n", "1", "-o", "o.npy")[0] == 0
    assert (tmp_path / "o.npy").is_file()


def test_refused_input_answers_without_pytorch(smallest, tmp_path):
    """In a process of its own, because here PyTorch is loaded already."""
    code = (
        "import sys; from sparseflows.cli.app import app; from sparseflows.cli.console import run_app\n"
        "for args in ARGS: assert run_app(app, 'sparseflows', args) == 2, args\n"
        "assert 'torch' not in sys.modules"
    )
    output = str(tmp_path / "o.npy")
    args = [
        ["sample", str(tmp_path), "-n", "1", "-o", output],
        ["score", str(tmp_path), "x.npy"],
        ["score", str(smallest), "x.npy"],
        ["map", str(smallest), "x.npy", "--to", "noise", "-o", output],
        ["run", "none.yaml"],
        ["run", "--out"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"ARGS = {args!r}\n{code}"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == len(args)
