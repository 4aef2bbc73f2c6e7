"""Fixtures of the documentation's tests: a folder like a checkout, a shell with its programs, the site."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.docs.pages import DOCS, ROOT

SHORTER = Path(__file__).parents[1] / "support" / "docs" / "shorter_programs.py"


@pytest.fixture(scope="session")
def shell_environment(tmp_path_factory) -> dict[str, str]:
    """PATH begins with `sparseflows` and `python` of this checkout, which do less work."""
    programs = tmp_path_factory.mktemp("bin")
    for name in ("sparseflows", "python", "torchrun"):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SHORTER}" {name} "$@"\n')
        script.chmod(0o755)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def execute(shell_environment):
    """Run the text of a block by bash in a folder: what it printed. A command that fails fails the test."""

    def run(text: str, folder: Path) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=shell_environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def quick(tmp_path_factory, execute) -> Path:
    """The run that pages speak of without making it: runs/quick, shorter."""
    folder = tmp_path_factory.mktemp("quick")
    (folder / "param").symlink_to(ROOT / "param")
    execute("sparseflows run param/quick.yaml", folder)
    return folder / "runs" / "quick"


@pytest.fixture
def beside_param(tmp_path) -> Path:
    """An empty folder with `param/` in it."""
    (tmp_path / "param").symlink_to(ROOT / "param")
    return tmp_path


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site, built as CI builds it: warnings are errors. `SPARSEFLOWS_SITE` names one that is built already."""
    ready = os.environ.get("SPARSEFLOWS_SITE")
    if ready:
        return Path(ready).resolve()
    pytest.importorskip("sphinx", reason="the site needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    shutil.rmtree(folder / "doctrees")
    return folder / "html"
