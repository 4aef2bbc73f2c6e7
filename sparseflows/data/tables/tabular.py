"""Tables: arrays that are checked, split and standardised.

Columns in messages are called by their names, and counted from 1 where they have none, as rows are, a header not
counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparseflows.data.files.reading import counted
from sparseflows.data.tables.choosing import Labels, called, listed
from sparseflows.errors import InputError

Names = Labels
SPIKE_SHARE, SPIKE_COUNT = 0.01, 5  # a value above both is a spike
FINE_GRID = 2**16  # distinct values of a grid finer than a flow resolves


def validate(array: np.ndarray, source: str, names: Names = None, copy: bool = True) -> np.ndarray:
    """`array` as a float64 table (N, D) that a density can be fitted to.

    Args:
        array: booleans, integers or floating-point numbers, 2-D.
        source: where it came from, for the messages.
        names: of the columns, for the messages.
        copy: else float64 numbers are given as they came.

    Raises:
        InputError: not numbers, complex, not 2-D, empty, NaN or infinite values, fewer rows than columns,
            constant columns.
    """
    table = finite_matrix(array, source, names, copy, " (data.missing: drop leaves them out)")
    refuse_few_rows(table.shape, source)
    refuse_constant_columns(table, source, names)
    return table


def refuse_few_rows(shape: tuple[int, ...], source: str) -> None:
    """Raise InputError where a table of this shape (rows, columns) has fewer rows than columns."""
    rows, columns = shape
    if rows < columns:
        raise InputError(
            f"{source}: has {counted(rows, 'row')} and {counted(columns, 'column')}, fewer rows than "
            "columns; rows are observations, so transpose it or add rows"
        )


def real_matrix(array: np.ndarray, source: str, copy: bool = True) -> np.ndarray:
    """`array` as a matrix (N, D) float64, NaN and infinite values let through; `copy` as in `validate`.

    Raises:
        InputError: not numbers, complex, not 2-D, empty.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        kind = {"c": "complex numbers", "O": "Python objects", "U": "text", "S": "text", "V": "records"}
        what = kind.get(array.dtype.kind, "dates or times")
        raise InputError(f"{source}: holds {what} (dtype {array.dtype}); give real numbers")
    if array.ndim != 2:
        raise InputError(
            f"{source}: has {counted(array.ndim, 'dimension')} (shape {array.shape}); give a 2-D table of "
            "rows and columns, (N, 1) for a single column"
        )
    if array.size == 0:
        raise InputError(f"{source}: is empty (shape {array.shape}); give at least one row and one column")
    # Long doubles beyond float64 turn infinite, marks of what is no number NaN, and are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        matrix: np.ndarray = array.astype(np.float64, copy=copy)
    return matrix


def finite_matrix(
    array: np.ndarray, source: str, names: Names = None, copy: bool = True, hint: str = "", infinite: bool = False
) -> np.ndarray:
    """`array` as a matrix (N, D) float64 of finite numbers: the checks that points and tables share.

    `hint` ends the message where it is NaN that is refused; `infinite` lets such values through, as points may be.

    Raises:
        InputError: as `real_matrix`; NaN or infinite values.
    """
    matrix = real_matrix(array, source, copy)
    bad = np.isnan(matrix) if infinite else ~np.isfinite(matrix)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        remedy = "drop the rows or fill them in"
        remedy += hint if np.isnan(matrix[bad]).all() else ""
        raise InputError(
            f"{source}: has {counted(int(bad.sum()), 'value')} NaN or infinite, the first in row {row + 1}, "
            f"{called(int(column), names)}; {remedy}"
        )
    return matrix


def refuse_constant_columns(table: np.ndarray, source: str, names: Names = None) -> None:
    """Raise InputError where a column of `table` (N, D) has one value only, and name it."""
    # Not by the standard deviation: that of a column of 0.1 is 1e-17.
    constant = np.flatnonzero(table.max(axis=0) == table.min(axis=0))
    if len(constant):
        said = listed([f"{called(int(k), names)} (always {table[0, k]:g})" for k in constant])
        raise InputError(f"{source}: constant in every row: {said}; drop what never varies")


def recurring_columns(array: np.ndarray, names: Names = None) -> list[str]:
    """One warning for each column of `array` (N, D) whose values recur; see `recurring`."""
    return [said for _, said in recurring(array, names)]


def recurring(array: np.ndarray, names: Names = None) -> list[tuple[int, str]]:
    """The columns of `array` (N, D) whose values recur too often to have a density, each with a warning.

    On a value that recurs, a likelihood grows without bound as the model narrows there. A column is named
    when one value holds more than 1 % of the rows and more than 5 of them (a spike), or when the distinct
    values number fewer than half the rows and fewer than 65,536 (counts, a clock, rounded measurements).

    Measured: columns of float32 Gaussian numbers are never named (3,000 to 2,000,000 rows: at least 98 %
    distinct, no value above 5 rows; with mean 100, so coarser, 300,000 rows: 74 % and 8 rows). Of the 43
    MINIBOONE columns (3,284 rows) one is named, rightly: column 5 holds a single value in 9.1 % of the rows;
    the next, 0.5 %, is not.
    """
    found = []
    rows = len(array)
    for column in range(array.shape[1]):
        values, counts = np.unique(array[:, column], return_counts=True)
        top = int(counts.argmax())
        share = counts[top] / rows
        spike = share > SPIKE_SHARE and counts[top] > SPIKE_COUNT
        grid = len(values) < min(rows / 2, FINE_GRID)
        if not (spike or grid):
            continue
        said = f"{len(values):,} distinct values in {rows:,} rows, " if grid else ""
        warning = (
            f"{called(column, names)}: {said}{values[top]:g} in {share:.1%} of the rows, so no density there; "
            "dequantise it (add uniform noise as wide as its step) or drop it, else the NLL may fall "
            "without limit"
        )
        found.append((column, warning))
    return found


