"""`--log NAME`: what a name leads to, and that a wrong one is refused in one line before anything is written."""

from __future__ import annotations

import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sparseflows.errors import InputError
from sparseflows.experiment.monitoring import logger_names
from sparseflows.experiment.monitoring.logger_names import check_loggers, find_logger, open_loggers

OWN = """
class Fine:
    def __init__(self, run): self.run = run
    def begin(self, stage): pass
    def step(self, values): pass
    def end(self, record, network): pass

class Short:
    def __init__(self, run): pass
    def begin(self, stage): pass

class Bare:
    begin = step = end = print

def make(run): return Fine(run)
def make_short(run): return Short(run)
def fail(run): raise ConnectionError("no server")
class Inside:
    Deep = Fine
number = 3
import os
if "LOUD" in os.environ: print("imported")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the current directory, which is not on the path of Python."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "own_loggers.py").write_text(OWN)
    (folder / "own_broken.py").write_text("raise RuntimeError('not today')")
    (folder / "own_lacking.py").write_text("import a_package_nobody_has")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    yield folder
    for name in ("own_loggers", "own_broken", "own_lacking"):
        __import__("sys").modules.pop(name, None)


@pytest.mark.parametrize("name", ["Fine", "make", "Inside.Deep"])
def test_a_module_in_the_current_directory(own, name, capsys, monkeypatch):
    monkeypatch.setenv("LOUD", "1")
    logger = find_logger(f"own_loggers:{name}")(Path("run"))
    assert (type(logger).__name__, logger.run) == ("Fine", Path("run"))
    assert capsys.readouterr() == ("", "imported\n")  # what it prints must not get into a JSON document


def test_tensorboard_comes_with_the_package(tmp_path):
    assert find_logger("tensorboard").__module__ == "analysis.tensorboard.logger"


def test_an_installed_package(own, monkeypatch):
    monkeypatch.syspath_prepend(own)  # where installed packages are
    points = [EntryPoint("theirs", "own_loggers:Fine", logger_names.GROUP)]
    monkeypatch.setattr(logger_names, "entry_points", lambda group: [p for p in points if p.group == group])
    assert type(find_logger("theirs")(Path("run"))).__name__ == "Fine"
    with pytest.raises(InputError, match=r"unknown logger; did you mean 'theirs'\? \(known: tensorboard, theirs; your"):
        find_logger("their")
    points[0] = EntryPoint("theirs", "own_broken:Fine", logger_names.GROUP)
    with pytest.raises(InputError, match="importing own_broken:Fine raised RuntimeError: not today"):
        find_logger("theirs")


WRONG = {
    "tensorbord": "unknown logger; did you mean 'tensorboard'? (known: tensorboard; your own: --log MODULE:ATTRIBUTE",
    "": "unknown logger (known: ",
    "own_loggers:": "not of the form MODULE:ATTRIBUTE",
    ":Fine": "not of the form MODULE:ATTRIBUTE",
    "own loggers:Fine": "not of the form MODULE:ATTRIBUTE",
    "own_logger:Fine": "there is no module 'own_logger', neither installed nor in",
    "own_loggers.sub:Fine": "there is no module 'own_loggers.sub'",
    "own_broken:Fine": "importing own_broken raised RuntimeError: not today",
    "own_lacking:Fine": "importing own_lacking raised ModuleNotFoundError: No module named 'a_package_nobody_has'",
    "own_loggers:Finer": "'own_loggers' has no 'Finer'; did you mean 'Fine'?",
    "own_loggers:number": "is an object of type int, and cannot be called",
    "own_loggers:Short": "Short has no method step and no end",
    "own_loggers:Bare": "cannot be called with one argument, the folder of a run: too many positional arguments",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_are_refused_before_anything_is_written(own, name, param, call, tmp_path):
    said = call("run", param, "--out", tmp_path / "out", "--log", "own_loggers:Fine", "--log", name)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"sparseflows: --log {name}: {WRONG[name]}")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_tensorboard_that_is_not_installed_names_the_extra(monkeypatch, param, call, tmp_path):
    find_spec = logger_names.importlib.util.find_spec
    hide = lambda name: None if name == "tensorboard" else find_spec(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", hide)
    said = call("run", param, "--out", tmp_path / "out", "--log", "tensorboard")
    assert said.status == 2
    assert said.err == (
        "sparseflows: --log tensorboard: tensorboard is not installed; "
        "install it with pip install 'sparseflows[tensorboard]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_named_tensorboard_is_not_tensorboard(tmp_path, monkeypatch):
    (tmp_path / "a_run").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not logger_names._is_installed("a_run")
    assert logger_names._is_installed("json")


def test_names_are_taken_once(own):
    assert check_loggers(["own_loggers:make", "tensorboard", "own_loggers:make"]) == ("own_loggers:make", "tensorboard")


def test_what_cannot_be_made_is_named_and_left_out(own, tmp_path):
    said = []
    open_loggers(["own_loggers:fail", "own_loggers:make_short", "own_loggers:make"], tmp_path, said.append)
    assert said[0] == "logger own_loggers:fail: making it raised ConnectionError: no server; the run goes on without it"
    assert said[1].startswith("--log own_loggers:make_short: an object of type Short has no method step and no end")
    assert len(said) == 2


def test_no_pytorch_is_loaded_to_refuse_a_name(own):
    import subprocess
    import sys

    code = textwrap.dedent("""
        import sys
        from sparseflows.experiment.monitoring.logger_names import check_loggers
        check_loggers(["tensorboard", "own_loggers:Fine"])
        sys.exit(sum(name in sys.modules for name in ("torch", "matplotlib", "tensorboard")))
    """)
    assert subprocess.run([sys.executable, "-c", code], cwd=own, check=False).returncode == 0
