"""A data set's name and settings become standardised training, validation and test rows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from sparseflows.data.benchmarks.prepared import open_prepared
from sparseflows.data.files.reading import fingerprint
from sparseflows.data.images.labelled import idx_splits, labelled_splits
from sparseflows.data.known import TABLE, KnownSet, known_sets
from sparseflows.data.own import large_splits, some_of, table_splits
from sparseflows.data.parts import Splits, refuse_too_many
from sparseflows.data.tables.bundled import BUNDLED
from sparseflows.data.tables.choosing import Reading
from sparseflows.data.tables.loading import DEFAULT, load_table
from sparseflows.data.tables.mapped import IN_MEMORY_BYTES, MappedRows, is_large
from sparseflows.data.tables.tabular import Standardiser, recurring_columns, split
from sparseflows.data.toy.toy import TOYS, Modes, Toy
from sparseflows.data.transforms.transformed import Wanted
from sparseflows.errors import InputError, lookup
from sparseflows.rng import numpy_generator

__all__ = ["KnownSet", "Splits", "fingerprint", "known_sets", "make_splits", "with_labels"]


def make_splits(
    name: str,
    path: str | None = None,
    n_train: int | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    reading: Reading = DEFAULT,
    transform: Wanted | None = None,
) -> Splits:
    """Training, validation and test rows of a known set.

    Toy sets are drawn: `n_train` points (default: the set's own number), and half as many, independently,
    to validate and to test; one scalar mean and deviation standardise both coordinates. Tables are
    shuffled, split by the fractions, cut to the first `n_train` training rows (default: all), seen through the maps of
    `transform` and standardised by column; rows that are copies of one another share a part. Benchmark sets come from
    the folder that `sparseflows data prepare` made, split and standardised already; with `n_train`, that many seeded
    training rows of it. Images with labels are split as tables are (`idx`: the published test set stays the test set)
    and standardised by one scalar. The rows of a large .npy file stay on disk.

    Args:
        name: one of `known_sets()`.
        path: the file of `table`; the folder of `idx`; the folder of a benchmark set (default: data/<name>);
            None for all others.
        n_train: training rows.
        val_fraction, test_fraction: shares of a table's rows; unused for toy and benchmark sets.
        seed: of the draw or of the split and the dequantisation.
        reading: how the file of `table` is read.
        transform: maps that columns of `table` are seen through.

    Raises:
        InputError: an unknown name; a path missing or not wanted; a file or table that `load_table` refuses;
            more training rows asked for than there are; a part without rows.
    """
    kind = lookup("data set", name, {known.name: known for known in known_sets()}).kind
    where = {"file": ("file", "FILE"), "folder": ("folder", "DIR")}.get(kind)
    if where is not None and path is None:
        raise InputError(
            f"data set '{name}' needs a {where[0]}: set data.path in the param file or pass --set data.path={where[1]}"
        )
    if kind in ("toy", "bundled") and path is not None:
        raise InputError(
            f"data set '{name}' takes no file, but data.path is '{path}': remove data.path, or set "
            f"data.name to '{TABLE}' to read the file"
        )
    if n_train is not None and n_train < 1:
        raise InputError(f"data.n_train is {n_train}; at least 1 training row is needed")
    fractions, split_by = (val_fraction, test_fraction), numpy_generator(seed, f"data/{name}/split")
    if kind == "toy":
        return _toy_splits(TOYS[name], n_train, seed)
    if kind == "prepared":
        return _prepared_splits(name, prepared_folder(name, path), n_train, seed)
    if kind == "folder" and path is not None:
        return idx_splits(Path(path), n_train, val_fraction, split_by)
    if path is not None:
        if is_large(Path(path)):
            return large_splits(Path(path), n_train, fractions, seed, reading, transform or {})
        return table_splits(load_table(path, reading), path, n_train, fractions, split_by, reading, transform or {})
    bundled = BUNDLED[name]
    rows = bundled.load(numpy_generator(seed, f"data/{name}/dequantise"))
    if bundled.labels is not None and bundled.classes is not None:
        return labelled_splits(name, rows, bundled.labels(), bundled.classes, n_train, fractions, split_by)
    return _bundled_splits(name, rows, n_train, fractions, split_by)


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
    return Splits.standardised(
        toy.name,
        standardiser,
        (train, validation, test),
        log_prob_true=None if truth is None else partial(_standardised_log_prob, truth, standardiser),
        modes=None if toy.modes is None else _standardised_modes(toy.modes, standardiser),
        labels_train=labels_train,
        labels_validation=labels_validation,
        labels_test=labels,
        classes=toy.components,
    )


def _standardised_log_prob(
    log_prob: Callable[[np.ndarray], np.ndarray], standardiser: Standardiser, z: np.ndarray
) -> np.ndarray:
    return log_prob(standardiser.invert(np.asarray(z, dtype=np.float64))) + standardiser.log_scale


def _standardised_modes(modes: Modes, standardiser: Standardiser) -> Modes:
    scale = standardiser.scale
    return Modes(standardiser.apply(modes.means), modes.covariances / np.outer(scale, scale))


def _bundled_splits(
    name: str, rows: np.ndarray, n_train: int | None, fractions: tuple[float, float], split_by: np.random.Generator
) -> Splits:
    train, validation, test = split(rows, *fractions, split_by)
    refuse_too_many(n_train, len(train), name)
    train = train[:n_train]
    standardiser = Standardiser.fit_columns(train, f"{name}, {len(train)} training rows")
    warnings = tuple(recurring_columns(rows))
    return Splits.standardised(name, standardiser, (train, validation, test), warnings=warnings)


def _prepared_splits(name: str, folder: Path, n_train: int | None, seed: int) -> Splits:
    prepared = open_prepared(folder, name)
    manifest = prepared.manifest
    train, validation, test = (
        MappedRows(folder / f"{part}.npy") if array.nbytes > IN_MEMORY_BYTES else np.array(array, dtype=np.float64)
        for part, array in (("train", prepared.train), ("validation", prepared.validation), ("test", prepared.test))
    )
    notes = list(manifest.notes)
    if n_train is not None:
        train = some_of(train, n_train, name, numpy_generator(seed, f"data/{name}/n_train"))
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
