"""The structures of both sides are held against each other before the engine is called."""

from __future__ import annotations

import ctypes

import pytest
import torch

from sparseflows.flow.compiled import build
from sparseflows.flow.compiled.layout import STRUCTURES, LayoutError, check_layout
from sparseflows.flow.compiled.structures import ControlStructure

pytestmark = pytest.mark.skipif(build.library(torch.float64) is None, reason="no C compiler here")


def tampered(fields: list[tuple[str, type]]) -> dict[str, type[ctypes.Structure]]:
    """The structures, with these members in Control."""
    return STRUCTURES | {"Control": type("Tampered", (ctypes.Structure,), {"_fields_": fields})}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_those_that_are_used_agree(dtype: torch.dtype) -> None:
    check_layout(build.library(dtype), dtype.itemsize)


def test_a_structure_that_was_changed_on_one_side_is_refused() -> None:
    library, fields = build.library(torch.float64), list(ControlStructure._fields_)
    refused = {
        "Control at 0, 80 bytes in C, Control at 0, 72 bytes in Python": fields[:-1],
        "Control at 0, 80 bytes in C, Control at 0, 88 bytes in Python": [*fields, ("more", ctypes.c_int)],
        "Control.first at 40, 8 bytes in C, Control.nfe at 40": [*fields[:6], fields[7], fields[6], *fields[8:]],
        "Control.atol at 8, 8 bytes in C, Control.atol at 8, 4": [fields[0], ("atol", ctypes.c_float), *fields[2:]],
    }
    for words, changed in refused.items():
        with pytest.raises(LayoutError, match=words):
            check_layout(library, 8, tampered(changed))


def test_the_other_precision_is_refused() -> None:
    with pytest.raises(LayoutError, match="REAL at 0, 8 bytes in C, REAL at 0, 4 bytes in Python"):
        check_layout(build.library(torch.float64), 4)


def test_a_structure_that_one_side_does_not_know_is_refused() -> None:
    one_less = {name: structure for name, structure in STRUCTURES.items() if name != "Course"}
    with pytest.raises(LayoutError, match="Course at 0, 56 bytes in C, nothing more in Python"):
        check_layout(build.library(torch.float64), 8, one_less)


def test_a_library_that_says_nothing_is_refused() -> None:
    with pytest.raises(LayoutError, match="does not say"):
        check_layout(ctypes.CDLL(None), 8)


def test_a_refused_engine_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "check_layout", lambda library, real: check_layout(library, real, {}))
    found, why = build._load.__wrapped__(torch.float64)
    assert found is None
    assert "does not fit its Python side" in why
