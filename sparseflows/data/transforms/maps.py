"""Smooth increasing maps of one column onto the line: log, Yeo-Johnson's power, logit, ranks, and a circle cut open.

Each has a slope everywhere it is used, so that a density on the line is one on the column: log p(x) = log p(y) +
log |dy/dx|. Parameters come from the training rows alone and are kept as plain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparseflows.errors import InputError, lookup

Array = NDArray[np.float64]

RANK_KNOTS, RANK_ROWS = 64, 16  # knots of a rank map at most, and training rows between two of them at least
SMALLEST = float(np.finfo(np.float64).tiny)


class Map(Protocol):
    """An increasing map of one column onto the line; all arrays have any shape (*shape), kept."""

    def apply(self, x: Array) -> Array:
        """Own values to the line; values outside of where the map is defined become NaN."""

    def invert(self, y: Array) -> Array:
        """The line to own values."""

    def log_slope(self, y: Array) -> Array:
        """log dy/dx at points of the line."""

    def bend(self, y: Array) -> Array:
        """d log(dy/dx)/dy at points of the line: the gradient of a density needs it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; `map_from_dict` brings every bit back."""


@dataclass(frozen=True)
class Log:
    """y = log x, for x above 0, in any shape (*shape)."""

    def apply(self, x: Array) -> Array:
        """See `Map`."""
        return np.log(np.where(x > 0, x, np.nan))

    def invert(self, y: Array) -> Array:
        """See `Map`."""
        return np.exp(np.minimum(y, 709.0))  # the largest number that float64 holds

    def log_slope(self, y: Array) -> Array:
        """See `Map`: dy/dx = 1/x."""
        return -y

    def bend(self, y: Array) -> Array:
        """See `Map`."""
        return np.full_like(y, -1.0)

    def to_dict(self) -> dict[str, Any]:
        """See `Map`."""
        return {"kind": "log"}


@dataclass(frozen=True)
class Power:
    """The power transform of Yeo & Johnson (2000), scikit-learn's `PowerTransformer`, for any x.

    y = ((1 + x)^λ − 1)/λ for x ≥ 0, and −((1 − x)^(2−λ) − 1)/(2 − λ) below; log where the exponent is 0. It is applied
    to (x − centre)/unit, so that λ does not depend on the unit of the column. Where 0 < λ < 2 is not so, the map does
    not reach the whole line; λ is therefore fitted within [0, 2]. Arrays have any shape (*shape).
    """

    power: float
    centre: float
    unit: float

    @classmethod
    def fit(cls, x: Array) -> Power:
        """The power under which the training values (N,) are most likely to be Gaussian."""
        from scipy.optimize import minimize_scalar

        quarter, centre, three = np.quantile(x, (0.25, 0.5, 0.75))
        unit = float(three - quarter) or float(x.std())
        z = (x - centre) / unit

        def loss(power: float) -> float:
            y = cls(power, 0.0, 1.0).apply(z)
            slopes = np.sign(z) * (power - 1) * np.log1p(np.abs(z))
            return float(0.5 * np.log(y.var() + SMALLEST) - slopes.mean())

        return cls(float(minimize_scalar(loss, bounds=(0.0, 2.0), method="bounded").x), float(centre), unit)

    def apply(self, x: Array) -> Array:
        """See `Map`."""
        z = (x - self.centre) / self.unit
        size = np.log1p(np.abs(z))
        return np.where(z >= 0, _power(size, self.power), -_power(size, 2 - self.power))

    def invert(self, y: Array) -> Array:
        """See `Map`."""
        size = self._size(y)
        return np.sign(y) * np.expm1(np.minimum(size, 709.0)) * self.unit + self.centre

    def log_slope(self, y: Array) -> Array:
        """See `Map`: dy/dz = (1 + |z|)^(±(λ − 1))."""
        return np.sign(y) * (self.power - 1) * self._size(y) - np.log(self.unit)

    def bend(self, y: Array) -> Array:
        """See `Map`: log(1 + |z|) rises with |y| by 1/(1 + exponent |y|)."""
        return (self.power - 1) / (1 + np.where(y >= 0, self.power, 2 - self.power) * np.abs(y))

    def _size(self, y: Array) -> Array:
        """log(1 + |z|)."""
        exponent = np.where(y >= 0, self.power, 2 - self.power)
        bent = np.where(exponent < 1e-8, 1.0, exponent)
        return np.where(exponent < 1e-8, np.abs(y), np.log1p(bent * np.abs(y)) / bent)

    def to_dict(self) -> dict[str, Any]:
        """See `Map`."""
        return {"kind": "power", "power": self.power, "centre": self.centre, "unit": self.unit}


def _power(size: Array, exponent: float) -> Array:
    """((1 + |z|)^exponent − 1)/exponent, with size = log(1 + |z|)."""
    return size if exponent < 1e-8 else np.expm1(exponent * size) / exponent


@dataclass(frozen=True)
class Logit:
    """y = log((x − low)/(high − x)), for x between the ends, in any shape (*shape)."""

    low: float
    high: float

    def apply(self, x: Array) -> Array:
        """See `Map`."""
        inside = np.where((x > self.low) & (x < self.high), x, np.nan)
        return np.log(inside - self.low) - np.log(self.high - inside)

    def invert(self, y: Array) -> Array:
        """See `Map`."""
        # From the nearer end, so that no digit is lost there.
        near = (self.high - self.low) * np.exp(-np.abs(y)) / (1 + np.exp(-np.abs(y)))
        return np.where(y < 0, self.low + near, self.high - near)

    def log_slope(self, y: Array) -> Array:
        """See `Map`: dx/dy = (high − low) s(y) s(−y), s the logistic function."""
        return np.logaddexp(0, y) + np.logaddexp(0, -y) - np.log(self.high - self.low)

    def bend(self, y: Array) -> Array:
        """See `Map`: s(y) − s(−y)."""
        return np.tanh(y / 2)

    def to_dict(self) -> dict[str, Any]:
        """See `Map`."""
        return {"kind": "logit", "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Circular:
    """A circle cut open where the training rows are thinnest, then `Logit` of the length from the cut.

    An embedding as (cos, sin) would lie on a curve, where a flow of the plane has no density. The cut is a set of
    probability 0, so the density on what is left is one of the circle; it need not be continuous across the cut.
    """

    low: float
    high: float
    cut: float

    @classmethod
    def fit(cls, x: Array, low: float, high: float) -> Circular:
        """The cut amid the widest gap in the fiftieth part of the circle that holds the fewest training values (N,)."""
        period = high - low
        around = np.sort((x - low) % period)
        several = max(1, len(around) // 50)
        widths = (np.roll(around, -several) - around) % period
        first = int(np.where(widths == 0, period, widths).argmax()) if several < len(around) else 0
        near = np.take(around, range(first, first + several + 1), mode="wrap")
        gaps = np.diff(near) % period
        widest = int(gaps.argmax())
        return cls(low, high, float(low + (near[widest] + gaps[widest] / 2) % period))

    @property
    def _open(self) -> Logit:
        return Logit(0.0, 1.0)

    def apply(self, x: Array) -> Array:
        """See `Map`; values beyond the ends go on around the circle."""
        share = ((x - self.cut) / (self.high - self.low)) % 1.0
        tiny = 2.0**-53  # a value on the very cut stands beside it
        return self._open.apply(np.where(np.isfinite(share), np.clip(share, tiny, 1 - tiny), np.nan))

    def invert(self, y: Array) -> Array:
        """See `Map`: values in [low, high)."""
        period = self.high - self.low
        return self.low + (self.cut - self.low + period * self._open.invert(y)) % period

    def log_slope(self, y: Array) -> Array:
        """See `Map`."""
        return self._open.log_slope(y) - np.log(self.high - self.low)

    def bend(self, y: Array) -> Array:
        """See `Map`."""
        return self._open.bend(y)

    def to_dict(self) -> dict[str, Any]:
        """See `Map`."""
        return {"kind": "circular", "low": self.low, "high": self.high, "cut": self.cut}


@dataclass(frozen=True)
class Rank:
    """y is the normal score of x's rank among the training values, on straight lines between quantiles.

    Beyond the outermost quantiles the outermost lines go on, so that the map reaches the whole line and the density
    falls off as a Gaussian of the outermost slope.

    Attributes:
        values: of the quantiles, rising.
        scores: of the same quantiles of N(0, 1).
    """

    values: tuple[float, ...]
    scores: tuple[float, ...]

    @classmethod
    def fit(cls, x: Array) -> Rank:
        """Knots at the quantiles of the training values (N,), at least 16 rows apart."""
        from scipy.special import ndtri

        knots = int(np.clip(len(x) // RANK_ROWS, 2, RANK_KNOTS))
        shares = (np.arange(knots) + 0.5) / knots
        values, scores = np.quantile(x, shares), ndtri(shares)
        # Quantiles that fall on one value make one knot, in the middle of their scores.
        rising = np.unique(values)
        middle = [float(scores[values == value].mean()) for value in rising]
        if len(rising) < 2:
            raise InputError("almost all values are the same, so ranks do not spread them; drop it")
        return cls(tuple(map(float, rising)), tuple(middle))

    def apply(self, x: Array) -> Array:
        """See `Map`."""
        return _along(x, np.array(self.values), np.array(self.scores))

    def invert(self, y: Array) -> Array:
        """See `Map`."""
        return _along(y, np.array(self.scores), np.array(self.values))

    def log_slope(self, y: Array) -> Array:
        """See `Map`: that of the line that y is on."""
        values, scores = np.array(self.values), np.array(self.scores)
        slopes = np.log(np.diff(scores)) - np.log(np.diff(values))
        return slopes[_line(y, scores)]

    def bend(self, y: Array) -> Array:
        """See `Map`: 0 on every line."""
        return np.zeros_like(y)

    def to_dict(self) -> dict[str, Any]:
        """See `Map`."""
        return {"kind": "rank", "values": list(self.values), "scores": list(self.scores)}


def _line(at: Array, knots: Array) -> NDArray[np.intp]:
    """Between which knots each value lies, the outermost lines going on."""
    return np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)


def _along(at: Array, knots: Array, values: Array) -> Array:
    line = _line(at, knots)
    slope = np.diff(values) / np.diff(knots)
    return values[line] + (at - knots[line]) * slope[line]


def map_from_dict(state: dict[str, Any]) -> Map:
    """The map that `to_dict` wrote.

    Raises:
        InputError: a kind that this version does not know.
    """
    known: dict[str, Any] = {"log": Log, "power": Power, "logit": Logit, "circular": Circular, "rank": Rank}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    found: Map = lookup("transform", str(values.pop("kind")), known)(**values)
    return found
