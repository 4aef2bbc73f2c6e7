"""`analysis field`: pictures of every stage, drawn from arrays that are computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from analysis.cli import layout
from analysis.cli.common import (
    REMEDY,
    document,
    folder_for,
    objectives_of,
    open_studies,
    require_densities,
    require_some,
    write_files,
)
from analysis.fields.projection import Pair, check_columns, parse_columns
from analysis.runs.progress import Progress
from analysis.runs.results import Entry, Report, Result, analyse
from analysis.runs.study import Study, Subject
from sparseflows.errors import InputError
from sparseflows.experiment.folder.records import DENSE
from sparseflows.files import output_folder, write_whole

if TYPE_CHECKING:
    from analysis.plots.fields.streams import Colour

FOLDER = "fields"
KINDS = ("png", "pdf", "npz")
FRAMES = 40
_SIDE = 6  # stages beside the dense one in a row of panels


def command(
    runs: Sequence[Path],
    stages: Sequence[str],
    seed: int,
    colour: Colour,
    columns: str | None,
    frames: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Print the table, write the figures; see `analysis field --help`."""
    pairs = None if columns is None else parse_columns(columns)
    studies = open_studies(runs)
    require_densities(objectives_of(studies), "field")
    subjects = {study: study.subjects(stages) for study in studies}
    for study in studies:
        _check(study, pairs)
    folders = {study: folder_for(study, out, studies) for study in studies}
    for folder in folders.values():
        output_folder(folder / FOLDER, REMEDY)

    found = {}
    for study in studies:
        entries = results(study, subjects[study], seed, pairs, frames, Progress("field"))
        found[study] = _with_files(entries, every=bool(stages))
    require_some(found)
    typer.echo(document(found) if as_json else "\n".join(text(*one) for one in found.items()), nl=as_json)
    for study, entries in found.items():
        head = {"field.json": document({study: entries}) + "\n", "field.csv": layout.to_csv(entries)}
        write_files(folders[study], head)
        _draw(folders[study] / FOLDER, entries, colour, every=bool(stages))


def results(
    study: Study,
    subjects: Sequence[Subject],
    seed: int = 0,
    pairs: Sequence[Pair] | None = None,
    frames: int = FRAMES,
    progress: Progress | None = None,
) -> list[Entry]:
    """The arrays and values of every stage (`analysis.fields.portrait`), computed where they are not known yet.

    Args:
        study: the run.
        subjects: its stages.
        seed: of the noise and of the rows that are shown.
        pairs: columns to show, counted from 0; None chooses them. Of data with two columns: None.
        frames: of the animation.
        progress: what the user sees.

    Raises:
        InputError: data of a single column, or pairs that the data have not.
    """
    _check(study, pairs)
    settings = {"seed": seed, "frames": frames, "columns": None if pairs is None else [list(pair) for pair in pairs]}

    def compute(subject: Subject, report: Report) -> Result:
        from analysis.fields.portrait import Settings, portrait

        wanted = Settings(seed, frames, None if pairs is None else tuple(pairs))
        with _threads(study.folder.spec.threads):
            return portrait(subject.flow(), study.splits_of(subject.record.seed), wanted, report)

    return analyse(subjects, "field1", settings, compute, progress or Progress("field"))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    # The run's own number: on a busy machine two threads for networks this small are ten times as slow as one.
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def files(entries: Sequence[Entry], colour: Colour = "divergence", every: bool = False) -> dict[str, str | bytes]:
    """All figures of one run: name below the analysis folder → content; see `drawings`."""
    written: dict[str, str | bytes] = {"field.csv": layout.to_csv(entries)}
    for _, several in drawings(entries, colour, every):
        written |= {f"{FOLDER}/{name}": content for name, content in several.items()}
    return written


def text(study: Study, entries: Sequence[Entry]) -> str:
    """The table for the terminal, a stage a row."""
    heading = ["stage", "PR", "params", "mass on grid", "max |div| (nats/t)", "mean |f|"]
    lines = []
    for entry in entries:
        if entry.result is None:
            continue
        values = entry.result.values
        numbers = [
            layout.number(values.get("mass_on_grid"), digits=4),
            layout.number(values["max_abs_divergence"]),
            layout.number(values["mean_speed"]),
        ]
        lines.append([*layout.head(entry), *numbers])
    reasons = layout.notes(entries)
    body = layout.text_table(heading, lines) if lines else ""
    return f"{layout.title(study)}\n{body}" + (f"\n{reasons}" if reasons else "")


