"""The engine's library: compiled once, found again, done without where there is no compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparseflows.flow.compiled import build

HAS_COMPILER = build.find_compiler() is not None
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler here")


@needs_compiler
def test_it_is_compiled_once_and_leaves_nothing_beside(tmp_path: Path) -> None:
    compiler = build.find_compiler()
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
    assert build.compile_to(blocked / "cache", build.find_compiler(), ()).exists()


@needs_compiler
def test_a_compiler_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build.compile_to(tmp_path, build.find_compiler(), ("-DREGISTER=nonsense", "-Dstatic=oops"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "reason"),
    [({"SPARSEFLOWS_COMPILED": "0"}, "SPARSEFLOWS_COMPILED=0"), ({"PATH": "", "CC": ""}, "no C compiler")],
)
def test_without_it_the_numbers_are_the_same(environment: dict[str, str], reason: str) -> None:
    program = """
import torch
from sparseflows.flow.compiled.build import why_not
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
field = MLPField(2, [16, 16], "tanh", "concat")
field.initialise(torch.Generator().manual_seed(0), 2.0)
points = torch.linspace(-2, 2, 20).reshape(10, 2).double()
with torch.no_grad():
    print(float(Flow(field).double().log_prob(points).sum()), why_not())
"""

    def told(extra: dict[str, str]) -> tuple[float, str]:
        import os

        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | extra, capture_output=True, text=True, check=True
        )
        number, why = done.stdout.strip().split(" ", 1)
        return float(number), why

    plain, why = told(environment)
    assert reason in why
    assert plain == pytest.approx(told({})[0], abs=1e-3)  # ten rows at tolerance 1e-5
