"""MINIBOONE: the signal events of a neutrino detector, outliers and discrete columns left out."""

from __future__ import annotations

from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.rawtext import copy_npy, free_path, numbers, text_blocks
from sparseflows.data.files.reading import counted
from sparseflows.data.files.streaming import Spool, blocks, moments
from sparseflows.data.recipes.base import Kit, Made, Recipe, Table, limit, standardised, tenths, unspiked
from sparseflows.errors import InputError

RAW_COLUMNS = 50
OUTLIER = -100  # below this in the first column, the event is none
CLEANED_COLUMNS = 43


def read(member: Member, kit: Kit) -> dict[str, Table]:
    """Rows in the file's order: the archive's (N, 43), or the signal rows of the text (N, 50)."""
    name, path = member.name, free_path(kit.scratch, "miniboone")
    if not member.wanted.raw:
        rows = copy_npy(member.stream, name, CLEANED_COLUMNS, path, member.wanted.limit)
        return {"rows": Table(rows, [f"column_{k + 1}" for k in range(CLEANED_COLUMNS)], False, name)}
    spool, signal, total, done = Spool(path, RAW_COLUMNS), 0, 0, 0
    for number, lines in text_blocks(member.stream, name):
        if number == 1:
            signal, total = _counts(lines[0], name)
            number, lines = 2, lines[1:]
        found = numbers(lines, range(number, number + len(lines)), {RAW_COLUMNS}, None, name)
        events = found[: max(0, signal - done)]
        spool.append(events[events[:, 0] >= OUTLIER])
        done += len(found)
    if done != total:
        raise InputError(f"{name}: holds {counted(done, 'event')}, its first line says {total:,}; is it cut off?")
    return {"rows": Table(spool.table(name), [f"pid_{k}" for k in range(RAW_COLUMNS)], True, name)}


def make(tables: dict[str, Table], kit: Kit) -> Made:
    """Drop what has a spike at its smallest value, split, standardise by train + validation."""
    table = tables["rows"]
    kept = unspiked(table.rows, table.name) if table.raw else None
    spans = tenths(table.rows, table.name)
    test = spans[2][1]
    return standardised(table, spans, moments(lambda: blocks(table.rows, 0, test)), kept)


def _counts(line: str, name: str) -> tuple[int, int]:
    """Signal events, and all events."""
    cells = line.split()
    if len(cells) != 2 or not all(cell.isdecimal() for cell in cells):
        raise InputError(f"{name}: line 1 should hold two counts, of signal and of background; give the published text")
    signal, background = map(int, cells)
    return signal, signal + background


RECIPE = Recipe(
    (
        Wanted("rows", "miniboone/data.npy", limit(36_488 * 43 * 8)),
        Wanted("rows", "MiniBooNE_PID.txt", limit(91_000_000), raw=True),
    ),
    read,
    make,
)
