"""How a number is printed, once for every table and sentence.

Nats have three decimals, percentages two or one, counts their thousands apart. A standard error that rounds to zero is
shown as `<` the last digit: "± 0.000" would read as certainty. What is not known is `-`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.runs.analyses import number

NOTHING = "-"
LEAST_PAIRS = 3  # a standard error over two seeds says little
WITHIN = 2.0  # standard errors: a smaller difference is within error
_HUGE = 1e5  # from here on powers of ten


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error (None where there is none), in the unit of what was averaged."""

    value: float
    se: float | None = None

    @property
    def beyond_error(self) -> bool:
        """Whether it is more than 2 standard errors from 0; no where the error is not known."""
        return self.se is not None and abs(self.value) > WITHIN * self.se

    def times(self, factor: float) -> Mean:
        """Both in another unit."""
        return Mean(factor * self.value, None if self.se is None else factor * self.se)

    def __abs__(self) -> Mean:
        """Its size."""
        return Mean(abs(self.value), self.se)

    def __sub__(self, other: Mean) -> Mean:
        """The difference of two that do not depend on each other; without an error where one of them has none."""
        if self.se is None or other.se is None:
            return Mean(self.value - other.value)
        return Mean(self.value - other.value, (self.se**2 + other.se**2) ** 0.5)


def mean_in(values: Mapping[str, Any] | None, name: str) -> Mean | None:
    """The finite number under `name` with the error under `<name>_se`; None where there is no number."""
    value = number(values, name)
    return None if value is None else Mean(value, number(values, f"{name}_se"))


def fixed(mean: Mean | float | None, digits: int = 2, sign: bool = False) -> str:
    """A number with so many decimals, and its standard error where there is one; `sign` shows a plus sign too.

    Example:
        >>> fixed(Mean(1.23456, 0.0004), 3), fixed(-1234.5), fixed(None)
        ('1.235 ± <0.001', '-1,234.50', '-')
    """
    if mean is None:
        return NOTHING
    mean = mean if isinstance(mean, Mean) else Mean(mean)
    plus = "+" if sign else ""
    value = f"{mean.value:{plus},.{digits}f}" if abs(mean.value) < _HUGE else f"{mean.value:{plus}.{digits}e}"
    if mean.se is None:
        return value
    least = 10.0**-digits
    if 0 < mean.se < least / 2:
        return f"{value} ± <{least:.{digits}f}"
    return f"{value} ± {mean.se:,.{digits}f}" if mean.se < _HUGE else f"{value} ± {mean.se:.{digits}e}"


def nats(mean: Mean | None, sign: bool = False) -> str:
    """Nats to 0.001."""
    return fixed(mean, 3, sign)


def share(mean: Mean | float | None, digits: int = 2) -> str:
    """A fraction as a percentage, without the sign: `86.47 ± 0.24`."""
    if mean is None:
        return NOTHING
    return fixed(mean.times(100) if isinstance(mean, Mean) else 100 * mean, digits)


def percent(ratio: float | None, digits: int = 1) -> str:
    """A prune ratio, to 0.1 % by default."""
    return NOTHING if ratio is None else f"{100 * ratio:.{digits}f} %"


def count(value: float | None) -> str:
    """A count with its thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def measure(mean: Mean | None) -> str:
    """A number of any size: to two digits of its standard error, or to three digits where it has none."""
    if mean is None:
        return NOTHING
    largest = max(abs(mean.value), mean.se or 0.0)
    if mean.se is None or mean.se == 0:
        shown = _three_digits(mean.value)
        return shown if mean.se is None else f"{shown} ± 0"
    if largest >= 1e6 or 0 < largest < 1e-3:
        return f"{mean.value:.2e} ± {mean.se:.0e}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(mean.se))))
    if mean.se >= 0.1 * abs(mean.value):  # one digit of a large error is enough
        decimals = max(0, decimals - 1)
    return f"{mean.value:,.{decimals}f} ± {mean.se:,.{decimals}f}"


def exact(cell: object) -> object:
    """A mean count that is whole, written as one in a CSV: 8642, not 8642.0."""
    return int(cell) if isinstance(cell, float) and cell.is_integer() else cell


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
