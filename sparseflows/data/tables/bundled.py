"""Small real tables that ship with scikit-learn: nothing to download.

`wine` and `breast_cancer` are left as they are, though measured to few digits: `tabular.recurring_columns`
names the columns that this concerns, and whoever compares likelihoods should read its warnings. Noise
there would need a guess at each instrument's step and would make figures incomparable with those of others.
Pixels of `digits` are whole numbers by construction, 17 levels; a density needs them dequantised. So are those
columns of `diabetes` that are recorded in whole numbers (more than half of the values: age, blood pressure and most of
the laboratory's), whose step is known to be 1; its binary column is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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
    """

    name: str
    description: str
    columns: int
    rows: int
    load: Callable[[np.random.Generator], np.ndarray]
    source: str


def _wine(generator: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_wine

    return np.asarray(load_wine().data, dtype=np.float64)


def _breast_cancer(generator: np.random.Generator) -> np.ndarray:
    from sklearn.datasets import load_breast_cancer

    return np.asarray(load_breast_cancer().data, dtype=np.float64)


def _digits(generator: np.random.Generator) -> np.ndarray:
    """(pixel + U[0, 1)) / 17 with pixels 0 … 16, so in [0, 1); a pixel that is always 0 becomes uniform."""
    from sklearn.datasets import load_digits

    pixels = np.asarray(load_digits().data, dtype=np.float64)
    return (pixels + generator.random(pixels.shape)) / 17


def _diabetes(generator: np.random.Generator) -> np.ndarray:
    """The ten measurements in their own units, less the sex; columns recorded in whole numbers plus U[0, 1)."""
    from sklearn.datasets import load_diabetes

    table = np.delete(np.asarray(load_diabetes(scaled=False).data, dtype=np.float64), 1, axis=1)
    whole = (table == np.round(table)).mean(axis=0) > 0.5
    table[:, whole] += generator.random((len(table), int(whole.sum())))
    return table


BUNDLED: dict[str, Bundled] = {
    table.name: table
    for table in (
        Bundled(
            "wine",
            "chemical analyses of wines of three growers",
            13,
            178,
            _wine,
            "UCI Wine (Aeberhard & Forina 1991), CC BY 4.0",
        ),
        Bundled(
            "breast_cancer",
            "shape of cell nuclei in breast tissue",
            30,
            569,
            _breast_cancer,
            "UCI Breast Cancer Wisconsin, Diagnostic (Wolberg et al. 1995), CC BY 4.0",
        ),
        Bundled(
            "digits",
            "8×8 images of handwritten digits, dequantised",
            64,
            1797,
            _digits,
            "UCI Optical Recognition of Handwritten Digits, test part (Alpaydin & Kaynak 1998), CC BY 4.0",
        ),
        Bundled(
            "diabetes",
            "measurements of diabetes patients, dequantised",
            9,
            442,
            _diabetes,
            "Efron, Hastie, Johnstone & Tibshirani 2004, Least Angle Regression; ships with scikit-learn (BSD)",
        ),
    )
}
