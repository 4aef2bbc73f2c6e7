"""Pairwise arrays of test parameters: every value meets every value of every other parameter, in few cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def rotating(first: Iterable[Any], second: Iterable[Any], times: int = 1) -> list[Any]:
    """Cases of two parameters: each value of `first` meets `times` of `second`, taken in turn; the others are `slow`.

    For parameters that have nothing to do with each other, of which the full product would show little more.
    """
    rows, columns = list(first), list(second)
    return [
        pytest.param(row, column, marks=() if (place - times * number) % len(columns) < times else pytest.mark.slow)
        for number, row in enumerate(rows)
        for place, column in enumerate(columns)
    ]


def _pairs(case: tuple[int, ...]) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    return set(combinations(enumerate(case), 2))
