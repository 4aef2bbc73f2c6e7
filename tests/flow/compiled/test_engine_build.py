"""The engine's library: compiled once, found again, done without where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sparseflows.flow.compiled import build, compilers

COMPILERS = compilers.find_compilers()
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="no C compiler here")
PROGRAM = """
import torch
from sparseflows.flow.compiled.build import why_not
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
field = MLPField(2, [16, 16], "tanh", "concat")
field.initialise(torch.Generator().manual_seed(0), 2.0)
points = torch.linspace(-2, 2, 20).reshape(10, 2).double()
with torch.no_grad():
    print(float(Flow(field).double().log_prob(points).sum()), why_not())
    Flow(field.float()).log_prob(points.float())
"""


def told(extra: dict[str, str]) -> tuple[float, str, str]:
    """What a process says in that environment: a log-likelihood, why there is no engine, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | extra, capture_output=True, text=True, check=True
    )
    number, why = done.stdout.strip().split(" ", 1)
    return float(number), why, done.stderr


def without_compilers(folder: Path) -> dict[str, str]:
    """An environment in which no compiler is found; a broken `ziglang` stands for the one that may be installed."""
    (folder / "ziglang").mkdir()
    (folder / "ziglang" / "__init__.py").write_text("")
    (folder / "ziglang" / "__main__.py").write_text("raise SystemExit('zig is broken')")
    hidden = {"PYTHONPATH": f"{folder}"} if find_spec("ziglang") is not None else {}
    return {"PATH": "", "CC": "", "XDG_CACHE_HOME": str(folder / "cache")} | hidden


@needs_compiler
def test_it_is_compiled_once_and_leaves_nothing_beside(tmp_path: Path) -> None:
    compiler = COMPILERS[0]
    first = build.compile_to(tmp_path / "cache", compiler, ())
    written = first.stat().st_mtime_ns
    assert build.compile_to(tmp_path / "cache", compiler, ()) == first
    assert first.stat().st_mtime_ns == written
    assert build.compile_to(tmp_path / "cache", compiler, ("-DDOUBLE",)) != first
    assert len(list((tmp_path / "cache").iterdir())) == 2


@needs_compiler
def test_a_folder_that_cannot_be_made_is_replaced(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert build.compile_to(blocked / "cache", COMPILERS[0], ()).exists()


@needs_compiler
def test_a_compiler_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build.compile_to(tmp_path, COMPILERS[0], ("-DREGISTER=nonsense", "-Dstatic=oops"))
    assert list(tmp_path.iterdir()) == []


def test_switched_off_the_numbers_are_the_same_and_nothing_is_said() -> None:
    plain, why, errors = told({"SPARSEFLOWS_COMPILED": "0"})
    assert why == "SPARSEFLOWS_COMPILED=0"
    assert "EngineWarning" not in errors
    assert plain == pytest.approx(told({})[0], abs=1e-3)  # ten rows at tolerance 1e-5


def test_without_a_compiler_the_numbers_are_the_same_and_it_is_said_once(tmp_path: Path) -> None:
    plain, why, errors = told(without_compilers(tmp_path))
    assert "no C compiler was found" in why or "zig is broken" in why
    assert errors.count("EngineWarning") == 1  # of the two precisions that the program asks for
    assert why in errors
    assert plain == pytest.approx(told({})[0], abs=1e-3)


@needs_compiler
def test_a_compiler_that_fails_gives_way_to_the_next(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    broken.chmod(0o755)
    assert told({"CC": str(broken), "XDG_CACHE_HOME": str(tmp_path / "first")})[1] == "None"
    _, why, errors = told(without_compilers(tmp_path) | {"CC": str(broken)})
    assert f"{broken} failed: not today" in why
    assert why in errors


@needs_compiler
def test_a_flag_for_the_processor_that_a_compiler_does_not_know_is_left_out(tmp_path: Path) -> None:
    picky = tmp_path / "picky"
    picky.write_text(
        '#!/bin/sh\nfor word in "$@"; do case $word in -march=*|-mcpu=*) exit 1;; esac; done\n'
        f'exec {build.shown(COMPILERS[0])} "$@"\n'
    )
    picky.chmod(0o755)
    assert build.compile_to(tmp_path / "cache", (str(picky),), ()).exists()
