"""What the tables of the analyses have in common: a title, the first cells of a stage, notes on what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from analysis.runs.results import Entry
from analysis.runs.study import Study
from analysis.tables.numbers import NOTHING, count, percent
from analysis.tables.sheet import Sheet

HEADING = ("stage", "prune ratio", "params")


def title(study: Study) -> str:
    """Data set, objective, name of the run."""
    spec = study.folder.spec
    return f"{spec.data.name} ({spec.train.objective}), run {spec.name}"


def head(entry: Entry) -> tuple[str, str, str]:
    """The first three cells of a stage: name, prune ratio, params."""
    record = entry.subject.record
    return entry.subject.name, percent(record.prune_ratio), count(record.params)


def failures(entries: Sequence[Entry]) -> tuple[str, ...]:
    """A note for every stage that has no result, with the reason."""
    return tuple(f"failed: {entry.subject.name}: {entry.reason}" for entry in entries if entry.result is None)


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

    Args:
        study: the run.
        entries: its stages; one without a result has "-" in every cell.
        legend: what the numbers are.
        columns: their names.
        cells: of the values of one stage.
        above: rows of reference ahead of the stages: a name, and a cell a column.
        notes: below the table, after the reasons of what failed.
    """
    body = [(name, "", "", *shown) for name, *shown in above]
    for entry in entries:
        shown = [NOTHING] * len(columns) if entry.result is None else cells(entry.result.values)
        body.append((*head(entry), *shown))
    return Sheet(
        title=title(study),
        legend=legend,
        heading=(*HEADING, *columns),
        body=tuple(body),
        label=f"{study.folder.spec.name}-stages",
        notes=(*failures(entries), *notes),
        whole_names=True,
    )
