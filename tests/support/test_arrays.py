"""A pairwise array has every pair of values, few cases, and the full product behind `slow`."""

from itertools import combinations, product

from support.arrays import pairwise, rotating


def test_every_pair_is_there() -> None:
    values = {"a": "pqrst", "b": [1, 2, 3, 4], "c": (True, False), "d": ["x", "y", "z"]}
    names, cases = pairwise(**values)
    assert names == list(values)
    assert sorted(case.values for case in cases) == sorted(product(*values.values()))
    fast = [case.values for case in cases if not case.marks]
    for (i, left), (j, right) in combinations(enumerate(values.values()), 2):
        assert {(case[i], case[j]) for case in fast} == set(product(left, right))
    assert len(fast) <= 24  # of 120; 5 · 4 is the least


def test_values_take_turns() -> None:
    cases = rotating("pqrst", [1, 2, 3], times=2)
    assert [case.values for case in cases] == list(product("pqrst", [1, 2, 3]))
    fast = [case.values for case in cases if not case.marks]
    assert " ".join(f"{row}{column}" for row, column in fast) == "p1 p2 q1 q3 r2 r3 s1 s2 t1 t3"
