"""The one shape of an analysis, its table of a row a stage, and how it is run: by commands, the report, from Python."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from analysis.analyses.writing import (
    Row,
    document,
    folder_for,
    open_studies,
    require_densities,
    require_some,
    with_earlier,
    write_files,
)
from analysis.runs.progress import Progress
from analysis.runs.results import Entry
from analysis.runs.study import Study, Subject
from analysis.settings import SETTINGS
from analysis.tables.numbers import NOTHING, count, percent
from analysis.tables.rows import to_csv
from analysis.tables.sheet import Sheet
from analysis.tables.text import text
from sparseflows.errors import InputError, lookup

PLACES = {name: f"analysis.analyses.{name}" for name in SETTINGS}  # the module whose ANALYSIS it is


@dataclass(frozen=True)
class Request:
    """What is asked of an analysis: a run, some of its stages (all, unless the user `named` them), its own settings."""

    study: Study
    subjects: Sequence[Subject]
    settings: Any
    named: bool
    progress: Progress


@dataclass(frozen=True)
class Analysis:
    """One analysis of the stages of a run.

    Attributes:
        name: of its command, and of the files it writes.
        compute: the entries of a request, one a stage, from the cache where they are known.
        sheets: the tables that are printed.
        figures: (what it is, name → content) of each figure; names are below the analysis folder.
        check: refuses at once what cannot be done; raises InputError.
        columns: of the CSV; None: every number and text of the entries.
        folder: what figures are put in, below the analysis folder; made before any work is done.
    """

    name: str
    compute: Callable[[Request], list[Entry]]
    sheets: Callable[[Study, Sequence[Entry]], list[Sheet]]
    figures: Callable[[Request, Sequence[Entry]], Iterable[tuple[str, Mapping[str, bytes]]]] = lambda *_: ()
    check: Callable[[Request], None] = lambda request: None
    columns: tuple[str, ...] | None = None
    folder: str = ""


def find(name: str) -> Analysis:
    """The analysis of that name; its module is loaded now.

    Raises:
        InputError: there is none (the names are listed).
    """
    found: Analysis = import_module(lookup("analysis", name, PLACES)).ANALYSIS
    return found


def analyse(run: Path | str, name: str, stages: Sequence[str] | str = (), **settings: Any) -> list[Entry]:
    """The results of one analysis, from Python: an entry a stage, with `document()`, its values and arrays.

    What is known from before is taken from the run folder, as by the command line; no file is written beside that.

    `name` is hessian, modes, field or cost; `stages` are patterns as `--stage` takes them, all stages by default;
    settings are called as the command's options, with the same defaults (`analysis.settings`).

    Raises:
        InputError: no run folder, no such analysis, stage or setting, or one that this run cannot have.
    """
    analysis, kind = find(name), SETTINGS[name]
    unknown = sorted(set(settings) - set(kind.__dataclass_fields__))
    if unknown:
        known = ", ".join(kind.__dataclass_fields__)
        raise InputError(f"{name} has no setting '{unknown[0]}' (known: {known})")
    study = Study.open(Path(run))
    require_densities({study.path: study.folder.spec.train.objective}, name)
    patterns = [stages] if isinstance(stages, str) else list(stages)
    request = Request(study, study.subjects(patterns), kind(**settings), bool(patterns), Progress(name))
    analysis.check(request)
    return analysis.compute(request)


def run_analysis(
    name: str, runs: Sequence[Path], stages: Sequence[str], settings: Any, as_json: bool, out: Path | None
) -> None:
    """Analyse `runs`, print the tables or one JSON document, write the files; see the command's `--help`."""
    studies = open_studies(runs)
    require_densities({study.path: study.folder.spec.train.objective for study in studies}, name)
    requests = [Request(study, study.subjects(stages), settings, bool(stages), Progress(name)) for study in studies]
    analysis = find(name)
    for request in requests:
        analysis.check(request)
    folders = {study: folder_for(study, out, studies, analysis.folder) for study in studies}
    found = {request.study: analysis.compute(request) for request in requests}
    shown = [text(*analysis.sheets(study, entries)) for study, entries in found.items()]
    rows: dict[Study, list[Row]] = {study: [entry.document() for entry in entries] for study, entries in found.items()}
    typer.echo(document(rows) if as_json else "\n".join(shown), nl=as_json)
    for request, (study, entries) in zip(requests, found.items(), strict=True):
        folder, written = folders[study], rows[study]
        if stages:  # the others have been analysed before, or will be
            written = with_earlier(study, folder / f"{name}.json", entries)
        tables = {f"{name}.json": document({study: written}) + "\n", f"{name}.csv": csv_of(analysis, written)}
        write_files(folder, tables)
        for what, files in analysis.figures(request, entries):
            write_files(folder, files, what)
    require_some(found)


def csv_of(analysis: Analysis, rows: Sequence[Row]) -> str:
    """The stages' JSON objects as CSV: numbers unrounded, empty where there is none."""
    if analysis.columns is not None:
        return to_csv(rows, analysis.columns, whole=False)
    rows = [{name: v for name, v in row.items() if not isinstance(v, list | dict)} for row in rows]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    return to_csv(rows, columns, whole=False)


def chosen_name(request: Request, name: str) -> str:
    """What a figure is called: of all stages `name`, which the report shows; of some that were named, after them."""
    if not request.named:
        return name
    some = request.subjects[0].name.replace("/", "-") if len(request.subjects) == 1 else "chosen"
    return f"{name}-{some}"


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
        heading=("stage", "prune ratio", "params", *columns),
        body=tuple(body),
        label=f"{spec.name}-stages",
        notes=(*failed, *notes),
        whole_names=True,
    )
