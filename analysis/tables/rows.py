"""The numbers of a table as CSV: every digit, an empty cell where there is none."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.tables.numbers import Mean, exact


def to_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = (), whole: bool = True) -> str:
    """A line of names, and a line a row: `columns` in this order, by default all of the first row; a row may lack some.

    With `whole` a mean count that is whole is written as one (8642, not 8642.0).
    """
    columns, stream = columns or list(rows[0]), io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: exact(row.get(name)) if whole else row.get(name) for name in columns})
    return stream.getvalue()


def with_se(name: str, mean: Mean | None) -> dict[str, float | None]:
    """The two cells of a mean: `<name>` and `<name>_se`."""
    return {name: None, f"{name}_se": None} if mean is None else {name: mean.value, f"{name}_se": mean.se}
