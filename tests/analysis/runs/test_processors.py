"""Work shared among processors."""

from __future__ import annotations

import math
import os

import pytest

from analysis.runs import processors as module
from analysis.runs.processors import processors, shared_out


def test_there_is_at_least_one():
    assert 1 <= processors() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("pieces", [[], [-1.0], [-3.0, 2.0, -1.0, 4.0]])
def test_in_the_order_of_the_pieces(monkeypatch, count, pieces):
    monkeypatch.setattr(module, "processors", lambda: count)
    assert list(shared_out(math.fabs, pieces)) == [abs(one) for one in pieces]


def test_what_is_raised_comes_through(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 2)
    with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
        list(shared_out(math.sqrt, [1.0, 4.0, -1.0]))
