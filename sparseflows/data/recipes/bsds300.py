"""BSDS300: patches of natural images, ready-made in one HDF5 file."""

import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from sparseflows.data.benchmarks.facts import BENCHMARKS, PARTS
from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.reading import one_line
from sparseflows.data.files.sources import MIB
from sparseflows.data.files.streaming import finite_blocks
from sparseflows.data.recipes.base import Kit, Made, Part, Recipe, Table, limit
from sparseflows.errors import InputError

COLUMNS = 63
MOST = 4  # times the published rows


def read(member: Member, kit: Kit) -> dict[str, Table]:
    """The three parts (N, 63); they stay in their file."""
    import h5py

    path = member.local
    if path is None:  # HDF5 is read out of order
        path = kit.free_path()
        with path.open("wb") as copy:
            shutil.copyfileobj(member.stream, copy, MIB)
    try:
        file = h5py.File(path, "r")
        return {part: _part(file, part, member.name, h5py) for part in PARTS}
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{member.name}: not HDF5, cut off or damaged ({one_line(error)}); fetch it again") from None


def make(tables: dict[str, Table], kit: Kit) -> Made:
    """The three parts become the set unchanged: they were standardised when they were published."""
    parts = [Part(len(tables[part].rows), partial(_checked, tables[part])) for part in PARTS]
    return Made([f"pixel_{k + 1}" for k in range(COLUMNS)], (parts[0], parts[1], parts[2]))


def _part(file: Any, part: str, name: str, h5py: Any) -> Table:
    # A link or an external dataset would read a file that nobody named.
    if not isinstance(file.get(part, getlink=True), h5py.HardLink) or not isinstance(file[part], h5py.Dataset):
        raise InputError(f"{name}: has no data set '{part}' of its own; give the published file")
    data, most = file[part], MOST * BENCHMARKS["bsds300"].rows[PARTS.index(part)]
    if data.external or data.is_virtual:
        raise InputError(f"{name}: '{part}' points to another file; give the published file")
    if data.dtype.kind not in "fiu" or data.ndim != 2 or data.shape[1] != COLUMNS or not 1 <= data.shape[0] <= most:
        raise InputError(
            f"{name}: '{part}' is {data.shape} of {data.dtype}; real numbers (N, {COLUMNS}), at most {most:,} rows"
        )
    return Table(data, [], False, f"{name}, {part}")


def _checked(table: Table) -> Iterator[np.ndarray]:
    try:
        yield from finite_blocks(table.rows, table.name)
    except OSError as error:
        if error.errno:  # of the disk that is written to
            raise
        raise InputError(f"{table.name}: cut off or damaged ({one_line(error)}); fetch it again") from None


RECIPE = Recipe((Wanted("all", "BSDS300/BSDS300.hdf5", limit(1_300_000 * COLUMNS * 8)),), read, make, module="h5py")
