"""Columns seen through maps and then standardised; densities stay those of the columns themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparseflows.data.tables.choosing import Labels, called, place_of_label
from sparseflows.data.tables.tabular import Standardiser, refuse_constant_columns
from sparseflows.data.transforms.maps import Circular, Log, Logit, Map, Power, Rank, map_from_dict
from sparseflows.errors import InputError, lookup

Wanted = Mapping[str, str | Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class TransformedStandardiser(Standardiser):
    """Between own coordinates x and the flow's, w: y = map(x) column by column, then w = (y − inner shift)/inner scale.

    `shift` and `scale` are still those of x: standardised coordinates are z = (x − shift)/scale with or without maps,
    and so are the densities that are reported, log p(z) = log p(w) + log |dw/dz|. Runs with and without a transform
    are compared in the same coordinates.

    Attributes:
        maps: of the columns by place, from 0.
        inner: mean and deviation of what the maps give.
    """

    maps: tuple[tuple[int, Map], ...]
    inner: Standardiser

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Own coordinates (…, D) to the flow's (…, D).

        Raises:
            InputError: a value beyond the range of its map.
        """
        return self.inner.apply(self.mapped(np.asarray(x, dtype=np.float64)))

    def mapped(self, x: np.ndarray, names: Labels = None, source: str = "") -> np.ndarray:
        """What the maps give for own coordinates (…, D), (…, D); `names` and `source` are for the messages.

        Raises:
            InputError: a value beyond the range of its map.
        """
        y = self._tried(x)
        for place, one in self.maps:
            refuse_beyond(x[..., place], y[..., place], place, one, names, source)
        return y

    def _tried(self, x: np.ndarray) -> np.ndarray:
        """As `mapped`, with NaN for what a map does not take and infinite numbers where it gives them."""
        y = x.copy()
        for place, one in self.maps:
            with np.errstate(all="ignore"):
                y[..., place] = one.apply(x[..., place])
        return y

    def try_apply(self, x: np.ndarray) -> np.ndarray:
        """Own coordinates (…, D) to the flow's (…, D), NaN where a map does not take a value."""
        y = self._tried(np.asarray(x, dtype=np.float64))
        with np.errstate(over="ignore"):
            return self.inner.apply(y)

    def fault(self, row: np.ndarray, names: Labels) -> str:
        """See `Standardiser.fault`, of a row (D,); of several columns the first is named."""
        y = self._tried(np.asarray(row, dtype=np.float64))
        for place, one in self.maps:
            if not np.isfinite(y[place]):
                return f"{called(place, names)}: {float(row[place]):g} {_beyond(one)[0]}"
        return ""

    def check(self, x: np.ndarray, names: Labels, source: str) -> None:
        """Refuse rows (N, D) in own coordinates with a value beyond the range of its map.

        Raises:
            InputError: there is one; `names` and `source` are for the message.
        """
        self.mapped(x, names, source)

    def invert(self, z: np.ndarray) -> np.ndarray:
        """The flow's coordinates (…, D) to own ones (…, D)."""
        x = self.inner.invert(np.asarray(z, dtype=np.float64))
        for place, one in self.maps:
            x[..., place] = one.invert(x[..., place])
        return x

    def log_slope(self, rows: np.ndarray) -> np.ndarray:
        """log |dw/dz| (N,) at rows (N, D) in the flow's coordinates: log p(z) = log p(w) + log |dw/dz|."""
        y = self.inner.invert(np.asarray(rows, dtype=np.float64))
        total = np.full(len(y), self.log_scale - self.inner.log_scale)
        for place, one in self.maps:
            total += one.log_slope(y[:, place])
        return total

    def to_dict(self) -> dict[str, Any]:
        """Plain lists; through JSON and `standardiser_from_dict` every bit comes back."""
        maps = {str(place + 1): one.to_dict() for place, one in self.maps}
        return {**super().to_dict(), "transform": maps, "inner": self.inner.to_dict()}


