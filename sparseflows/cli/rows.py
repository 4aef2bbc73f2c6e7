"""What the commands say of rows without a number: how many, the first of them, and an error where one is asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sparseflows.errors import RunError

if TYPE_CHECKING:
    import numpy as np

    from sparseflows.experiment.inference import Outside

SHOWN = 5  # rows named


def score_text(summary: dict[str, Any], coordinates: str) -> str:
    """The line that `score` prints, for the document that it prints with --json."""
    without = summary["rows_infinite"] + summary["rows_unsolved"]
    end = f"{coordinates} coordinates (NFE {summary['nfe']})"
    if not without:
        rows = "1 row" if summary["n"] == 1 else f"{summary['n']:,} rows"
        error = "" if summary["nll_se"] is None else f" ± {_number(summary['nll_se'])}"
        return f"NLL {_number(summary['nll'])}{error} nats over {rows}, {end}"
    whole = "unknown" if summary["rows_unsolved"] else "inf"
    rest = summary["n"] - without
    over = "no row has a number" if not rest else f"{_number(summary['nll_finite'])} nats over the {rest:,} others"
    return f"NLL {whole} over all {summary['n']:,} rows, {without:,} of which have no finite log p; {over}, {end}"


def _number(nats: float) -> str:
    """Four digits behind the point, of what is beyond a million the first six."""
    return f"{nats:.4f}" if abs(nats) < 1e6 else f"{nats:.6g}"


def tell_rows(values: np.ndarray, strict: bool, outside: Outside) -> None:
    """Count the rows of (N,) or (N, D) that are not finite on standard error, with the first of them.

    Args:
        values: log p (N,), or points (N, D).
        strict: whether such rows are an error.
        outside: of them, the rows that `data.transform` does not take.

    Raises:
        RunError: there are some, and it is to be `strict`.
    """
    import numpy as np

    rows = values.reshape(len(values), -1)
    unsolved = np.isnan(rows).any(1) & ~outside.rows
    infinite = np.isinf(rows).any(1) & ~outside.rows & ~unsolved
    said = [
        f"{int(which.sum()):,} of {len(rows):,} rows {what} (from 1: {_places(np.flatnonzero(which) + 1)})"
        for which, what in ((infinite, "lie beyond all numbers"), (unsolved, "cannot be solved"))
        if which.any()
    ]
    if outside.rows.any():
        have = "has" if outside.rows.sum() == 1 else "have"
        so = f"{have} density 0" if values.ndim == 1 else f"{have} no noise"
        firsts = zip(np.flatnonzero(outside.rows) + 1, outside.faults, strict=False)
        places = "; ".join(f"row {row}, {fault}" for row, fault in firsts)
        count = int(outside.rows.sum())
        more = "; …" if count > len(outside.faults) else ""
        said.append(f"{count:,} of {len(rows):,} rows {so}: data.transform does not take them ({places}{more})")
    if said and strict:
        raise RunError(f"{'; '.join(said)}; without --strict they are -inf and NaN")
    for one in said:
        print(f"note: {one}", file=sys.stderr)


def _places(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")
