"""Which columns of a table are taken, by name or place, and what is said of those that hold no numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparseflows.data.files.reading import counted
from sparseflows.data.text.cells import HOLDS, INSTEAD, NUMBER
from sparseflows.errors import InputError, suggest

NAMED = 6  # columns that a message names before it counts the rest
LONGEST = 40  # letters of a name that a message shows

Place = str | int
Labels = Sequence[Place] | None
"""The columns of a table by name; those of a file without names by their places in it, from 1; None: 1, 2, 3, …"""


@dataclass(frozen=True)
class Reading:
    """How a table is to be read, as the section `data` of a param file says it.

    Attributes:
        header: whether the first line of text names the columns; `auto` decides.
        index: whether the first column is left out as an index; `auto` decides.
        columns: the ones to take, by name, or by place from 1; none: all.
        drop: the ones to leave out.
        missing: `refuse` a row with a missing value, or `drop` it.
        copies: what becomes of rows that are there more than once: kept `together` in one part of the split, or all
            but the first are left out (`drop`).
    """

    header: str | bool = "auto"
    index: str | bool = "auto"
    columns: tuple[Place, ...] = ()
    drop: tuple[Place, ...] = ()
    missing: str = "refuse"
    copies: str = "together"


@dataclass(frozen=True)
class Sheet:
    """The columns of a file: their names (None: it has none), and what each holds, with an example."""

    names: tuple[str, ...] | None
    kinds: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Expected:
    """The columns that a run was trained on: how many, and their names where they are known."""

    columns: int
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Choice:
    """Places of the columns that are taken, in their order, and what is to be said of that."""

    places: tuple[int, ...]
    notes: tuple[str, ...] = field(default=())


def label(place: int, names: Labels) -> Place:
    """The name of a column, or where it has none its place in the file, from 1."""
    return place + 1 if names is None else names[place]


def called(place: int, names: Labels) -> str:
    """What a message calls a column: `column 'age'`, or `column 3` (from 1, in the file) where it has no name."""
    found = label(place, names)
    return f"column {found}" if isinstance(found, int) else f"column '{short(found)}'"


def short(name: str) -> str:
    """A name on one line, cut where it is too long for a message."""
    plain = " ".join(name.split())
    return plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…"


def listed(words: Sequence[str]) -> str:
    """The first few words, each on one line, and how many more there are."""
    words = [" ".join(word.split()) for word in words]
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(word if len(word) <= 4 * LONGEST else f"{word[: 4 * LONGEST]}…" for word in words[:NAMED]) + more


def place_of_label(wanted: Place, labels: Labels, columns: int, source: str, setting: str) -> int:
    """The place, from 0, among the columns of a table of the one that a setting means by its name, or by its place in
    the file where it has none.

    Raises:
        InputError: no such column.
    """
    known = [label(place, labels) for place in range(columns)]
    named = not known or isinstance(known[0], str)
    found = str(wanted) if named else int(wanted) if str(wanted).isdecimal() else None
    if found in known:
        return known.index(found)
    raise InputError(
        f"{source}: {setting} says '{wanted}', but no column that is trained on {'is called' if named else 'has'} that"
        f"{suggest(wanted, list(map(str, known))) if named else ' place'} (there are: {listed(list(map(str, known)))})"
    )


def place_of(wanted: Place, names: Sequence[str] | None, columns: int, source: str, setting: str) -> int:
    """The place, from 0, of the column that a setting means: a text is a name, a whole number a place from 1.

    Raises:
        InputError: no such column, or a number where the names themselves are numbers.
    """
    if names is not None and isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    digits = str(wanted).strip().isdecimal()
    if names is not None and digits and any(name.isdecimal() for name in names):
        raise InputError(
            f"{source}: {setting} says {wanted}, and the columns' names are numbers too ({listed(names)}); give a name "
            "in quotation marks"
        )
    if digits and 1 <= int(wanted) <= columns:
        return int(wanted) - 1
    if digits or names is None:
        there = "no names, and " if names is None else ""
        raise InputError(
            f"{source}: {setting} says '{wanted}', but it has {there}{counted(columns, 'column')}; give a place from 1 "
            f"to {columns}"
        )
    raise InputError(
        f"{source}: {setting} says '{wanted}', but no column is called that{suggest(wanted, list(names))} "
        f"(there are: {listed(names)})"
    )


def choose(sheet: Sheet, reading: Reading, source: str) -> Choice:
    """The columns to train on.

    Raises:
        InputError: a setting names a column that is not there, none is left, or one that is left holds no numbers.
    """
    count = len(sheet.kinds)
    taken = [place_of(one, sheet.names, count, source, "data.columns") for one in reading.columns] or list(range(count))
    twice = sorted({place for place in taken if taken.count(place) > 1})
    if twice:
        raise InputError(f"{source}: data.columns names {called(twice[0], sheet.names)} twice; name each column once")
    dropped = {place_of(one, sheet.names, count, source, "data.drop") for one in reading.drop}
    places = tuple(place for place in taken if place not in dropped)
    if count and not places:
        raise InputError(f"{source}: data.columns and data.drop leave no column; take at least one")
    refuse_no_numbers(sheet, places, source)
    return Choice(places)


def choose_expected(sheet: Sheet, reading: Reading, expected: Expected, source: str) -> Choice:
    """The columns that a run was trained on, in its order, in another file.

    Columns with names are found by them, whatever their order. Those that the run left out may be there or not. Where
    either side has no names they are taken by place.

    Raises:
        InputError: a column is missing, one is there that the run has never seen, or one holds no numbers.
    """
    count, wanted = len(sheet.kinds), expected.names
    if sheet.names is None or wanted is None:
        places = _by_place(sheet, reading, expected, source)
        refuse_no_numbers(sheet, places, source)
        return Choice(places)
    missing = [name for name in wanted if name not in sheet.names]
    known = {str(one) for one in reading.drop} | set(wanted)
    extra = [] if reading.columns else [name for name in sheet.names if name not in known]
    if reading.drop and extra:  # those that were dropped by place
        by_place = {int(one) - 1 for one in reading.drop if str(one).isdecimal() and int(one) <= count}
        extra = [name for name in extra if sheet.names.index(name) not in by_place]
    if missing or extra:
        lacks = f"lacks {listed(list(map(repr, missing)))}" if missing else ""
        has = f"has {listed(list(map(repr, extra)))}, which the run has never seen" if extra else ""
        said = " and ".join(filter(None, (lacks, has)))
        raise InputError(f"{source}: {said}; the flow was trained on the columns {listed(wanted)}")
    places = tuple(sheet.names.index(name) for name in wanted)
    refuse_no_numbers(sheet, places, source)
    ordered = bool(reading.columns) or all(a < b for a, b in itertools.pairwise(places))
    said = f"{source}: the columns are in another order than the run's; they are taken by name: {listed(wanted)}"
    return Choice(places, () if ordered else (said,))


def refuse_no_numbers(sheet: Sheet, places: Sequence[int], source: str) -> None:
    """Raise InputError where a column that is taken holds no numbers, and name all of these."""
    bad = [place for place in places if sheet.kinds[place][0] != NUMBER]
    if not bad:
        return
    said = [
        f"{called(place, sheet.names)} holds {HOLDS[sheet.kinds[place][0]]} ({sheet.kinds[place][1].strip()[:30]!r})"
        for place in bad
    ]
    names = [str(place + 1) if sheet.names is None else sheet.names[place] for place in bad]
    out = f"leave {'it' if len(bad) == 1 else 'them'} out with data.drop: [{', '.join(map(quoted, names))}]"
    raise InputError(f"{source}: {listed(said)}; {out} ({INSTEAD[sheet.kinds[bad[0]][0]]})")


def quoted(name: str) -> str:
    """A name as it stands in a list of a param file."""
    plain = (
        name and name.isprintable() and not any(mark in name for mark in ",:[]{}#&*!|>'\"%@`") and name == name.strip()
    )
    return (
        name
        if plain and name.lower() not in ("yes", "no", "true", "false", "null", "on", "off")
        else json.dumps(name, ensure_ascii=False)
    )


def _by_place(sheet: Sheet, reading: Reading, expected: Expected, source: str) -> tuple[int, ...]:
    count = len(sheet.kinds)
    if count == expected.columns:
        return tuple(range(count))
    try:
        chosen = choose(sheet, reading, source).places if reading.columns or reading.drop else ()
    except InputError:
        chosen = ()
    if len(chosen) == expected.columns:
        return chosen
    raise other_columns(count, expected, source)


def other_columns(count: int, expected: Expected, source: str) -> InputError:
    """The line for a file of `count` columns where a run was trained on others."""
    names = "" if expected.names is None else f" ({listed(expected.names)})"
    return InputError(
        f"{source}: has {counted(count, 'column')}, the flow was trained on {expected.columns}{names}; "
        "give the same columns in the same order"
    )
