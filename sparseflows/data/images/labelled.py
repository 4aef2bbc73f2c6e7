"""Images with labels, to classify: scikit-learn's digits, and the user's own files in MNIST's format.

Pixels are taken as they are, in [0, 1]: a classifier needs no density, so nothing is dequantised. One mean and one
deviation, of all training pixels, standardise them; some pixels never vary, and have none of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.images.idx import LabelledImages, load_images
from sparseflows.data.tables.tabular import Standardiser, split
from sparseflows.errors import InputError

IDX = "idx"
BLOCK = 4096  # images that are standardised at once


@dataclass(frozen=True)
class Labelled:
    """Images with labels that come with scikit-learn.

    Attributes:
        name: as param files call it.
        description: one line.
        columns: D, the pixels.
        rows: N.
        classes: labels are 0 … classes − 1.
        load: → pixels (N, D) float64 in [0, 1], labels (N,) int64.
        source: origin and licence.
    """

    name: str
    description: str
    columns: int
    rows: int
    classes: int
    load: Callable[[], tuple[np.ndarray, NDArray[np.int64]]]
    source: str


@dataclass(frozen=True)
class LabelledParts:
    """Training, validation and test rows, standardised, each with its labels (N,) int64; see `splits.Splits`."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels_train: NDArray[np.int64]
    labels_validation: NDArray[np.int64]
    labels_test: NDArray[np.int64]
    classes: int
    standardiser: Standardiser


def _digits() -> tuple[np.ndarray, NDArray[np.int64]]:
    """pixel / 16 with pixels 0 … 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.asarray(digits.data, dtype=np.float64) / 16, np.asarray(digits.target, dtype=np.int64)


LABELLED: dict[str, Labelled] = {
    one.name: one
    for one in (
        Labelled(
            "digits_labelled",
            "8×8 images of handwritten digits, to classify",
            64,
            1797,
            10,
            _digits,
            "UCI Optical Recognition of Handwritten Digits, test part (Alpaydin & Kaynak 1998), CC BY 4.0",
        ),
    )
}


def labelled_parts(
    name: str, n_train: int | None, fractions: tuple[float, float], generator: np.random.Generator
) -> LabelledParts:
    """A set of `LABELLED`, shuffled and split as tables are, labels beside their rows.

    Args:
        name: of the set.
        n_train: training rows, the first so many; None: all.
        fractions: of the rows, for validation and for the test set.
        generator: of the shuffle.

    Raises:
        InputError: a part without rows, or fewer training rows than asked for.
    """
    known = LABELLED[name]
    pixels, labels = known.load()
    train, validation, test = split(np.arange(len(pixels)), *fractions, generator)
    train = _first(train, n_train, name)
    standardiser = _standardiser(pixels[train], name)
    rows = standardiser.apply(pixels)
    return LabelledParts(
        rows[train],
        rows[validation],
        rows[test],
        labels[train],
        labels[validation],
        labels[test],
        known.classes,
        standardiser,
    )


def idx_parts(folder: Path, n_train: int | None, val_fraction: float, generator: np.random.Generator) -> LabelledParts:
    """The files of `folder` (`idx.load_images`): the published test set, and a shuffle of the training set whose last
    `val_fraction` validates. Rows (N, height · width), pixel / 255 standardised, in float32, which holds 256 levels.

    Raises:
        InputError: as `load_images`; a part without rows, or fewer training rows than asked for.
    """
    images = load_images(folder)
    order = generator.permutation(len(images.train))
    n_validation = round(len(order) * val_fraction)
    if not 0 < n_validation < len(order):
        raise InputError(
            f"{folder}: {len(order)} training images leave {n_validation} to validate (val_fraction {val_fraction:g}); "
            "each part needs at least 1"
        )
    cut = len(order) - n_validation
    train, validation = _first(order[:cut], n_train, IDX), order[cut:]
    standardiser = _byte_standardiser(images, train)
    return LabelledParts(
        _standardised(images.train, train, standardiser),
        _standardised(images.train, validation, standardiser),
        _standardised(images.test, np.arange(len(images.test)), standardiser),
        images.labels_train[train],
        images.labels_train[validation],
        images.labels_test,
        images.classes,
        standardiser,
    )


def _first(order: NDArray[np.int64], n_train: int | None, name: str) -> NDArray[np.int64]:
    if n_train is not None and n_train > len(order):
        raise InputError(f"data.n_train is {n_train}, but '{name}' has {len(order)} training rows; ask for fewer")
    return order[:n_train]


def _standardiser(train: np.ndarray, source: str) -> Standardiser:
    """One mean and deviation (divisor N · D) for every column, constant columns among them."""
    return _scalar(float(train.mean()), float(train.std()), train.shape[1], source)


def _byte_standardiser(images: LabelledImages, train: NDArray[np.int64]) -> Standardiser:
    """`_standardiser` of byte / 255, from the counts of the 256 levels: no copy of the images in float64."""
    counts = sum(
        np.bincount(images.train[train[at : at + BLOCK]].ravel(), minlength=256) for at in range(0, len(train), BLOCK)
    )
    levels, total = np.arange(256) / 255, np.sum(counts)
    mean = float((counts * levels).sum() / total)
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))
    return _scalar(mean, deviation, images.train[0].size, "the training images")


def _scalar(mean: float, deviation: float, columns: int, source: str) -> Standardiser:
    if not deviation > 0:
        raise InputError(f"{source}: every training pixel is the same; give images that differ")
    return Standardiser(np.full(columns, mean), np.full(columns, deviation))


def _standardised(images: NDArray[np.uint8], chosen: NDArray[np.int64], standardiser: Standardiser) -> np.ndarray:
    """The chosen images as rows (N, D) float32."""
    rows = np.empty((len(chosen), images[0].size), dtype=np.float32)
    for at in range(0, len(chosen), BLOCK):
        some = images[chosen[at : at + BLOCK]]
        rows[at : at + BLOCK] = standardiser.apply(some.reshape(len(some), -1) / 255)
    return rows
