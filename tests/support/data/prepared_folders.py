"""Prepared folders of normal rows, as `sparseflows data prepare` would write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparseflows.data.benchmarks.facts import BENCHMARKS, PARTS
from sparseflows.data.benchmarks.prepared import MANIFEST, Manifest
from sparseflows.data.files.reading import fingerprint


def write_prepared(
    folder: Path,
    name: str = "power",
    *,
    rows: tuple[int, int, int] = (80, 10, 10),
    sample: bool = True,
    dtype: str = "float64",
) -> Path:
    """Train, validation and test rows of the set's own number of columns, correlated, and their manifest."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    columns = BENCHMARKS[name].columns
    mix = np.linalg.qr(generator.normal(size=(columns, columns)))[0] * np.linspace(0.3, 1.5, columns)
    files = {}
    for part, n in zip(PARTS, rows, strict=True):
        np.save(folder / f"{part}.npy", (generator.normal(size=(n, columns)) @ mix).astype(dtype))
        files[f"{part}.npy"] = {"shape": [n, columns], "sha256": fingerprint(folder / f"{part}.npy")}
    manifest = Manifest(
        name=name,
        columns=[f"c{k}" for k in range(columns)],
        rows=dict(zip(PARTS, rows, strict=True)),
        rows_published=dict(zip(PARTS, BENCHMARKS[name].rows, strict=True)),
        sample=sample,
        dtype=dtype,
        mean=None,
        std=None,
        statistics={},
        source={},
        notes=["a note"],
        files=files,
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder
