"""Columns that are functions of others: rows then lie on a surface, where a flow of the whole space has no density."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.findings.columns import Found
from sparseflows.data.tables.choosing import called, listed
from sparseflows.data.tables.tabular import Names

Array = NDArray[np.float64]

REST = 0.01  # what is left of a column, in its standard deviations, when others have explained it
MEMBER = 0.02  # the least share that a column has in another, likewise
BULK = 8.0  # interquartile ranges from the median: rows beyond count less
ROWS, COLUMNS = 20_000, 400  # looked at at most
MAPPED_ROWS = 2_000  # in logarithms and squares
CURVE_LEAST, CURVE_ROWS, CURVE_COLUMNS = 200, 2_000, 100  # rows that curves are looked for in, and columns at most


def dependent_columns(rows: Array, names: Names, spiked: Sequence[int]) -> Iterator[Found]:
    """Columns of rows (N, D) that the ones before them determine, each once.

    These are copies and functions of one column, and columns that are linear in several, as they are (sums,
    differences, parts of a whole), in logarithms (products, quotients) or in squares (radii). Where a hundredth of a
    column's deviation is left, it counts as determined: numbers are rounded before they are written.
    """
    rows = rows[:: max(1, -(-len(rows) // ROWS)), :COLUMNS]
    columns = rows.shape[1]
    if len(rows) < max(20, 2 * columns):
        return
    told: set[int] = set()
    for place, other, said in _functions_of_one(rows, spiked):
        told.add(place)
        yield Found(place, f"{called(place, names)} {said} {called(other, names)}, so the two have no joint density")
    kept = [place for place in range(columns) if place not in told]
    for place, members, rest in _linear(rows[:, kept]):
        others = [(kept[other], factor) for other, factor in members]
        told.add(kept[place])
        yield Found(kept[place], f"{_said_of_sums(kept[place], others, names)} {_to(rest)}")
    for place, other in _curves(rows, [k for k in kept if k not in told and k not in spiked]):
        told.add(place)
        yield Found(place, f"{called(place, names)} is a function of {called(other, names)} {_to(REST)}")
    for found in _through_maps(rows, [k for k in kept if k not in told and k not in spiked], names):
        if found.place not in told:
            told.add(found.place)
            yield found


def _to(rest: float, of: str = "") -> str:
    return f"to {rest:.1g} standard deviations{of}, so they have no joint density"


def _linear(rows: Array) -> Iterator[tuple[int, list[tuple[int, float]], float]]:
    """The columns of rows (N, D) that are linear in those before them: place, the others with their factors, and what
    is left, in standard deviations."""
    if rows.shape[1] < 2:
        return
    low, median, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        unit = np.where(high > low, high - low, rows.std(axis=0))
    if not (np.isfinite(unit).all() and (unit > 0).all()):
        return
    # A few rows far out would make any two columns look proportional: each row counts as one of the bulk.
    table = (rows - median) / unit
    weight = 1 / np.maximum(1.0, np.abs(table).max(axis=1) / BULK)
    table = np.column_stack([weight, table * weight[:, None]])
    if not np.isfinite(table).all():  # squares of columns of extreme size
        return
    upper = np.asarray(np.linalg.qr(table, mode="r"))
    size = np.sqrt((upper[1:] ** 2).sum(axis=0))  # without the mean
    rest = np.abs(np.diag(upper)) / np.where(size > 0, size, 1.0)
    basis = [0]
    for k in range(1, table.shape[1]):
        if rest[k] > REST or len(basis) == 1:
            basis.append(k)
            continue
        weights = np.linalg.lstsq(table[:, basis], table[:, k], rcond=None)[0]
        shares = zip(basis[1:], weights[1:], strict=True)
        members = [
            (b - 1, float(w * unit[k - 1] / unit[b - 1])) for b, w in shares if abs(w) * size[b] > MEMBER * size[k]
        ]
        yield k - 1, members, float(rest[k])


def _curves(rows: Array, places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Columns of rows (N, D), among the `places`, that are smooth functions of another, rising or not, and that other.

    In the order of the other, such a column lies on the lines between its neighbours three places away; up to thirty
    places away it lies less near them. (Well separated clusters pass the first alone. Next neighbours may be copies.)
    """
    some = rows[:: max(1, -(-len(rows) // CURVE_ROWS))][:, places]
    if not len(some) >= CURVE_LEAST or not 2 <= len(places) <= CURVE_COLUMNS:
        return
    low, high = np.quantile(some, (0.25, 0.75), axis=0)
    spread = np.minimum(some.std(axis=0), (high - low) / 1.35)
    told: set[int] = set()
    for k in range(len(places)):
        if k in told:
            continue
        ordered = some[np.argsort(some[:, k], kind="stable")]
        near, far = (_off_the_line(ordered, k, step) for step in (3, min(30, len(some) // 30)))
        for found in np.flatnonzero((near < 1.4 * REST * spread) & (near < 0.5 * far)):
            if found != k and found not in told:
                told.add(int(found))
                yield places[int(found)], places[k]


def _off_the_line(ordered: Array, place: int, step: int) -> Array:
    """How far each column (D,) of rows (N, D), in the order of the one at `place`, is from the line between the rows
    `step` before and after it: what three quarters of the rows keep within."""
    before, here, after = ordered[: -2 * step], ordered[step:-step], ordered[2 * step :]
    length = after[:, place] - before[:, place]
    share = np.divide(here[:, place] - before[:, place], length, out=np.full(len(here), 0.5), where=length > 0)
    line = before + share[:, None] * (after - before)
    found: Array = np.quantile(np.abs(here - line), 0.75, axis=0)
    return found


def _through_maps(rows: Array, places: Sequence[int], names: Names) -> Iterator[Found]:
    """Columns of rows (N, D), among the `places`, whose logarithms or squares are linear in those of others: products,
    quotients and powers, radii, points on a sphere."""
    rows = rows[:: max(1, -(-len(rows) // MAPPED_ROWS))]
    if len(rows) < 2 * len(places):
        return
    signed = [place for place in places if (rows[:, place] != 0).all()]
    if len(signed) > 2:
        for k, members, rest in _linear(np.log(np.abs(rows[:, signed]))):
            factors = listed([f"{called(signed[other], names)}^{power:.3g}" for other, power in members])
            said = f"{called(signed[k], names)} is a product of powers of others ({factors})"
            yield Found(signed[k], f"{said} {_to(rest, ' of its logarithm')}")
    with np.errstate(over="ignore"):
        squares = rows[:, places] ** 2
    for k, members, rest in _linear(squares):
        others = listed([f"{factor:.3g} × {called(places[other], names)}²" for other, factor in members])
        said = f"the square of {called(places[k], names)} is linear in those of others ({others})"
        yield Found(places[k], f"{said} {_to(rest)}")


def _functions_of_one(rows: Array, spiked: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """Columns in the very order of an earlier one, or its reverse, or equal to it in most rows."""
    seen: dict[bytes, int] = {}
    for place in (k for k in range(rows.shape[1]) if k not in spiked):
        column = rows[:, place]
        order = np.argsort(column, kind="stable")
        keys = order.tobytes(), np.argsort(-column, kind="stable").tobytes()
        earlier = next((seen[key] for key in keys if key in seen), None)
        if earlier is None:
            equal = [other for other in seen.values() if (rows[:, other] == column).mean() > 0.5]
            if equal:
                share = float((rows[:, equal[0]] == column).mean())
                yield place, equal[0], f"equals, in {share:.0%} of the rows,"
                continue
            seen[keys[0]] = place
        elif (rows[:, earlier] == column).all():
            yield place, earlier, "is a copy of"
        else:
            yield place, earlier, "rises or falls exactly with"


def _said_of_sums(place: int, members: Sequence[tuple[int, float]], names: Names) -> str:
    others = [called(other, names) for other, _ in members]
    if len(members) > 1 and np.allclose([factor for _, factor in members], -1, atol=0.02):
        return f"{called(place, names)} and {listed(others)} add up to the same in every row,"
    terms = listed([f"{factor:.3g} × {called(other, names)}" for other, factor in members])
    return f"{called(place, names)} is linear in others ({terms})"
