"""Paired differences over seeds: their t-test, Holm's correction, and what chance alone would show. Pure."""

import math
from collections.abc import Iterable, Sequence

from analysis.tables.numbers import LEAST_PAIRS, WITHIN

LEVEL = 0.05  # of the family of all tests, kept by Holm's correction


def t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired t-test: t = mean / s.e., with n - 1 degrees of freedom (Student 1908).

    The differences are one a seed; below three there is no p. Equal ones (s.e. 0) have p = 0, or p = 1 where all are 0.
    """
    if len(differences) < LEAST_PAIRS:
        return None
    if len(set(differences)) == 1:
        return 0.0 if differences[0] else 1.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family of tests (Holm 1979), in the order given.

    The i-th smallest of m is multiplied by m - i + 1; none is smaller than one before it, or larger than 1. The
    family's error is at most 5 % when what is at or below 0.05 is rejected, however the tests depend on each other.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def by_chance(pairs: Iterable[int]) -> float:
    """How many comparisons of so many pairs each would exceed 2 standard errors if nothing differed: Σ P(|t| > 2)."""
    from scipy.stats import t

    return math.fsum(2 * float(t.sf(WITHIN, count - 1)) for count in pairs)  # n - 1 degrees of freedom
