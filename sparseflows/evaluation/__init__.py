"""The one place that computes reported numbers."""

from sparseflows.evaluation.likelihood import (
    TRAIN_ROWS,
    Array,
    Evaluation,
    Likelihood,
    as_dtype,
    evaluate,
    likelihood,
    reporting_solver,
    rows_per_chunk,
    standard_error,
    subset,
)

__all__ = [
    "TRAIN_ROWS",
    "Array",
    "Evaluation",
    "Likelihood",
    "as_dtype",
    "evaluate",
    "likelihood",
    "reporting_solver",
    "rows_per_chunk",
    "standard_error",
    "subset",
]
