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
ROWS, COLUMNS = 20_000, 400  # looked at at most


def dependent_columns(rows: Array, names: Names, spiked: Sequence[int]) -> Iterator[Found]:
    """Columns of rows (N, D) that the ones before them determine, each once.

    These are copies and rising or falling functions of one column, and columns that are linear in several: sums,
    differences, parts of a whole. Where a hundredth of a column's deviation is left, it counts as determined: numbers
    are rounded before they are written.
    """
    rows = rows[:: max(1, -(-len(rows) // ROWS)), :COLUMNS]
    columns = rows.shape[1]
    if len(rows) < max(20, 2 * columns):
        return
    told: set[int] = set()
    for place, other, said in _functions_of_one(rows, spiked):
        told.add(place)
        yield Found(place, f"{called(place, names)} {said} {called(other, names)}, so the two have no joint density")
    deviation = rows.std(axis=0)
    if not (np.isfinite(deviation).all() and (deviation > 0).all()):
        return
    kept = [place for place in range(columns) if place not in told]
    table = (rows[:, kept] - rows[:, kept].mean(axis=0)) / deviation[kept]
    upper = np.linalg.qr(table, mode="r")
    rest = np.abs(np.diag(upper)) / np.sqrt(len(table))
    basis: list[int] = []
    for k in range(len(kept)):
        if rest[k] > REST or not basis:
            basis.append(k)
            continue
        weights = np.linalg.lstsq(table[:, basis], table[:, k], rcond=None)[0]
        members = [(kept[b], w) for b, w in zip(basis, weights, strict=True) if abs(w) > MEMBER]
        said = _linear(kept[k], members, deviation, names)
        yield Found(kept[k], f"{said} to {rest[k]:.1g} standard deviations, so they have no joint density")


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


def _linear(place: int, members: Sequence[tuple[int, float]], deviation: Array, names: Names) -> str:
    own = [weight * deviation[place] / deviation[other] for other, weight in members]
    others = [called(other, names) for other, _ in members]
    if len(own) > 1 and np.allclose(own, -1, atol=0.02):
        return f"{called(place, names)} and {listed(others)} add up to the same in every row,"
    terms = listed([f"{factor:.3g} × {other}" for factor, other in zip(own, others, strict=True)])
    return f"{called(place, names)} is linear in others ({terms})"
