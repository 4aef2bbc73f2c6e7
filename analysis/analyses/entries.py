"""What the tables of the analyses have in common: a row a stage, notes on what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from analysis.runs.results import Entry
from analysis.runs.study import Study
from analysis.tables.numbers import NOTHING, count, percent
from analysis.tables.sheet import Sheet

HEADING = ("stage", "prune ratio", "params")


def first_values(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """The values of the first stage that has any."""
    return next((entry.result.values for entry in entries if entry.result is not None), None)


def stage_sheet(
    study: Study,
    entries: Sequence[Entry],
    legend: str,
    columns: Sequence[str],
    cells: Callable[[dict[str, Any]], Sequence[str]],
    above: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
) -> Sheet:
    """A row a stage: its name, prune ratio and params, and what `cells` makes of its values.

    A stage without a result has "-" in every cell. `above` are rows of reference ahead of the stages, a name and a cell
    a column; `notes` stand below the table, after the reasons of what failed.
    """
    body = [(name, "", "", *shown) for name, *shown in above]
    for entry in entries:
        record, name = entry.subject.record, entry.subject.name
        shown = [NOTHING] * len(columns) if entry.result is None else cells(entry.result.values)
        body.append((name, percent(record.prune_ratio), count(record.params), *shown))
    spec = study.folder.spec
    failed = [f"failed: {entry.subject.name}: {entry.reason}" for entry in entries if entry.result is None]
    return Sheet(
        title=f"{spec.data.name} ({spec.train.objective}), run {spec.name}",
        legend=legend,
        heading=(*HEADING, *columns),
        body=tuple(body),
        label=f"{spec.name}-stages",
        notes=(*failed, *notes),
        whole_names=True,
    )
