"""Pairwise arrays of test parameters: every value meets every value of every other parameter, in few cases."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import pytest


def pairwise(**values: Sequence[Any]) -> tuple[list[str], list[Any]]:
    """Names and cases for `pytest.mark.parametrize(*pairwise(a=[…], b=[…]))`; those of the full product are `slow`.

    The case that shows most new pairs comes next (a greedy covering array); of equals the first of the product.
    """
    cases = list(product(*map(range, map(len, map(list, values.values())))))
    missing = {pair for case in cases for pair in _pairs(case)}
    chosen = set()
    while missing:
        best = max(cases, key=lambda case: len(missing & _pairs(case)))
        chosen.add(best)
        missing -= _pairs(best)
    columns = [list(column) for column in values.values()]
    return list(values), [
        pytest.param(
            *(column[place] for column, place in zip(columns, case, strict=True)),
            marks=() if case in chosen else pytest.mark.slow,
        )
        for case in cases
    ]


def _pairs(case: tuple[int, ...]) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    return set(combinations(enumerate(case), 2))
