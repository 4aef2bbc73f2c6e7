"""Tables that come as data frames: what in them is no number is refused by the name of its column."""

from typing import Any

import numpy as np

from sparseflows.data.files.reading import counted
from sparseflows.errors import InputError

KINDS = {"M": "dates", "m": "spans of time", "O": "text", "c": "complex numbers"}
REMEDY = "leave it out of X, or turn it into numbers"


def refuse_what_is_no_number(table: Any) -> None:
    """Check the columns of a data frame (N, D), and that no entry of an array (N, D) is masked; others pass.

    Raises:
        InputError: a column of text, dates or categories, or with missing values, by its name; or masked entries, which
            arrays of numbers forget.
    """
    if np.ma.isMaskedArray(table) and np.ma.getmaskarray(table).any():
        count = int(np.ma.getmaskarray(table).any(axis=-1).sum())
        said = f"X: {counted(count, 'row')} with masked entries, which have no value; drop or fill them in"
        raise InputError(said)
    if not (hasattr(table, "columns") and hasattr(table, "dtypes") and hasattr(table, "iloc")):
        return
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        numbers = _numbers(column, name)
        missing = np.isnan(numbers)
        if missing.any():
            first = int(missing.argmax())
            raise InputError(
                f"X: column {str(name)!r} has {counted(int(missing.sum()), 'missing value')} (NaN), the first in row "
                f"{first} (from 0); drop these rows or fill them in"
            )


def _numbers(column: Any, name: Any) -> np.ndarray:
    """The numbers (N,) of one column."""
    kind = getattr(column.dtype, "kind", "O")
    if type(column.dtype).__name__ == "CategoricalDtype":
        raise InputError(f"X: column {str(name)!r} holds categories ({column.iloc[0]!r}); {REMEDY}")
    if kind in "Mmc":
        raise InputError(f"X: column {str(name)!r} holds {KINDS[kind]} ({column.iloc[0]}); {REMEDY}")
    try:
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        wrong = next((value for value in column if not _is_number(value)), column.iloc[0])
        raise InputError(f"X: column {str(name)!r} holds what is no number ({str(wrong)[:40]!r}); {REMEDY}") from None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None or type(value).__name__ == "NAType"
    return True
