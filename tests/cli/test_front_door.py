"""`sparseflows` shows the analyses among its own commands, found by entry points, and answers at once."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer

from sparseflows.cli.app import app
from sparseflows.cli.groups import _ORDER, add_installed

HEAVY = ("torch", "pandas", "seaborn", "matplotlib", "scipy")
ANALYSES = {"hessian", "modes", "field", "cost", "table", "compare", "bounds", "classify", "report"}


def test_help_groups_the_commands():
    said = subprocess.run([sys.executable, "-m", "sparseflows", "--help"], capture_output=True, text=True, check=True)
    places = [said.stdout.index(f"\n{title}:") for title in _ORDER]
    assert places == sorted(places)
    analyses = said.stdout[places[2] : places[3]]
    assert {line.split()[0] for line in analyses.splitlines()[2:] if line.startswith("  ")} >= ANALYSES


def test_the_analyses_are_those_of_the_other_program():
    from analysis.cli.app import app as other

    ours, theirs = (typer.main.get_command(one).commands for one in (app, other))
    assert set(theirs) == ANALYSES
    for name in ANALYSES:
        assert ours[name].help == theirs[name].help


def test_without_the_entry_point_there_are_the_own_commands_alone(monkeypatch):
    monkeypatch.setattr("sparseflows.cli.groups.entry_points", lambda group: [])
    bare = typer.Typer()
    bare.command()(lambda: None)
    add_installed(bare)
    assert len(bare.registered_commands) == 1


def test_a_package_that_cannot_be_loaded_is_told_and_left_out(monkeypatch, capsys):
    def broken():
        raise ImportError("no module named 'gone'")

    own = typer.Typer()
    own.command(name="table")(lambda: None)
    other = typer.Typer()
    other.command(name="table")(lambda: None)
    other.command(name="more")(lambda: None)
    entries = [
        SimpleNamespace(name="bad", value="bad:app", load=broken),
        SimpleNamespace(name="good", value="g:app", load=lambda: other),
    ]
    monkeypatch.setattr("sparseflows.cli.groups.entry_points", lambda group: entries)
    add_installed(own)
    assert [info.name for info in own.registered_commands] == ["table", "more"]
    assert "bad (bad:app) are left out: no module named 'gone'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["hessian", "--help"],
        ["hessian", "NOSUCH"],
        ["table", "NOSUCH"],
        ["check", "NOSUCH.yaml"],
        ["report"],
    ],
)
def test_help_and_refusals_load_nothing_heavy(arguments):
    program = (
        "import sys\nfrom sparseflows.cli.app import app\nfrom sparseflows.cli.console import run_app\n"
        f"status = run_app(app, 'sparseflows', {arguments!r})\n"
        f"print('loaded', [name for name in {HEAVY!r} if name in sys.modules], status)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    status = 0 if "--help" in arguments else 2
    assert said.stdout.splitlines()[-1] == f"loaded [] {status}"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_while_python_ends_leaves_no_traceback(number):
    code = (
        "import atexit, os, signal, sys; from sparseflows.__main__ import main; "
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{number})); sys.argv[1:] = ['--help']; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    assert "sparseflows run" in ended.stdout
