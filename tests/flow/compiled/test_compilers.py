"""Which compilers are tried, and in which order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sparseflows.flow.compiled import compilers

ZIG = (sys.executable, "-m", "ziglang", "cc")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with gcc and clang, and without the package `ziglang`."""
    for name in ("gcc", "clang", "mine"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    return tmp_path


def test_those_on_the_path_come_in_their_order(machine: Path) -> None:
    assert compilers.find_compilers() == [(str(machine / "gcc"),), (str(machine / "clang"),)]


def test_cc_of_the_environment_comes_first_with_its_options(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "mine -m64 -pipe")
    assert compilers.find_compilers()[0] == (str(machine / "mine"), "-m64", "-pipe")
    monkeypatch.setenv("CC", "gcc")
    assert compilers.find_compilers() == [(str(machine / "gcc"),), (str(machine / "clang"),)]
    monkeypatch.setenv("CC", "absent")
    assert compilers.find_compilers() == [(str(machine / "gcc"),), (str(machine / "clang"),)]


def test_ziglang_comes_last(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "find_spec", lambda name: object() if name == "ziglang" else None)
    assert compilers.find_compilers()[-1] == ZIG
    monkeypatch.setenv("PATH", "")
    assert compilers.find_compilers() == [ZIG]
