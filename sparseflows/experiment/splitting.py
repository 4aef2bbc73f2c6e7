"""The section `data` of a param file becomes rows: the one call that reads and splits them."""

from __future__ import annotations

from sparseflows.data.splits import Splits, make_splits
from sparseflows.data.tables.choosing import Reading
from sparseflows.specs import DataSpec


def reading_of(data: DataSpec) -> Reading:
    """How the section says that a table is read."""
    return Reading(data.header, data.index, tuple(data.columns), tuple(data.drop), data.missing, data.copies)


def splits_of(data: DataSpec, path: str | None, seed: int) -> Splits:
    """The rows of the section, drawn or split by `seed`, those of a file from `path`; raises as `make_splits`."""
    fractions = data.val_fraction, data.test_fraction
    return make_splits(data.name, path, data.n_train, *fractions, seed, reading_of(data), data.transform)
