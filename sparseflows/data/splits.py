"""A data set's name and settings become standardised training, validation and test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from sparseflows.data.bundled import BUNDLED
from sparseflows.data.reading import fingerprint
from sparseflows.data.tabular import Standardiser, load_table, recurring_columns, split
from sparseflows.data.toy import TOYS, Modes, Toy
from sparseflows.errors import InputError, lookup
from sparseflows.rng import numpy_generator

__all__ = ["KnownSet", "Splits", "fingerprint", "known_sets", "make_splits"]

TABLE = "table"


@dataclass(frozen=True)
class Splits:
    """Rows to train on, to choose by, and to report on, all standardised with the training statistics.

    Attributes:
        name: of the data set.
        train, validation, test: (N, D) float64, standardised.
        standardiser: between own and standardised coordinates.
        log_prob_true: standardised points (B, D) → true log density (B,), nats, in standardised coordinates;
            None where unknown. Give it float64 points: rounding to float32 can push a point over the edge
            of a density with a sharp one (spirals, checkerboard), where this is −inf.
        modes: of the true density, in standardised coordinates, where it is a mixture of Gaussians.
        labels_test: component of each test point (N_test,), where known.
        warnings: what the user should know about the rows, one line each.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    standardiser: Standardiser
    log_prob_true: Callable[[np.ndarray], np.ndarray] | None = None
    modes: Modes | None = None
    labels_test: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownSet:
    """A line of `sparseflows data list`; dimension and rows are None where the file decides."""

    name: str
    kind: Literal["toy", "bundled", "file"]
    dimension: int | None
    rows: int | None
    description: str


def known_sets() -> list[KnownSet]:
    """Every name that `make_splits` takes, toy sets first; nothing is loaded. Toy rows: the default draw."""
    toys = [KnownSet(t.name, "toy", 2, t.default_n, t.description) for t in TOYS.values()]
    tables = [KnownSet(b.name, "bundled", b.columns, b.rows, b.description) for b in BUNDLED.values()]
    return [
        *toys,
        *tables,
        KnownSet(TABLE, "file", None, None, "a .npy or .csv file of your own (data.path)"),
    ]


def make_splits(
    name: str,
    path: str | None = None,
    n_train: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Splits:
    """Training, validation and test rows of a known set.

    Toy sets are drawn: `n_train` points (default: the set's own number), and half as many, independently,
    to validate and to test; one scalar mean and deviation standardise both coordinates. Tables are
    shuffled, split by the fractions, cut to the first `n_train` training rows (default: all) and
    standardised by column.

    Args:
        name: one of `known_sets()`.
        path: the file of `table`; None for all others.
        n_train: training rows.
        val_fraction, test_fraction: shares of a table's rows; unused for toy sets.
        seed: of the draw or of the split and the dequantisation.

    Raises:
        InputError: an unknown name; a path missing or not wanted; a file or table that `load_table` refuses;
            more training rows asked for than there are; a part without rows.
    """
    known = {known.name: known for known in known_sets()}
    kind = lookup("data set", name, known).kind
    if kind == "file" and path is None:
        raise InputError(
            f"data set '{name}' needs a file: set data.path in the param file or pass --set data.path=FILE"
        )
    if kind != "file" and path is not None:
        raise InputError(
            f"data set '{name}' takes no file, but data.path is '{path}': remove data.path, or set "
            f"data.name to '{TABLE}' to read the file"
        )
    if n_train is not None and n_train < 1:
        raise InputError(f"data.n_train is {n_train}; at least 1 training row is needed")
    if kind == "toy":
        return _toy_splits(TOYS[name], n_train, seed)
    if path is not None:
        array = load_table(path)
    else:
        array = BUNDLED[name].load(numpy_generator(seed, f"data/{name}/dequantise"))
    return _table_splits(name, array, n_train, (val_fraction, test_fraction), seed)


def _toy_splits(toy: Toy, n_train: int | None, seed: int) -> Splits:
    n = toy.default_n if n_train is None else n_train
    half = max(1, n // 2)
    train, _ = toy.sample(n, numpy_generator(seed, f"data/{toy.name}/train"))
    validation, _ = toy.sample(half, numpy_generator(seed, f"data/{toy.name}/validation"))
    test, labels = toy.sample(half, numpy_generator(seed, f"data/{toy.name}/test"))
    standardiser = Standardiser.fit_scalar(train, f"{toy.name}, {n} training points")
    truth = toy.log_prob
    return Splits(
        toy.name,
        standardiser.apply(train),
        standardiser.apply(validation),
        standardiser.apply(test),
        standardiser,
        None if truth is None else partial(_standardised_log_prob, truth, standardiser),
        None if toy.modes is None else _standardised_modes(toy.modes, standardiser),
        labels,
    )


def _standardised_log_prob(
    log_prob: Callable[[np.ndarray], np.ndarray], standardiser: Standardiser, z: np.ndarray
) -> np.ndarray:
    return log_prob(standardiser.invert(np.asarray(z, dtype=np.float64))) + standardiser.log_scale


def _standardised_modes(modes: Modes, standardiser: Standardiser) -> Modes:
    scale = standardiser.scale
    return Modes(standardiser.apply(modes.means), modes.covariances / np.outer(scale, scale))


def _table_splits(
    name: str, array: np.ndarray, n_train: int | None, fractions: tuple[float, float], seed: int
) -> Splits:
    train, validation, test = split(array, *fractions, numpy_generator(seed, f"data/{name}/split"))
    if n_train is not None and n_train > len(train):
        raise InputError(f"data.n_train is {n_train}, but '{name}' has {len(train)} training rows; ask for fewer")
    train = train[:n_train]
    standardiser = Standardiser.fit_columns(train, f"{name}, {len(train)} training rows")
    return Splits(
        name,
        standardiser.apply(train),
        standardiser.apply(validation),
        standardiser.apply(test),
        standardiser,
        warnings=tuple(recurring_columns(array)),
    )