def drawings(entries: Sequence[Entry], colour: Colour, every: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """What is drawn, a stage or a row of panels at a time: what it is, and its files.

    Args:
        entries: of one run.
        colour: what the colour below the field shows.
        every: figures of every stage, and panels of every seed. Otherwise, because a stage takes some
            seconds to draw, those of `featured`, and the panels of each method's first seed.
    """
    for method, several in _panels(entries, every).items():
        yield f"panels of {method}", _panel_files(method, several, colour)
    for entry in entries if every else featured(entries):
        if entry.result is not None:
            yield entry.subject.name, _stage_files(entry, colour)


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


def _check(study: Study, pairs: Sequence[Pair] | None) -> None:
    dim = len(study.folder.read_data()["shift"])
    if dim < 2:
        raise InputError(f"{study.path}: the data have one column; a field is drawn from two columns on")
    if pairs is not None:
        check_columns(pairs, dim, str(study.path))


def _panels(entries: Sequence[Entry], every: bool) -> dict[str, list[Entry]]:
    # Cascade → dense and up to six stages of it, spread evenly, the last one among them; two columns at least.
    from analysis.plots.fields.panels import evenly

    done = [entry for entry in entries if entry.result is not None]
    rows: dict[str, list[Entry]] = {}
    seen: set[str] = set()
    for entry in sorted(done, key=lambda entry: entry.subject.record.seed):
        record = entry.subject.record
        if record.series == DENSE or (record.series in seen and record.cascade not in rows and not every):
            continue
        seen.add(record.series)
        rows.setdefault(record.cascade, []).append(entry)
    panels = {}
    for cascade, own in rows.items():
        own = sorted(own, key=lambda entry: entry.subject.record.stage)
        dense = [
            entry
            for entry in done
            if entry.subject.record.series == DENSE and entry.subject.record.seed == own[0].subject.record.seed
        ]
        columns = [*dense[:1], *(own[k] for k in evenly(len(own), _SIDE))]
        if len(columns) > 1:
            panels[cascade] = columns
    return panels


def _panel_files(cascade: str, entries: Sequence[Entry], colour: Colour) -> dict[str, bytes]:
    from analysis.plots.fields.panels import Column, panels_figure

    columns = []
    for entry in entries:
        assert entry.result is not None
        record = entry.subject.record
        ratio = "dense" if record.series == DENSE else f"PR {100 * (record.prune_ratio or 0):.0f} %"
        columns.append(Column(f"{ratio}\n{record.params or 0:,} params", entry.result.arrays))
    last = entries[-1].subject
    title = f"{last.folder.spec.name} · {last.record.series} · seed {last.record.seed}"
    drawn = panels_figure(columns, title, colour)
    return {f"panels_{cascade}.{kind}": drawn[kind] for kind in KINDS}


def _stage_files(entry: Entry, colour: Colour) -> dict[str, bytes]:
    from analysis.plots.fields.animation import animation
    from analysis.plots.fields.densities import density_figure, pairs_figure
    from analysis.plots.fields.paths import trajectories_figure
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
    # `files` of every stage: what `drawings` will write of it, the panels it is in included.
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
        names += [f"panels_{cascade}.{k}" for cascade, several in panels.items() if entry in several for k in KINDS]
        values = entry.result.values | {"files": [f"{FOLDER}/{name}" for name in names]}
        named.append(replace(entry, result=replace(entry.result, values=values)))
    return named


def _stem(entry: Entry) -> str:
    return f"{entry.subject.record.cascade}-{entry.subject.record.stage}"


def _draw(folder: Path, entries: Sequence[Entry], colour: Colour, every: bool) -> None:
    for what, several in drawings(entries, colour, every):
        for name, content in several.items():
            write_whole(folder / name, content)
        typer.echo(f"wrote {len(several)} files of {what} in {folder}", err=True)
    left = sum(entry.result is not None for entry in entries) - len(featured(entries))
    if left and not every:
        typer.echo(f"not drawn, but for the panels: {left} more stages; draw them with --stage '*'", err=True)
