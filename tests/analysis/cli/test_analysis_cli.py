from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.cli.app import app
from sparseflows.cli.console import run_app
from sparseflows.errors import InputError, RunError
from sparseflows.files import output_folder, write_whole

ROOT = Path(__file__).resolve().parents[3]
FILES = ["table.txt", "table.csv", "table.md", "table.tex"]
FIGURES = ["nll_vs_params.png", "nll_vs_params.pdf", "nll_vs_params.npz"]


def call(*args: object) -> int:
    return run_app(app, "analysis", [str(arg) for arg in args])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_prints_the_table_and_says_where_the_files_are(make_run, rows_of, capsys):
    run = make_run(rows_of())
    assert call("table", run) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "rings (nll), run run"
    assert out == (run / "analysis" / "table.txt").read_text()
    assert err.count("\n") == 1
    assert str(run / "analysis") in err
    assert names(run / "analysis") == {*FILES, *FIGURES}
    assert (run / "analysis" / "nll_vs_params.png").stat().st_size > 15_000


def test_json_is_one_document_without_nan(make_run, rows_of, failed_of, capsys):
    run = make_run([*rows_of([0]), failed_of("structured", 0, 3, "underflow in dt")])
    assert call("table", run, "--json") == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["run"] == [str(run)]
    assert len(document["stages"]) == 6
    assert document["stages"][0] == {
        **{"run": str(run), "dataset": "rings", "objective": "nll", "method": "dense", "seed": 0, "stage": 0},
        **{
            "protocol": "cascade",
            "status": "done",
            "reason": None,
            "prune_ratio": 0.0,
            "params": 1000,
            "params_dense": 1000,
        },
        **{"nll_test": 0.6, "nll_test_se": 0.02, "kl_gap": pytest.approx(0.1), "kl_gap_se": 0.004, "nfe": 50},
    }
    last = document["stages"][-1]
    assert (last["status"], last["reason"], last["nll_test"]) == ("failed", "underflow in dt", None)


def test_several_runs_share_a_figure(make_run, rows_of, tmp_path, capsys):
    runs = [
        make_run(rows_of(), folder="a"),
        make_run([row | {"objective": "fm"} for row in rows_of()], folder="b"),
    ]
    out = tmp_path / "made" / "here"
    assert call("table", *runs, "--out", out) == 0
    assert names(out) == {*FILES, *FIGURES}
    assert capsys.readouterr().out.count("* best NLL") == 2
    assert not (runs[0] / "analysis").exists()


def test_several_data_sets_have_a_figure_each(make_run, rows_of, tmp_path):
    runs = [
        make_run(rows_of(), folder="a"),
        make_run([row | {"dataset": "../two moons"} for row in rows_of()], folder="b"),
    ]
    assert call("table", *runs, "--out", tmp_path / "out") == 0
    figures = {f"nll_vs_params-{name}.{kind}" for name in ("rings", ".._two_moons") for kind in ("png", "pdf", "npz")}
    assert names(tmp_path / "out") == {*FILES, *figures}


def test_no_nll_no_figure(make_run, failed_of, capsys):
    run = make_run([failed_of("dense", 0, 0, "out of memory")])
    assert call("table", run) == 0
    assert names(run / "analysis") == set(FILES)
    assert "no figure for rings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "no such folder"),
        ("file", "not a folder"),
        ("foreign", "not a run folder"),
        ("empty", "no stage has finished yet"),
        ("malformed", "status is 'perhaps'"),
        ("two, no --out", "name one with --out DIR"),
        ("twice", "given twice"),
        ("out is a file", "cannot write here"),
        ("no argument", "Missing argument"),
        ("unknown option", "No such option"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(make_run, rows_of, row_of, tmp_path, capsys, case, message):
    run = make_run(rows_of())
    (tmp_path / "file").touch()
    args = {
        "missing": lambda: [tmp_path / "nowhere"],
        "file": lambda: [tmp_path / "file"],
        "foreign": lambda: [tmp_path],
        "empty": lambda: [make_run([], folder="empty")],
        "malformed": lambda: [make_run([row_of("a", 0, 1, 10, 1.0, status="perhaps")], folder="malformed")],
        "two, no --out": lambda: [run, make_run(rows_of(), folder="second")],
        "twice": lambda: [run, run, "--out", tmp_path / "out"],
        "out is a file": lambda: [run, "--out", tmp_path / "file"],
        "no argument": lambda: [],
        "unknown option": lambda: [run, "--jsn"],
    }[case]()
    assert call("table", *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("analysis: ")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_files_are_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.txt"
    write_whole(path, "first")
    seen = []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        seen.append((self.read_text(), path.read_text(), self.parent))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    write_whole(path, "second")
    assert seen == [("second", "first", tmp_path)]
    assert path.read_text() == "second"

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RunError, match="No space left"):
        write_whole(path, b"third")
    assert path.read_text() == "second"
    assert names(tmp_path) == {"table.txt"}


def test_an_output_folder_is_tried_first(tmp_path):
    assert output_folder(tmp_path / "a" / "b", "x") == tmp_path / "a" / "b"
    assert names(tmp_path / "a" / "b") == set()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write here \(Not a directory\); try elsewhere"):
        output_folder(tmp_path / "file" / "b", "try elsewhere")


def python(*args: str, home: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "analysis", *args],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return done, time.perf_counter() - start


@pytest.mark.parametrize("args", [["--help"], ["table", "--help"], ["table", "nowhere"], []])
def test_help_and_refusals_are_quick(tmp_path, args):
    # Best of three: the machine may be busy with something else.
    runs = [python(*args, home=tmp_path) for _ in range(3)]
    assert min(seconds for _, seconds in runs) < 2
    assert runs[0][0].returncode == (2 if "nowhere" in args else 0)
    assert ("Usage: analysis" in runs[0][0].stdout) == ("nowhere" not in args)


def test_help_imports_nothing_heavy():
    code = (
        "import sys, analysis.cli.app, analysis.runs.records, analysis.tables.means, analysis.tables.nll; "
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'seaborn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_a_fresh_home_sees_no_warning(make_run, rows_of, tmp_path):
    # No font cache yet, and a home that cannot hold one: matplotlib would report both.
    run = make_run(rows_of())
    (tmp_path / "home").touch()
    done, _ = python("table", str(run), home=tmp_path / "home")
    assert done.returncode == 0
    assert done.stderr.startswith("wrote ")
    assert done.stderr.count("\n") == 1