def refuse_beyond(x: np.ndarray, y: np.ndarray, place: int, one: Map, names: Labels, source: str) -> None:
    """Raise InputError where a map does not take a value (N,) of a column: what it gave for it, (N,), is not finite."""
    bad = ~np.isfinite(y)
    if not bad.any():
        return
    row = int(np.atleast_1d(bad).argmax())
    value = float(np.atleast_1d(x)[row])
    where = f"{source + ': ' if source else ''}row {row + 1}, {called(place, names)}: {value:g}"
    count = int(bad.sum())
    more = f" ({count} rows in all)" if count > 1 else ""
    fault, remedy = _beyond(one)
    raise InputError(f"{where} {fault}{more}; {remedy}")


def _beyond(one: Map) -> tuple[str, str]:
    """What is wrong with a value that the map does not take, and what to do about it."""
    if isinstance(one, Log):
        return "has no logarithm", "use power or rank, or drop the rows"
    if isinstance(one, Logit):
        ends = f"is not between {one.low:g} and {one.high:g}, the ends of its logit"
        return ends, "set the ends a little wider, or use power or rank"
    return "is too large to be mapped", "rescale the column"


def refuse_unmappable(rows: np.ndarray, wanted: Wanted, names: Labels, source: str) -> None:
    """Refuse rows (N, D) of a whole table that a map without anything to fit does not take, by their place in it.

    Raises:
        InputError: no such column, or a value beyond the range of its map.
    """
    for column, kind in wanted.items():
        place = place_of_label(column, names, rows.shape[1], source, "data.transform")
        if kind == "log" or (isinstance(kind, Mapping) and "logit" in kind):
            one = _fitted(rows[:, place], kind)
            with np.errstate(all="ignore"):
                refuse_beyond(rows[:, place], one.apply(rows[:, place]), place, one, names, source)


def fit_transformed(train: np.ndarray, wanted: Wanted, names: Labels, source: str) -> Standardiser:
    """The standardiser of training rows (N, D) with the maps that `data.transform` asks for; a plain one without any.

    Raises:
        InputError: no such column, a value beyond the range of its map, a constant column.
    """
    plain = Standardiser.fit_columns(train, source, names)
    if not wanted:
        return plain
    maps: dict[int, Map] = {}
    for column, kind in wanted.items():
        place = place_of_label(column, names, train.shape[1], source, "data.transform")
        if place in maps:
            raise InputError(f"{source}: data.transform names {called(place, names)} twice; name each column once")
        try:
            maps[place] = _fitted(train[:, place], kind)
        except InputError as error:
            raise InputError(f"{source}: {called(place, names)}: {error}") from None
    chosen = tuple(sorted(maps.items()))
    width = train.shape[1]
    unit = TransformedStandardiser(plain.shift, plain.scale, chosen, Standardiser(np.zeros(width), np.ones(width)))
    y = unit.mapped(train, names, source)
    refuse_constant_columns(y, source, names)
    return TransformedStandardiser(plain.shift, plain.scale, chosen, Standardiser.fit_columns(y, source, names))


def _fitted(x: np.ndarray, kind: str | Mapping[str, Sequence[float]]) -> Map:
    if isinstance(kind, Mapping):
        (name, (low, high)), *_ = kind.items()
        ends = float(low), float(high)
        if name == "circular" and float(np.ptp(x)) > (ends[1] - ends[0]) * (1 + 1e-9):
            raise InputError(
                f"values from {x.min():g} to {x.max():g} go round a circle of length {ends[1] - ends[0]:g} more than "
                "once; give the ends of one turn in the column's own unit, or take whole turns off first"
            )
        return Logit(*ends) if name == "logit" else Circular.fit(x, *ends)
    fits: dict[str, Callable[[], Map]] = {"log": Log, "power": lambda: Power.fit(x), "rank": lambda: Rank.fit(x)}
    return lookup("transform", kind, fits)()


def standardiser_from_dict(state: dict[str, Any]) -> Standardiser:
    """The standardiser, with maps or without, that `to_dict` wrote."""
    plain = Standardiser.from_dict(state)
    if "transform" not in state:
        return plain
    maps = tuple((int(place) - 1, map_from_dict(one)) for place, one in state["transform"].items())
    return TransformedStandardiser(plain.shift, plain.scale, maps, Standardiser.from_dict(state["inner"]))
