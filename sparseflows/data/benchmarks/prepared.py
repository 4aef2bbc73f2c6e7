"""A prepared set: a folder with train.npy, validation.npy, test.npy and manifest.json, read by memory map."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sparseflows.data.benchmarks.facts import PARTS
from sparseflows.data.files.reading import FilePath, existing_file, fingerprint, mapped_array
from sparseflows.errors import InputError

MANIFEST, FORMAT = "manifest.json", 1


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder says of itself, as manifest.json.

    Attributes:
        name: of the set, as param files call it.
        columns: their names, in order.
        rows: part → rows.
        rows_published: part → rows of the published set.
        sample: made from part of the raw rows, or otherwise not the published split.
        dtype: of the arrays.
        mean, std: own units = std · prepared + mean, one entry a column; None where the source was standardised.
        statistics: part → `mean`, `std`, `min`, `max`, one entry a column, of the prepared rows.
        source: where it came from: `kind` (raw, archive or folder), `path`, and `files`, a list of objects with
            `name`, `bytes`, `sha256`.
        notes: what a reader of its numbers should know, one line each.
        files: file name → `shape`, `sha256`.
        format: of this file.
    """

    name: str
    columns: list[str]
    rows: dict[str, int]
    rows_published: dict[str, int]
    sample: bool
    dtype: str
    mean: list[float] | None
    std: list[float] | None
    statistics: dict[str, dict[str, list[float]]]
    source: dict[str, Any]
    notes: list[str]
    files: dict[str, dict[str, Any]]
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True)
class Prepared:
    """A prepared set, opened: its parts (N, D) as read-only memory maps, and what is known of it."""

    folder: Path
    manifest: Manifest
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def open_prepared(folder: FilePath, name: str | None = None) -> Prepared:
    """The prepared set in `folder`; nothing is read but the manifest and the arrays' headers.

    `name` is the set that it should be.

    Raises:
        InputError: not a prepared folder, another set, or arrays that are not as the manifest says.
    """
    place = Path(folder)
    manifest = read_manifest(place, name)
    if name is not None and manifest.name != name:
        raise InputError(f"{place}: holds the set '{manifest.name}', not '{name}'; give the folder of '{name}'")
    arrays = [_open_part(place, part, manifest) for part in PARTS]
    return Prepared(place, manifest, *arrays)


def read_manifest(folder: FilePath, name: str | None = None) -> Manifest:
    """The manifest of a prepared folder; `name` is the set that was looked for.

    Raises:
        InputError: it is missing or damaged.
    """
    place = Path(folder)
    remedy = f"make one with `sparseflows data prepare {(name or 'NAME').upper()} --from PATH --to {place}`"
    if place.exists() and not place.is_dir():
        raise InputError(f"{place}: is a file; give the folder that `sparseflows data prepare` made")
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; {remedy}")
    if not (place / MANIFEST).is_file():
        raise InputError(f"{place}: has no {MANIFEST}, so it is no prepared set; {remedy}")
    try:
        document = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        found = Manifest(**{field.name: document.get(field.name) for field in fields(Manifest)})
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{place / MANIFEST}: damaged; prepare the set again") from None
    if found.format != FORMAT:
        raise InputError(
            f"{place / MANIFEST}: of format {found.format!r}; this version reads {FORMAT}: prepare it again"
        )
    if not (isinstance(found.columns, list) and isinstance(found.rows, dict) and set(PARTS) <= set(found.rows)):
        raise InputError(f"{place / MANIFEST}: damaged; prepare the set again")
    return found


def manifest_digest(folder: FilePath) -> str:
    """What a prepared set is known by: the SHA-256 of its manifest, which holds those of its arrays."""
    return fingerprint(Path(folder) / MANIFEST)


def verify(folder: FilePath) -> None:
    """Read every array and compare its SHA-256 with the manifest's.

    Raises:
        InputError: a file is missing or differs; it is named.
    """
    place = Path(folder)
    for name, known in read_manifest(place).files.items():
        if fingerprint(place / name) != known["sha256"]:
            raise InputError(f"{place / name}: not the file that was prepared (its SHA-256 differs); prepare it again")


def _open_part(place: Path, part: str, manifest: Manifest) -> np.ndarray:
    file = existing_file(place / f"{part}.npy")
    wanted = (manifest.rows[part], len(manifest.columns))
    array = mapped_array(file, "; prepare the set again")
    if array.shape != wanted or array.dtype.name != manifest.dtype:
        raise InputError(
            f"{file}: holds {array.shape} {array.dtype}, the manifest says {wanted} {manifest.dtype}; "
            "prepare the set again"
        )
    return array
