"""How the commands lay out what they found: aligned text for the terminal, CSV. Pure: entries in, strings out."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from analysis.runs.results import Entry
from analysis.runs.study import Study

WIDTH = 100
NOTHING = "-"


def title(study: Study) -> str:
    """The first line above a run's table: data set, objective, name of the run."""
    spec = study.folder.spec
    return f"{spec.data.name} ({spec.train.objective}), run {spec.name}"


def text_table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, the first to the left, all others to the right, `±` below `±`."""
    body = [list(line) for line in lines]
    for column in range(1, len(heading)):
        _line_up(body, column)
    table = [list(heading), *body]
    widths = [max(len(line[column]) for line in table) for column in range(len(heading))]
    out = []
    for line in table:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        out.append("  ".join([line[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(out) + "\n"


def notes(entries: Sequence[Entry]) -> str:
    """A line for every stage that has no result, with the reason; empty where there is none."""
    failed = [f"failed: {entry.subject.name}: {entry.reason}" for entry in entries if entry.result is None]
    return "".join(f"{textwrap.fill(line, WIDTH, subsequent_indent='  ')}\n" for line in failed)


def head(entry: Entry) -> list[str]:
    """The first three cells of a stage: name, prune ratio, params."""
    record = entry.subject.record
    ratio = NOTHING if record.prune_ratio is None else f"{100 * record.prune_ratio:.1f} %"
    return [entry.subject.name, ratio, NOTHING if record.params is None else f"{record.params:,}"]


def number(value: float | None, se: float | None = None, digits: int = 2) -> str:
    """`1.23 ± 0.04`, without the error where there is none; `-` for None."""
    if value is None:
        return NOTHING
    shown = f"{value:,.{digits}f}"
    if se is None:
        return shown
    least = 10.0**-digits
    # "± 0.00" would read as certainty.
    return f"{shown} ± <{least:.{digits}f}" if 0 < se < least / 2 else f"{shown} ± {se:,.{digits}f}"


def percent(share: float | None, se: float | None = None, digits: int = 2) -> str:
    """A fraction as a percentage, without the sign: `86.47 ± 0.24`."""
    return number(None if share is None else 100 * share, None if se is None else 100 * se, digits)


def to_csv(entries: Sequence[Entry]) -> str:
    """The stages' JSON objects as CSV: numbers unrounded, empty where there is none, lists left out."""
    rows = [
        {name: value for name, value in entry.document().items() if not isinstance(value, list | dict)}
        for entry in entries
    ]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _line_up(body: Sequence[list[str]], column: int) -> None:
    # Where some numbers have their "± …", those without end where the others' values end.
    tail = max((len(line[column].partition(" ± ")[2]) for line in body), default=0)
    for line in body:
        value, sign, se = line[column].partition(" ± ")
        line[column] = f"{value}{sign}{se:>{tail}}" if sign else value + " " * (tail + 3 if tail else 0)
