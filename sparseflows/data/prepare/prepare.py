"""`sparseflows data prepare`: published files become a prepared set, whole or not at all."""

import importlib.util
import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sparseflows.data.benchmarks.facts import BENCHMARKS, PARTS, Benchmark
from sparseflows.data.benchmarks.prepared import MANIFEST, Manifest
from sparseflows.data.files.archives import Located, locate, members
from sparseflows.data.files.reading import fingerprint
from sparseflows.data.files.sources import Meter
from sparseflows.data.files.streaming import blocks, moments, write_npy
from sparseflows.data.prepare.atomic import NEW, atomic_folder, check_target
from sparseflows.data.recipes.base import Kit, Made, Recipe, Table
from sparseflows.errors import InputError, RunError, lookup
from sparseflows.files import write_whole


@dataclass(frozen=True)
class Request:
    """A set to prepare, in any case of letters, and how: the options of `sparseflows data prepare`."""

    name: str
    source: Path
    folder: Path
    allow_pickle: bool = False
    sha256: str | None = None
    dtype: str = "float64"
    seed: int | None = None
    force: bool = False


class _Silent:
    def begin(self, label: str, total: int) -> None: ...
    def advance(self, count: int) -> None: ...


def prepare(request: Request, meter: Meter | None = None) -> Manifest:
    """Make a prepared set.

    Raises:
        InputError: something is wrong with the request or with the files; nothing is left behind.
        RunError: the disk is full; nothing is left behind either.
    """
    meter = meter or _Silent()
    facts = lookup("benchmark set", request.name.lower(), BENCHMARKS)
    recipe: Recipe = import_module(f"sparseflows.data.recipes.{facts.name}").RECIPE
    _check_request(request)
    _need(recipe.module)
    check_target(request.folder, request.force)
    located = locate(request.source, recipe.wanted)
    if any(one is not None and one.pickled for _, one in located.files):
        _allow_pickle(request, str(located.files[0][0]))
    files = _hashed(request, located, meter)
    with atomic_folder(request.folder, request.force) as scratch:
        try:
            kit = Kit(scratch, request.seed or 0, meter)
            tables = _read(request, recipe, located, kit)
            if request.seed is not None and not (facts.name == "gas" and tables["rows"].raw):
                raise InputError("--seed is for the sample of GAS from raw text; leave it out")
            made = recipe.make(tables, kit)
            origin = Path(os.path.realpath(request.source)).name  # not where: the same files give the same manifest
            source = {"kind": located.kind, "path": origin, "files": files}
            manifest = _write(request, facts, made, source, scratch / NEW, meter)
        except OSError as error:
            raise RunError(f"{request.folder}: could not be written ({error.strerror or error})") from error
    return manifest


def _check_request(request: Request) -> None:
    if request.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", request.sha256):
        raise InputError(f"--sha256 {request.sha256[:80]}: give 64 hexadecimal digits")
    if request.dtype not in ("float64", "float32"):
        raise InputError(f"--dtype {request.dtype}: give float64 or float32")
    if request.seed is not None and not 0 <= request.seed < 2**32:
        raise InputError(f"--seed {request.seed}: give a number from 0 to {2**32 - 1}")


def _need(module: str | None) -> None:
    if module and importlib.util.find_spec(module) is None:
        raise InputError(f"this needs {module}: pip install 'sparseflows[archives]'")


def _allow_pickle(request: Request, name: str) -> None:
    if not request.allow_pickle:
        raise InputError(
            f"{name}: a pickle can run code when it is read; give the raw ethylene_CO.txt instead "
            f"({BENCHMARKS['gas'].url}), or --allow-pickle where you trust the file"
        )
    _need("pandas")


def _hashed(request: Request, located: Located, meter: Meter) -> list[dict[str, Any]]:
    """`name`, `bytes` and `sha256` of every source file."""
    if request.sha256 is not None and len(located.files) > 1:
        raise InputError("--sha256 is for a source that is one file; this one has several, so leave it out")
    meter.begin("checking", sum(path.stat().st_size for path, _ in located.files))
    found = []
    for path, _ in located.files:
        digest = fingerprint(path, meter.advance)
        found.append({"name": path.name, "bytes": path.stat().st_size, "sha256": digest})
    if request.sha256 is not None and request.sha256.lower() != found[0]["sha256"]:
        raise InputError(
            f"{located.files[0][0]}: its SHA-256 is {found[0]['sha256']}, not the one given; fetch it again"
        )
    return found


def _read(request: Request, recipe: Recipe, located: Located, kit: Kit) -> dict[str, Table]:
    kit.meter.begin("reading", sum(path.stat().st_size for path, _ in located.files))
    tables: dict[str, Table] = {}
    for member in members(located, recipe.wanted, kit.meter.advance):
        if member.wanted.pickled:
            _allow_pickle(request, member.name)
        tables |= recipe.read(member, kit)
    return tables


def _write(
    request: Request, facts: Benchmark, made: Made, source: dict[str, Any], folder: Path, meter: Meter
) -> Manifest:
    columns, rows = len(made.columns), [part.rows for part in made.parts]
    meter.begin("writing", sum(rows) * columns * np.dtype(request.dtype).itemsize)
    files, statistics = {}, {}
    for name, part in zip(PARTS, made.parts, strict=True):
        path = folder / f"{name}.npy"
        write_npy(path, part.rows, columns, request.dtype, _told(part.blocks(), request.dtype, meter))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        found = moments(lambda array=array: blocks(array))  # type: ignore[misc]
        values = {"mean": found.mean, "std": found.std, "min": found.minimum, "max": found.maximum}
        if not all(np.isfinite(value).all() for value in values.values()):
            raise InputError(f"{request.source}: values too large for {request.dtype}; give the published files")
        statistics[name] = {key: value.tolist() for key, value in values.items()}
        files[path.name] = {"shape": [part.rows, columns], "sha256": fingerprint(path)}
    differs = tuple(rows) != facts.rows
    manifest = Manifest(
        name=facts.name,
        columns=made.columns,
        rows=dict(zip(PARTS, rows, strict=True)),
        rows_published=dict(zip(PARTS, facts.rows, strict=True)),
        sample=made.sample or differs,
        dtype=request.dtype,
        mean=None if made.mean is None else made.mean.tolist(),
        std=None if made.std is None else made.std.tolist(),
        statistics=statistics,
        source=source,
        notes=[*made.notes, *_differences(facts, rows, columns)],
        files=files,
    )
    write_whole(folder / MANIFEST, manifest.to_json())
    return manifest


def _told(made: Any, dtype: str, meter: Meter) -> Any:
    for block in made:
        yield block
        meter.advance(block.size * np.dtype(dtype).itemsize)


def _differences(facts: Benchmark, rows: list[int], columns: int) -> list[str]:
    notes = []
    if tuple(rows) != facts.rows:
        have, published = (" / ".join(f"{n:,}" for n in counts) for counts in (rows, facts.rows))
        notes.append(
            f"{have} rows, the published set has {published}: a sample or another file, so an NLL on it cannot be "
            "compared with published ones"
        )
    if columns != facts.columns:
        notes.append(
            f"{columns} columns are left, the published set has {facts.columns}: which ones go depends on the rows"
        )
    return notes
