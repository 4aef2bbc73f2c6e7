"""A pairwise array has every pair of values, few cases, and the full product behind `slow`."""

from itertools import combinations, product

from support.arrays import pairwise


def test_every_pair_is_there() -> None:
    values = {"a": "pqrst", "b": [1, 2, 3, 4], "c": (True, False), "d": ["x", "y", "z"]}
    names, cases = pairwise(**values)
    assert names == list(values)
    assert sorted(case.values for case in cases) == sorted(product(*values.values()))
    fast = [case.values for case in cases if not case.marks]
    for (i, left), (j, right) in combinations(enumerate(values.values()), 2):
        assert {(case[i], case[j]) for case in fast} == set(product(left, right))
    assert len(fast) <= 24  # of 120; 5 · 4 is the least
