"""Differences that are one a seed: their mean, its interval, and whether it stands in its family of tests. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.compare.stats import LEVEL, holm, t_test
from analysis.tables.means import mean_over_seeds
from analysis.tables.numbers import LEAST_PAIRS, WITHIN


@dataclass(frozen=True)
class Paired:
    """The mean of differences that are one a seed.

    `se` is the standard error over the seeds, of one seed that of the measurement; `half` is half of the 95 %
    interval (Student's t over the seeds; of one seed 2 s.e.). `p` is that of the paired t-test, `p_holm` after Holm's
    correction over the `tests` of its family; None below three seeds. None where nothing is known.
    """

    mean: float
    se: float | None
    half: float | None
    seeds: int
    p: float | None
    p_holm: float | None = None
    tests: int = 0

    @property
    def low(self) -> float:
        """The lower end; the mean itself where the width is not known."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + (self.half or 0.0)

    @property
    def stands(self) -> bool:
        """Whether it is a difference, with an error of at most 5 % for its whole family."""
        return self.p_holm is not None and self.p_holm <= LEVEL

    @property
    def over(self) -> str:
        """What the interval is, and what the tests say, in words."""
        if self.seeds == 1:
            return "one seed" if self.half is None else "± 2 s.e. of the measurement, one seed"
        return ", ".join([f"95 % interval over {self.seeds} seeds", *([self.tested] if self.tested else [])])

    @property
    def tested(self) -> str:
        """What the tests say, in words; empty where there is none."""
        if self.p is None or self.p_holm is None:
            return ""
        family = f", {p_is(self.p_holm)} after Holm's correction over {self.tests} tests" if self.tests > 1 else ""
        return f"{p_is(self.p)}{family}"


def paired(differences: Sequence[float], own_se: float | None = None) -> Paired:
    """The mean of `differences`, one a seed; `own_se` is the measurement's own error, which counts for one seed."""
    mean, seeds = mean_over_seeds(differences), len(differences)
    if seeds == 1 or mean.se is None:
        return Paired(mean.value, own_se, None if own_se is None else WITHIN * own_se, seeds, None)
    from scipy.special import stdtrit  # late: the words are also wanted where no interval is

    half = float(stdtrit(seeds - 1, 0.975)) * mean.se
    return Paired(mean.value, mean.se, half, seeds, t_test(differences))


def in_family(several: Sequence[Paired]) -> list[Paired]:
    """The same with `p_holm`, as the family of tests that answers one question; what has no p is no test."""
    known = [one.p for one in several if one.p is not None]
    adjusted = iter(holm(known))
    return [one if one.p is None else replace(one, p_holm=next(adjusted), tests=len(known)) for one in several]


def too_few(seeds: int) -> str:
    """Why so many seeds allow no verdict."""
    return f"{seeds} seed{'s' * (seeds != 1)} of both, and a verdict needs {LEAST_PAIRS}"


def p_is(value: float) -> str:
    """A p-value in a sentence.

    Example:
        >>> p_is(0.0312), p_is(1e-6)
        ('p = 0.0312', 'p < 0.0001')
    """
    shown = p_value(value)
    return f"p < {shown[1:]}" if shown.startswith("<") else f"p = {shown}"


def p_value(value: float) -> str:
    """A p-value to four decimals, two where it is large."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"
