"""`field`: pictures of every stage, drawn from arrays that are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from analysis.analyses.shape import Analysis, Request, stage_sheet
from analysis.fields.projection import Pair, check_columns, parse_columns
from analysis.runs.groups import by_cascade, evenly
from analysis.runs.processors import shared_out
from analysis.runs.results import Entry, Report, Result, each_stage
from analysis.runs.study import Study, Subject
from analysis.tables.numbers import fixed
from analysis.tables.sheet import Sheet
from sparseflows.errors import InputError
from sparseflows.experiment.folder.records import DENSE

if TYPE_CHECKING:
    from analysis.plots.fields.streams import Colour

KIND = "field2"  # the second: densities by the engine, cell by cell
FOLDER = "fields"
KINDS = ("png", "pdf", "npz")
_SIDE = 6  # stages beside the dense one in a row of panels


def compute(request: Request) -> list[Entry]:
    """The arrays and values of every stage (`analysis.fields.arrays`), and `files`: what will be drawn of it."""
    study, settings, pairs = request.study, request.settings, _pairs(request)
    columns = None if pairs is None else [list(pair) for pair in pairs]
    depends = {"seed": settings.seed, "frames": settings.frames, "columns": columns}

    def of_stage(subject: Subject, report: Report) -> Result:
        from analysis.cost import threads
        from analysis.fields.arrays import field_arrays

        # The run's own number: on a busy machine two threads for networks this small are ten times as slow as one.
        with threads(study.folder.spec.threads):
            splits = study.splits_of(subject.record.seed)
            return field_arrays(subject.flow(), splits, report, settings.seed, settings.frames, pairs)

    return _with_files(each_stage(request.subjects, KIND, depends, of_stage, request.progress), request.named)


def check(request: Request) -> None:
    """Refuse data of a single column, and pairs of columns that the data have not."""
    pairs = _pairs(request)
    dim = len(request.study.folder.read_data()["shift"])
    if dim < 2:
        raise InputError(f"{request.study.path}: the data have one column; a field is drawn from two columns on")
    if pairs is not None:
        check_columns(pairs, dim, str(request.study.path))


def sheets(study: Study, entries: Sequence[Entry]) -> list[Sheet]:
    """The mass on the grid, the largest divergence, the mean speed of every stage."""

    def cells(values: dict[str, Any]) -> list[str]:
        mass = fixed(values.get("mass_on_grid"), 4)
        return [mass, fixed(values["max_abs_divergence"]), fixed(values["mean_speed"])]

    legend = "mass: of the density, on the grid that is drawn; divergence and speed over the states of samples"
    return [stage_sheet(study, entries, legend, ("mass on grid", "max |div| (nats/t)", "mean |f|"), cells)]


def figures(request: Request, entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """What is drawn, a stage or a row of panels at a time.

    Where the user named stages: figures of every stage, and panels of every seed. Otherwise, because a stage takes some
    seconds to draw, those of `featured`, and the panels of each method's first seed.
    """
    colour, every = request.settings.colour, request.named
    panels = [(f"panels of {name}", name, several) for name, several in _panels(entries, every).items()]
    chosen = [entry for entry in (entries if every else featured(entries)) if entry.result is not None]
    pieces: list[tuple[Any, ...]] = [(_panel_files, name, several, colour) for _, name, several in panels]
    pieces += [(_stage_files, entry, colour) for entry in chosen]
    names = [name for name, *_ in panels] + [entry.subject.name for entry in chosen]
    yield from zip(names, shared_out(_draw, pieces), strict=True)
    left = sum(entry.result is not None for entry in entries) - len(featured(entries))
    if left and not every:
        typer.echo(f"not drawn, but for the panels: {left} more stages; draw them with --stage '*'", err=True)


def _draw(piece: tuple[Any, ...]) -> Mapping[str, bytes]:
    function, *arguments = piece
    drawn: Mapping[str, bytes] = function(*arguments)
    return drawn


def featured(entries: Sequence[Entry]) -> list[Entry]:
    """The best stage by validation NLL; and of the first seed of each method the last stage (dense: the one)."""
    done = [entry for entry in entries if entry.result is not None]
    scored = [entry for entry in done if entry.subject.record.nll_val is not None]
    chosen = {min(scored, key=lambda entry: entry.subject.record.nll_val or 0.0).subject.name} if scored else set()
    for method in dict.fromkeys(entry.subject.record.series for entry in done):
        own = [entry.subject for entry in done if entry.subject.record.series == method]
        first = min(subject.record.seed for subject in own)
        chosen.add(max((s for s in own if s.record.seed == first), key=lambda s: s.record.stage).name)
    return [entry for entry in done if entry.subject.name in chosen]


def _pairs(request: Request) -> list[Pair] | None:
    columns = request.settings.columns
    return None if columns is None else parse_columns(columns)


def _panels(entries: Sequence[Entry], every: bool) -> dict[str, list[Entry]]:
    # Cascade → dense and up to six stages of it, spread evenly, the last one among them; two columns at least.
    done = {entry.subject.name: entry for entry in entries if entry.result is not None}
    panels = {}
    for cascade, stages in by_cascade((entry.subject for entry in done.values()), every).items():
        dense = [one for one in stages if one.record.series == DENSE]
        own = stages[len(dense) :]
        columns = [*dense, *(own[k] for k in evenly(len(own), _SIDE))]
        if len(columns) > 1:
            panels[cascade] = [done[one.name] for one in columns]
    return panels


def _panel_files(cascade: str, entries: Sequence[Entry], colour: Colour) -> dict[str, bytes]:
    from analysis.plots.fields.panels import panels_figure
    from analysis.plots.fields.plane import Panel

    columns = []
    for entry in entries:
        assert entry.result is not None
        record = entry.subject.record
        ratio = "dense" if record.series == DENSE else f"PR {100 * (record.prune_ratio or 0):.0f} %"
        columns.append(Panel(f"{ratio}\n{record.params or 0:,} params", entry.result.arrays))
    last = entries[-1].subject
    title = f"{last.folder.spec.name} · {last.record.series} · seed {last.record.seed}"
    drawn = panels_figure(columns, title, colour)
    return {f"{FOLDER}/panels_{cascade}.{kind}": drawn[kind] for kind in KINDS}


def _stage_files(entry: Entry, colour: Colour) -> dict[str, bytes]:
    from analysis.plots.fields.densities import density_figure, pairs_figure
    from analysis.plots.fields.paths import animation, trajectories_figure
    from analysis.plots.fields.streams import field_figure

    assert entry.result is not None
    subject, arrays = entry.subject, entry.result.arrays
    params = f"{subject.record.params or 0:,} params"
    title = f"{subject.folder.spec.name} · {subject.label} · {params} · seed {subject.record.seed}"
    figures = {"field": field_figure(arrays, title, colour)}
    if "density" in arrays:
        figures["density"] = density_figure(arrays, title, entry.result.values["mass_on_grid"])
    else:
        figures["samples"] = pairs_figure(arrays, title)
    figures["trajectories"] = trajectories_figure(arrays, title)
    stem = _stem(entry)
    drawn = {f"{stem}_{name}.{kind}": several[kind] for name, several in figures.items() for kind in KINDS}
    return drawn | {f"{stem}.gif": animation(arrays, f"{subject.folder.spec.name} · {subject.label}")}


def _with_files(entries: Sequence[Entry], every: bool) -> list[Entry]:
    # `files` of every stage: what `figures` will write of it, the panels it is in included.
    own = {entry.subject.name for entry in (entries if every else featured(entries))}
    panels = _panels(entries, every)
    named = []
    for entry in entries:
        if entry.result is None:
            named.append(entry)
            continue
        figures = ("field", "density" if "density" in entry.result.arrays else "samples", "trajectories")
        stem = _stem(entry)
        names = [f"{stem}_{figure}.{kind}" for figure in figures for kind in KINDS] + [f"{stem}.gif"]
        names = names if entry.subject.name in own else []
        among = [cascade for cascade, several in panels.items() if entry in several]
        names += [f"{FOLDER}/panels_{cascade}.{kind}" for cascade in among for kind in KINDS]
        result = replace(entry.result, values=entry.result.values | {"files": names})
        named.append(replace(entry, result=result))
    return named


def _stem(entry: Entry) -> str:
    return f"{FOLDER}/{entry.subject.record.cascade}-{entry.subject.record.stage}"


ANALYSIS = Analysis("field", compute, sheets, figures, check, folder=FOLDER)
