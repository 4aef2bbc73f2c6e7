"""The examples in docstrings are executed, those of every module that has some."""

from __future__ import annotations

import doctest
import importlib

import pytest
from support.docs.pages import ROOT

FILES = [path for package in ("sparseflows", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted, "the examples are not found where doctest looks for them"
    assert not found.failed


def test_the_main_public_functions_have_an_example():
    import sparseflows

    for name in ("Flow", "Solver", "build_flow", "Masks", "prune", "score"):
        thing = getattr(sparseflows, name)
        texts = [thing.__doc__, *(getattr(member, "__doc__", None) for member in vars(thing).values())]
        assert any(">>> " in text for text in texts if isinstance(text, str)), name
