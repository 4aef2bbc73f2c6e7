"""Small real tables that ship with scikit-learn: nothing to download.

`wine` and `breast_cancer` are left as they are, though measured to few digits: `tabular.recurring_columns`
names the columns that this concerns, and whoever compares likelihoods should read its warnings. Noise
there would need a guess at each instrument's step and would make figures incomparable with those of others.
Pixels of `digits` are whole numbers by construction, 17 levels; a density needs them dequantised. So are those
columns of `diabetes` that are recorded in whole numbers (more than half of the values: age, blood pressure and most of
the laboratory's), whose step is known to be 1; its binary column is dropped.

Pixels of `digits_labelled` are taken as they are, in [0, 1]: a classifier needs no density.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bundled:
    """A table that comes with scikit-learn.

    Attributes:
        name: as param files call it.
        description: one line.
        columns: D.
        rows: N.
        load: generator → (N, D) float64 in the table's own coordinates; the generator draws the noise of
            dequantisation, where there is any.
        source: origin and licence.
        classes: labels are 0 … classes − 1; None for a table without labels.
        labels: → (N,) int64, beside the rows; None for a table without labels.
    """

    name: str
    description: str
    columns: int
    rows: int
    load: Callable[[np.random.Generator], np.ndarray]
    source: str
    classes: int | None = None
    labels: Callable[[], NDArray[np.int64]] | None = None


def _values(loader: str, **options: bool) -> np.ndarray:
    """The rows (N, D) float64 that one of scikit-learn's loaders gives."""
    from sklearn import datasets

    return np.asarray(getattr(datasets, loader)(**options).data, dtype=np.float64)


def _digits(generator: np.random.Generator) -> np.ndarray:
    """(pixel + U[0, 1)) / 17 with pixels 0 … 16, so in [0, 1); a pixel that is always 0 becomes uniform."""
    pixels = _values("load_digits")
    return (pixels + generator.random(pixels.shape)) / 17


def _digit_labels() -> NDArray[np.int64]:
    from sklearn.datasets import load_digits

    return np.asarray(load_digits().target, dtype=np.int64)


def _diabetes(generator: np.random.Generator) -> np.ndarray:
    """The ten measurements in their own units, less the sex; columns recorded in whole numbers plus U[0, 1)."""
    table = np.delete(_values("load_diabetes", scaled=False), 1, axis=1)
    whole = (table == np.round(table)).mean(axis=0) > 0.5
    table[:, whole] += generator.random((len(table), int(whole.sum())))
    return table


_DIGITS = "UCI Optical Recognition of Handwritten Digits, test part (Alpaydin & Kaynak 1998), CC BY 4.0"
_WINE = "UCI Wine (Aeberhard & Forina 1991), CC BY 4.0"
_CANCER = "UCI Breast Cancer Wisconsin, Diagnostic (Wolberg et al. 1995), CC BY 4.0"
_LARS = "Efron, Hastie, Johnstone & Tibshirani 2004, Least Angle Regression; ships with scikit-learn (BSD)"

BUNDLED: dict[str, Bundled] = {
    table.name: table
    for table in (
        Bundled("wine", "chemical analyses of wines of three growers", 13, 178, lambda _: _values("load_wine"), _WINE),
        Bundled(
            "breast_cancer",
            "shape of cell nuclei in breast tissue",
            30,
            569,
            lambda _: _values("load_breast_cancer"),
            _CANCER,
        ),
        Bundled("digits", "8×8 images of handwritten digits, dequantised", 64, 1797, _digits, _DIGITS),
        Bundled("diabetes", "measurements of diabetes patients, dequantised", 9, 442, _diabetes, _LARS),
        Bundled(
            "digits_labelled",
            "8×8 images of handwritten digits, to classify",
            64,
            1797,
            lambda _: _values("load_digits") / 16,
            _DIGITS,
            10,
            _digit_labels,
        ),
    )
}
