"""The three parts of a data set: rows to train on, to choose by, and to report on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparseflows.data.tables.mapped import Rows
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.toy.toy import Modes
from sparseflows.errors import InputError


@dataclass(frozen=True)
class Splits:
    """Rows to train on, to choose by, and to report on, all standardised with the training statistics.

    Attributes:
        name: of the data set.
        train, validation, test: (N, D) float64, standardised; those of a large file stay on disk (`MappedRows`).
        standardiser: between own and standardised coordinates.
        log_prob_true: standardised points (B, D) → true log density (B,), nats, in standardised coordinates;
            None where unknown. Give it float64 points: rounding to float32 can push a point over the edge
            of a density with a sharp one (spirals, checkerboard), where this is −inf.
        modes: of the true density, in standardised coordinates, where it is a mixture of Gaussians.
        labels_test: class of each test point (N_test,) int64, 0 … classes − 1, where known; of a toy set: component.
        warnings: what the user should know about the rows, one line each.
        sample: the rows are part of a published set, or split otherwise: no number is comparable with published ones.
        notes: what a reader of the results should know, one line each.
        labels_train, labels_validation: as `labels_test`.
        classes: how many there are, where labels are known.
        columns: their names, where the file has any.
        decided: what makes these rows others than an earlier version read from the same file; part of what a run is
            known by.
    """

    name: str
    train: Rows
    validation: Rows
    test: Rows
    standardiser: Standardiser
    log_prob_true: Callable[[np.ndarray], np.ndarray] | None = None
    modes: Modes | None = None
    labels_test: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    sample: bool = False
    notes: tuple[str, ...] = ()
    labels_train: np.ndarray | None = None
    labels_validation: np.ndarray | None = None
    classes: int | None = None
    columns: tuple[str, ...] | None = None
    decided: tuple[str, ...] = ()

    @classmethod
    def standardised(
        cls, name: str, standardiser: Standardiser, own: tuple[np.ndarray, np.ndarray, np.ndarray], **known: Any
    ) -> Splits:
        """The splits of training, validation and test rows (N, D) each in their `own` coordinates.

        `known` are further attributes by name.
        """
        train, validation, test = map(standardiser.apply, own)
        return cls(name, train, validation, test, standardiser, **known)


def refuse_too_many(n_train: int | None, rows: int, name: str) -> None:
    """Refuse more training rows than the `rows` that the set `name` has; None asks for all of them.

    Raises:
        InputError: there are fewer.
    """
    if n_train is not None and n_train > rows:
        raise InputError(f"data.n_train is {n_train}, but '{name}' has {rows} training rows; ask for fewer")
