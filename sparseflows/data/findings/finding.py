"""The notes on a table: one line each, with the column and what can be done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparseflows.data.findings.columns import angles, counting, heavy_tails
from sparseflows.data.findings.dependence import dependent_columns
from sparseflows.data.findings.marks import marks_of_missing
from sparseflows.data.findings.order import rows_in_order
from sparseflows.data.findings.repeats import repeated_rows
from sparseflows.data.tables.choosing import label, quoted
from sparseflows.data.tables.copies import groups_of, row_hashes
from sparseflows.data.tables.tabular import Names, recurring

LOOKED_AT = 200_000  # rows at most; of more, every k-th


@dataclass(frozen=True)
class Remedies:
    """What can be done, in the words of whoever reads the notes.

    Attributes:
        drop: names of columns → how to leave them out.
        see_through: name of a column, and of a map → how to see it through that.
        drop_copies: how to leave out rows that are copies.
        mark_missing: how to leave out rows in which a number marks a value that is missing.
    """

    drop: Callable[[Sequence[str]], str]
    see_through: Callable[[str, str], str]
    drop_copies: str
    mark_missing: str


PARAM_FILE = Remedies(
    lambda names: f"data.drop: [{', '.join(map(quoted, names))}] leaves {'it' if len(names) == 1 else 'them'} out",
    lambda name, kind: f"data.transform: {{{quoted_key(name)}: {kind}}}",
    "data.copies: drop leaves all but the first out",
    "leave such rows out, or leave these cells empty and set data.missing: drop",
)
ESTIMATOR = Remedies(
    lambda names: f"leave {'it' if len(names) == 1 else 'them'} out of X",
    lambda name, kind: (
        "put PowerTransformer() before the estimator in a pipeline"
        if kind in ("log", "power")
        else "map it to the line first"
    ),
    "drop all but the first",
    "leave such rows out",
)


def quoted_key(name: str) -> str:
    """A name as a key of a param file; one of digits is text there, too."""
    return f'"{name}"' if name.isdecimal() else quoted(name)


@np.errstate(over="ignore", invalid="ignore")  # columns of extreme size are refused by whoever standardises them
def findings(
    rows: np.ndarray,
    names: Names,
    remedies: Remedies = PARAM_FILE,
    transformed: Sequence[int] = (),
    copies: tuple[int, int] | None = None,
    in_order: np.ndarray | None = None,
) -> list[str]:
    """What is to be known about rows (N, D) before a density is fitted to them, one line each.

    Args:
        rows: in their own coordinates and their own order.
        names: of the columns, where they have any.
        remedies: what can be done.
        transformed: places of the columns that are seen through a map, whose shape is no matter then.
        copies: how many rows are copies of others, and of how many, where these rows are a choice of more.
        in_order: then, some (M, D) that follow one another in the file.
    """
    own = [str(label(place, names)) for place in range(rows.shape[1])]
    groups = groups_of([row_hashes(rows)])
    count = int(groups.max()) + 1
    marks, marked = marks_of_missing(rows, names)
    first = np.sort(np.unique(groups, return_index=True)[1])
    first = first[~marked[first]]
    different = rows if len(first) == len(rows) else rows[first]
    recurs = recurring(different, names)
    if len(recurs) == rows.shape[1] and not marks:  # rows are equal because their values are few
        different, recurs = rows, recurring(rows, names)
    spiked = [place for place, _ in recurs]
    some = different[:: max(1, -(-len(different) // LOOKED_AT))]
    known = copies or (len(rows) - count, len(rows))
    found = [f"{mark.said}; {remedies.mark_missing}" for mark in marks] + [said for _, said in recurs]
    found += repeated_rows(some, spiked, remedies.drop_copies, known) + rows_in_order(
        rows if in_order is None else in_order, names
    )
    for finding in (*dependent_columns(some, names, spiked), *counting(some, names, spiked)):
        found.append(f"{finding.said}; {remedies.drop([own[finding.place]])}")
    shapes = (*heavy_tails(some, names, spiked), *angles(some, names, spiked))
    for finding in shapes:
        if finding.place not in transformed:
            found.append(f"{finding.said}; {remedies.see_through(own[finding.place], finding.kind)}")
    return found
