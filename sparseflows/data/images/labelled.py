"""Images with labels, to classify: scikit-learn's digits, and the user's own files in MNIST's format.

Pixels are taken as they are, in [0, 1]: a classifier needs no density, so nothing is dequantised. One mean and one
deviation, of all training pixels, standardise them; some pixels never vary, and have none of their own.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.images.idx import LabelledImages, load_images
from sparseflows.data.parts import Splits, refuse_too_many
from sparseflows.data.tables.tabular import Standardiser, split
from sparseflows.errors import InputError

IDX = "idx"
BLOCK = 4096  # images that are standardised at once


def labelled_splits(
    name: str,
    pixels: np.ndarray,
    labels: NDArray[np.int64],
    classes: int,
    n_train: int | None,
    fractions: tuple[float, float],
    generator: np.random.Generator,
) -> Splits:
    """A set of images, `pixels` (N, D) float64 in [0, 1], shuffled and split as tables are, labels (N,) beside them.

    `fractions` of the rows are for validation and for the test set.

    Raises:
        InputError: a part without rows, or fewer training rows than asked for.
    """
    train, validation, test = split(np.arange(len(pixels)), *fractions, generator)
    refuse_too_many(n_train, len(train), name)
    train = train[:n_train]
    chosen = pixels[train]
    return Splits.standardised(
        name,
        _scalar(float(chosen.mean()), float(chosen.std()), pixels.shape[1], name),
        (chosen, pixels[validation], pixels[test]),
        labels_train=labels[train],
        labels_validation=labels[validation],
        labels_test=labels[test],
        classes=classes,
    )


def idx_splits(folder: Path, n_train: int | None, val_fraction: float, generator: np.random.Generator) -> Splits:
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
    refuse_too_many(n_train, cut, IDX)
    train, validation = order[:cut][:n_train], order[cut:]
    standardiser = _byte_standardiser(images, train)
    return Splits(
        IDX,
        _standardised(images.train, train, standardiser),
        _standardised(images.train, validation, standardiser),
        _standardised(images.test, np.arange(len(images.test)), standardiser),
        standardiser,
        labels_train=images.labels_train[train],
        labels_validation=images.labels_train[validation],
        labels_test=images.labels_test,
        classes=images.classes,
    )


def _byte_standardiser(images: LabelledImages, train: NDArray[np.int64]) -> Standardiser:
    """`_scalar` of byte / 255, from the counts of the 256 levels: no copy of the images in float64."""
    counts = sum(
        np.bincount(images.train[train[at : at + BLOCK]].ravel(), minlength=256) for at in range(0, len(train), BLOCK)
    )
    levels, total = np.arange(256) / 255, np.sum(counts)
    mean = float((counts * levels).sum() / total)
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))
    return _scalar(mean, deviation, images.train[0].size, "the training images")


def _scalar(mean: float, deviation: float, columns: int, source: str) -> Standardiser:
    """One mean and deviation (divisor N · D) for every column, constant columns among them."""
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