def split(
    array: np.ndarray, val_fraction: float, test_fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train, validation and test rows of `array` (N, D), shuffled; each row lands in exactly one of them.

    Validation and test get their fractions of N, rounded; train gets the rest.

    Raises:
        InputError: a part would be without rows.
    """
    rows = len(array)
    n_val, n_test = round(rows * val_fraction), round(rows * test_fraction)
    n_train = rows - n_val - n_test
    if min(n_train, n_val, n_test) < 1:
        raise InputError(
            f"{counted(rows, 'row')} split into {n_train} to train, {n_val} to validate (val_fraction "
            f"{val_fraction:g}) and {n_test} to test (test_fraction {test_fraction:g}); each needs at least 1"
        )
    shuffled = array[generator.permutation(rows)]
    return shuffled[:n_train], shuffled[n_train : n_train + n_val], shuffled[n_train + n_val :]


@dataclass(frozen=True)
class Standardiser:
    """z = (x − shift) / scale, column by column; both (D,) float64.

    Example:
        >>> s = Standardiser.fit_columns(np.array([[0.0, 10.0], [2.0, 30.0]]))
        >>> s.apply(np.array([1.0, 40.0])).tolist(), round(s.log_scale, 4)  # log 1 + log 10
        ([0.0, 2.0], 2.3026)
    """

    shift: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.shift.ndim != 1 or self.shift.shape != self.scale.shape:
            raise InputError(f"shift and scale differ: shapes {self.shift.shape} and {self.scale.shape}")
        if not (np.isfinite(self.shift).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise InputError("shift and scale must be finite and scale above 0: rescale columns of extreme size")

    @classmethod
    def fit_columns(
        cls,
        train: np.ndarray,
        source: str = "training rows",
        names: Names = None,
        weights: np.ndarray | None = None,
    ) -> Standardiser:
        """Mean and standard deviation (divisor N, or Σw) of each column of `train` (N, D): tables.

        Args:
            train: rows.
            source: where they came from, for the messages.
            names: of the columns, for the messages.
            weights: of the rows (N,), above 0; None: all weigh the same.

        Raises:
            InputError: a column is constant, or so large or small that its deviation is not finite or is 0.
        """
        refuse_constant_columns(train, source, names)
        with np.errstate(over="ignore", invalid="ignore"):
            if weights is None:
                return cls(train.mean(axis=0), train.std(axis=0))
            mean = np.average(train, axis=0, weights=weights)
            return cls(mean, np.sqrt(np.average((train - mean) ** 2, axis=0, weights=weights)))

    @classmethod
    def fit_scalar(cls, train: np.ndarray, source: str = "training points") -> Standardiser:
        """One mean and one standard deviation (divisor N · D) over all entries of `train`: toy sets.

        Raises:
            InputError: as `fit_columns`.
        """
        refuse_constant_columns(train, source)
        columns = train.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(np.full(columns, train.mean()), np.full(columns, train.std()))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Own coordinates (…, D) to standardised ones."""
        return (x - self.shift) / self.scale

    def try_apply(self, x: np.ndarray) -> np.ndarray:
        """Own coordinates (…, D) to standardised ones (…, D), where some may be beyond what is taken.

        NaN where a map does not take a value, infinite where the result is too large.
        """
        with np.errstate(over="ignore"):
            return self.apply(x)

    def fault(self, row: np.ndarray, names: Names) -> str:
        """Why a row (D,) in own coordinates is not taken, by column: `column 'pay': -3 has no logarithm`; here ''."""
        return ""

    def invert(self, z: np.ndarray) -> np.ndarray:
        """Standardised coordinates (…, D) to own ones."""
        return z * self.scale + self.shift

    def check(self, x: np.ndarray, names: Names, source: str) -> None:
        """Refuse rows (N, D) in own coordinates that cannot be standardised, by place; here all can."""

    def log_slope(self, rows: np.ndarray) -> np.ndarray:
        """log |dw/dz| (N,) between the flow's coordinates, at rows (N, D) of them, and the standardised ones: here they
        are the same, so 0; columns seen through maps have another (`transforms.transformed`)."""
        return np.zeros(len(rows))

    @property
    def log_scale(self) -> float:
        """Σ log scale, in nats: log p(x) = log p(z) − log_scale."""
        return float(np.log(self.scale).sum())

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists; through JSON and `from_dict` every bit comes back."""
        return {"shift": self.shift.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Standardiser:
        """The standardiser that `to_dict` wrote."""
        return Standardiser(np.array(state["shift"], dtype=np.float64), np.array(state["scale"], dtype=np.float64))
