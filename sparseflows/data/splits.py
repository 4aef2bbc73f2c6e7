"""A data set's name and settings become standardised training, validation and test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from sparseflows.data.benchmarks.prepared import open_prepared
from sparseflows.data.files.reading import fingerprint
from sparseflows.data.images.labelled import LABELLED, LabelledParts, idx_parts, labelled_parts
from sparseflows.data.known import TABLE, KnownSet, known_sets
from sparseflows.data.tables.bundled import BUNDLED
from sparseflows.data.tables.mapped import (
    IN_MEMORY_BYTES,
    TEST,
    TRAIN,
    VALIDATION,
    MappedRows,
    Rows,
    assign,
    check_table,
    fit_columns,
    is_large,
)
from sparseflows.data.tables.tabular import Standardiser, load_table, recurring_columns, split
from sparseflows.data.toy.toy import TOYS, Modes, Toy
from sparseflows.errors import InputError, lookup
from sparseflows.rng import numpy_generator

__all__ = ["KnownSet", "Splits", "fingerprint", "known_sets", "make_splits", "with_labels"]

LOOKED_THROUGH = 200_000  # rows of a large file that are searched for recurring values


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
    standardised by column. Benchmark sets come from the folder that `sparseflows data prepare` made, split
    and standardised already; with `n_train`, that many seeded training rows of it. Images with labels are
    split as tables are (`idx`: the published test set stays the test set) and standardised by one scalar. The rows of
    a large .npy file stay on disk.

    Args:
        name: one of `known_sets()`.
        path: the file of `table`; the folder of `idx`; the folder of a benchmark set (default: data/<name>);
            None for all others.
        n_train: training rows.
        val_fraction, test_fraction: shares of a table's rows; unused for toy and benchmark sets.
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
    if kind == "folder" and path is None:
        raise InputError(
            f"data set '{name}' needs a folder: set data.path in the param file or pass --set data.path=DIR"
        )
    if kind not in ("file", "folder", "prepared") and path is not None:
        raise InputError(
            f"data set '{name}' takes no file, but data.path is '{path}': remove data.path, or set "
            f"data.name to '{TABLE}' to read the file"
        )
    if n_train is not None and n_train < 1:
        raise InputError(f"data.n_train is {n_train}; at least 1 training row is needed")
    if kind == "toy":
        return _toy_splits(TOYS[name], n_train, seed)
    if kind == "prepared":
        return _prepared_splits(name, prepared_folder(name, path), n_train, seed)
    if kind == "folder" and path is not None:
        parts = idx_parts(Path(path), n_train, val_fraction, numpy_generator(seed, f"data/{name}/split"))
        return _labelled_splits(name, parts)
    if name in LABELLED:
        split_by = numpy_generator(seed, f"data/{name}/split")
        return _labelled_splits(name, labelled_parts(name, n_train, (val_fraction, test_fraction), split_by))
    if path is not None and is_large(Path(path)):
        return _large_splits(name, Path(path), n_train, (val_fraction, test_fraction), seed)
    if path is not None:
        array = load_table(path)
    else:
        array = BUNDLED[name].load(numpy_generator(seed, f"data/{name}/dequantise"))
    return _table_splits(name, array, n_train, (val_fraction, test_fraction), seed)


def with_labels(splits: Splits) -> np.ndarray:
    """Training rows (N, D + 1) whose last column is the label, as `objectives.CrossEntropy` takes them.

    Raises:
        InputError: labels are not known, or there are fewer than two classes.
    """
    if splits.labels_train is None or splits.classes is None or splits.classes < 2:
        has = "no labels" if splits.labels_train is None else "one class only"
        known = ", ".join(one.name for one in known_sets() if one.kind == "folder" or (one.classes or 0) > 1)
        needs = f"needs labels of two or more classes, but '{splits.name}' has {has}"
        raise InputError(f"train.objective: cross_entropy {needs}; use {known}")
    rows = np.asarray(splits.train)
    return np.concatenate([rows, splits.labels_train[:, None].astype(rows.dtype)], axis=1)


def prepared_folder(name: str, path: str | None) -> Path:
    """Where the benchmark set `name` is looked for: at `path`, or in data/<name>."""
    return Path("data") / name if path is None else Path(path)


def _toy_splits(toy: Toy, n_train: int | None, seed: int) -> Splits:
    n = toy.default_n if n_train is None else n_train
    half = max(1, n // 2)
    train, labels_train = toy.sample(n, numpy_generator(seed, f"data/{toy.name}/train"))
    validation, labels_validation = toy.sample(half, numpy_generator(seed, f"data/{toy.name}/validation"))
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
        labels_train=labels_train,
        labels_validation=labels_validation,
        classes=toy.components,
    )


def _labelled_splits(name: str, parts: LabelledParts) -> Splits:
    return Splits(
        name,
        parts.train,
        parts.validation,
        parts.test,
        parts.standardiser,
        labels_test=parts.labels_test,
        labels_train=parts.labels_train,
        labels_validation=parts.labels_validation,
        classes=parts.classes,
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


def _prepared_splits(name: str, folder: Path, n_train: int | None, seed: int) -> Splits:
    prepared = open_prepared(folder, name)
    manifest = prepared.manifest
    train, validation, test = (
        MappedRows(folder / f"{part}.npy") if array.nbytes > IN_MEMORY_BYTES else np.array(array, dtype=np.float64)
        for part, array in (("train", prepared.train), ("validation", prepared.validation), ("test", prepared.test))
    )
    notes = list(manifest.notes)
    if n_train is not None:
        train = _some(train, n_train, name, numpy_generator(seed, f"data/{name}/n_train"))
        notes.append(f"trained on {n_train:,} of {manifest.rows['train']:,} rows")
    # The parts are standardised as they were published, and that is the set's own coordinates.
    columns = len(manifest.columns)
    return Splits(
        name,
        train,
        validation,
        test,
        Standardiser(np.zeros(columns), np.ones(columns)),
        sample=manifest.sample or (n_train is not None and n_train < manifest.rows["train"]),
        notes=tuple(notes),
    )


def _large_splits(name: str, file: Path, n_train: int | None, fractions: tuple[float, float], seed: int) -> Splits:
    check_table(file)
    total = MappedRows(file).shape[0]
    labels = assign(total, *fractions, numpy_generator(seed, f"data/{name}/split"))
    train: Rows = MappedRows(file, labels, TRAIN)
    if n_train is not None:
        train = _some(train, n_train, name, numpy_generator(seed, f"data/{name}/n_train"))
    source = f"{name}, {len(train)} training rows"
    standardiser = (
        fit_columns(train, source) if isinstance(train, MappedRows) else Standardiser.fit_columns(train, source)
    )
    looked = np.sort(numpy_generator(seed, f"data/{name}/look").integers(total, size=min(total, LOOKED_THROUGH)))
    return Splits(
        name,
        MappedRows(file, labels, TRAIN, standardiser) if isinstance(train, MappedRows) else standardiser.apply(train),
        MappedRows(file, labels, VALIDATION, standardiser),
        MappedRows(file, labels, TEST, standardiser),
        standardiser,
        warnings=tuple(recurring_columns(MappedRows(file)[np.unique(looked)])),
    )


def _some(rows: Rows, n: int, name: str, generator: np.random.Generator) -> np.ndarray:
    if n > len(rows):
        raise InputError(f"data.n_train is {n}, but '{name}' has {len(rows)} training rows; ask for fewer")
    return np.asarray(rows[np.sort(generator.choice(len(rows), n, replace=False))])
