"""POWER: a household's electricity, by the minute, with noise as wide as the meter's steps."""

from collections.abc import Iterator, Sequence

import numpy as np

from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.rawtext import after_header, copy_npy, numbers
from sparseflows.data.files.reading import counted
from sparseflows.data.files.streaming import block_rows, blocks, finite_blocks, gathered, moments
from sparseflows.data.recipes.base import Kit, Made, Recipe, Table, limit, standardised, tenths
from sparseflows.errors import InputError

HEADER = (
    "Date;Time;Global_active_power;Global_reactive_power;Voltage;Global_intensity;"
    "Sub_metering_1;Sub_metering_2;Sub_metering_3"
)
ARCHIVED_COLUMNS = 8
CELLS = (1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9)  # the column of each number in a line, date and time taken apart
KEPT = [0, 2, 4, 5, 6, 7]  # of the archived ones: reactive power and intensity go
COLUMNS = ["active_power", "voltage", "sub_metering_1", "sub_metering_2", "sub_metering_3", "time"]
SHUFFLE_SEED = 42
STEPS = {"voltage": 0.01, "active_power": 0.001, "sub_metering": 1.0}  # widths of the noise, in the order drawn
NOTE = (
    "column 6 (time, minutes of the day) stays discrete, as published: the density there is unbounded, so an NLL "
    "can fall without limit"
)


def read(member: Member, kit: Kit) -> dict[str, Table]:
    """Rows (N, 6) in the file's order."""
    name = member.name
    if member.wanted.raw:
        made = (_parse(where, lines, name) for where, lines in after_header(member.stream, name, _check_header))
    else:
        rows = copy_npy(member.stream, name, ARCHIVED_COLUMNS, kit.free_path(), member.wanted.limit)
        made = (block[:, KEPT] for block in finite_blocks(rows, name))
    return {"rows": Table(kit.on_disk(made, name), COLUMNS, member.wanted.raw, name)}


def make(tables: dict[str, Table], kit: Kit) -> Made:
    """Shuffle, add noise, split, standardise by train + validation."""
    table = tables["rows"]
    tenths(table.rows, table.name)  # refused before the noise is drawn
    rows = kit.on_disk(_noisy(table.rows), table.name)
    spans = tenths(rows, table.name)
    return standardised(table, spans, moments(lambda: blocks(rows, 0, spans[2][1])), notes=[NOTE])


def _noisy(rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows, shuffled, each with its noise.

    The recipe draws all of the voltage's noise, then all of the active power's, then the sub-meterings':
    three generators, wound forward to where each begins, give the same numbers block by block.
    """
    count = len(rows)
    shuffler = np.random.RandomState(SHUFFLE_SEED)  # the published order
    order = shuffler.permutation(count)
    voltage, active, meters = (_wound(shuffler, skip) for skip in (0, count, 2 * count))
    for block in gathered(rows, order):
        n = len(block)
        block[:, 1] += STEPS["voltage"] * voltage.rand(n)
        block[:, 0] += STEPS["active_power"] * active.rand(n)
        block[:, 2:5] += STEPS["sub_metering"] * meters.rand(n, 3)
        yield block


def _wound(generator: np.random.RandomState, skip: int) -> np.random.RandomState:
    """A copy of the generator, after `skip` more draws."""
    copy = np.random.RandomState()
    copy.set_state(generator.get_state())
    step = block_rows(1)
    for done in range(0, skip, step):
        copy.rand(min(step, skip - done))
    return copy


def _check_header(line: str, name: str) -> None:
    if line.strip().lower() != HEADER.lower():
        raise InputError(
            f"{name}: line 1 should be the header '{HEADER[:26]}…' with 9 columns; give the published text"
        )


def _parse(where: Sequence[int], lines: list[str], name: str) -> np.ndarray:
    """Lines of text to rows (n, 6), those with a missing value left out."""
    for k, line in zip(where, lines, strict=True):
        if line.count(";") != 8 and line.strip("\r"):
            raise InputError(f"{name}: line {k} has {counted(line.count(';') + 1, 'column')}, 9 are wanted")
    # The date and the time become three numbers each, so that every cell of every line is checked.
    apart = {
        k: line.replace("/", ";").replace(":", ";") for k, line in zip(where, lines, strict=True) if not _missing(line)
    }
    found = numbers([*apart.values()], [*apart], {len(CELLS)}, ";", name, CELLS)
    times = found[:, 3:6]
    wrong = ((times < 0) | (times > [23, 59, 59])).any(axis=1)
    if wrong.any():
        raise InputError(f"{name}: {int(wrong.sum())} times that are no time of day; give the published text")
    hours, minutes, seconds = times.T
    return np.column_stack((found[:, 6], found[:, 8], found[:, 10:13], hours * 60 + minutes + seconds / 60))


def _missing(line: str) -> bool:
    return "?" in line or ";;" in line or line.rstrip("\r").endswith(";")


RECIPE = Recipe(
    (
        Wanted("rows", "power/data.npy", limit(2_049_280 * 64)),
        Wanted("rows", "household_power_consumption.txt", limit(140_000_000), raw=True),
    ),
    read,
    make,
)
