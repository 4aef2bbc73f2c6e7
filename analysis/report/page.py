"""What is known of runs → one HTML page. Nothing is computed here but words: analyses are read, figures are given.

What the page says of a claim is decided in `report_claims`, how it looks in `report_page` and report.css.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.curvature.table import hessian_table
from analysis.report import html as report_page
from analysis.report.claims import FAILS, HOLDS, MODERATE, UNKNOWN, Claim, claims
from analysis.report.pictures import Picture, fit
from analysis.report.tables import cost_sheet, modes_sheet, runs_sheet
from analysis.report.words import pruned_methods, summary, training_caveat
from analysis.runs.analyses import Key, Values, failures, missing
from analysis.runs.records import Run
from analysis.tables import hessian as hessian_formats
from analysis.tables import nll as formats
from analysis.tables.markup import html as html_table
from analysis.tables.means import tabulate

LIMIT = 8_000_000  # bytes of the whole page
ANALYSES = {
    "hessian": "the curvature of the loss",
    "modes": "the mode quality",
    "field": "the pictures of the flows",
    "cost": "the cost",
}


_VERDICTS = {
    HOLDS: "Claims of the paper that hold here",
    FAILS: "Claims of the paper that do not hold here",
    UNKNOWN: "Claims of the paper of which it cannot be told",
}


@dataclass(frozen=True)
class Findings:
    """All that is known of one run.

    `problems` says for each analysis that is not there why not. `pictures` by name: `nll_vs_params`, `nll_vs_pr`,
    `hessian_vs_pr`, `spectral_density`, `mode_quality` (those that exist); `fields` are the pictures of the flows,
    `other_fields` how many more lie in the run folder. `settings` is spec.yaml, `commands` how to do it again.
    """

    run: Run
    hessian: Mapping[Key, Values] | None = None
    modes: Mapping[Key, Values] | None = None
    cost: Mapping[Key, Values] | None = None
    field: Mapping[Key, Values] | None = None
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, Picture] = dataclasses.field(default_factory=dict)
    fields: Sequence[Picture] = ()
    other_fields: int = 0
    settings: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    commands: str = ""

    @property
    def claims(self) -> list[Claim]:
        """The paper's claims, judged."""
        return claims(self.run, self.hessian, self.modes)


def render(found: Sequence[Findings], comparison: Sequence[Picture], date: str, limit: int = LIMIT) -> str:
    """The page.

    Args:
        found: the runs, one section each.
        comparison: figures that compare the runs; none for one run.
        date: what the page says of when it was made.
        limit: bytes of the page that must not be passed; pictures are scaled down, then left out, to keep to it.
    """
    shared = _Shelf.of([*comparison, *(one for run in found for one in (*run.pictures.values(), *run.fields))])
    several = len(found) > 1
    names = [one.run.name for one in found]
    title = f"What pruning did: {', '.join(names) if len(names) <= 3 else f'{len(names)} runs'}"
    datasets = list(dict.fromkeys(stage.dataset for one in found for stage in one.run.stages))
    lead = [f"Data: {', '.join(datasets)}. Made on {date} by Sparse Flows."]

    def write(shelf: _Shelf) -> str:
        sections = [_run_sections(one, f"r{number}-" if several else "", shelf) for number, one in enumerate(found, 1)]
        body, contents = _assemble(found, sections, comparison, shelf)
        footer = "NLLs are in nats, lower is better; prune ratios are shares of all params. This page asks nothing of "
        return report_page.page(title, lead, contents, body, f"{footer}the network and runs no script.")

    text_size = len(write(shared.emptied()).encode())
    return write(shared.fitted(limit - text_size - 4_000))  # what the page says of pictures that do not fit


@dataclass(frozen=True)
class _Shelf:
    """The pictures of the page, and those that are shown: by identity, for two runs have files of the same name."""

    all: tuple[Picture, ...]
    shown: Mapping[int, Picture]
    scaled: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> _Shelf:
        return cls(tuple(pictures), {})

    def emptied(self) -> _Shelf:
        return _Shelf(self.all, {})

    def fitted(self, room: int) -> _Shelf:
        kept, scaled, left_out = fit(self.all, room)
        return _Shelf(
            self.all, {id(self.all[place]): one for place, one in kept.items()}, tuple(scaled), tuple(left_out)
        )

    def figure(self, picture: Picture | None) -> str:
        shown = self.shown.get(id(picture))
        return report_page.figure(shown) if shown else ""


@dataclass(frozen=True)
class _Section:
    title: str
    anchor: str
    body: str


def _assemble(
    found: Sequence[Findings], sections: Sequence[Sequence[_Section]], comparison: Sequence[Picture], shelf: _Shelf
) -> tuple[str, str]:
    # One run: its sections are the page's. Several: a comparison, then a part for each run.
    if len(found) == 1:
        body = "\n".join(f"{report_page.heading(2, one.title, one.anchor)}\n{one.body}" for one in sections[0])
        return body + _size_notes(shelf), report_page.links([(one.title, one.anchor) for one in sections[0]])
    tables = [table for one in found for table in tabulate(one.run)]
    parts = [report_page.heading(2, "The runs side by side", "comparison"), html_table(runs_sheet(tables))]
    parts += [shelf.figure(picture) for picture in comparison]
    entries = [("The runs side by side", "comparison")]
    for number, (one, of_run) in enumerate(zip(found, sections, strict=True), 1):
        entries.append((f"Run {one.run.name}", f"run-{number}"))
        parts.append(report_page.heading(2, f"Run {one.run.name}", f"run-{number}"))
        parts.append(report_page.links([(section.title, section.anchor) for section in of_run]))
        parts += [f"{report_page.heading(3, section.title, section.anchor)}\n{section.body}" for section in of_run]
    return "\n".join(parts) + _size_notes(shelf), report_page.links(entries)


def _size_notes(shelf: _Shelf) -> str:
    notes = [f"To keep the page below its size, {_named(shelf.scaled)} scaled down." if shelf.scaled else ""]
    notes += [f"To keep the page below its size, {_named(shelf.left_out)} left out." if shelf.left_out else ""]
    return "".join(report_page.paragraph(note, quiet=True) for note in notes if note)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"{shown} {'was' if len(names) == 1 else 'were'}"


def _run_sections(found: Findings, prefix: str, shelf: _Shelf) -> list[_Section]:
    parts = [
        ("In short", _in_short(found)),
        ("The paper's claims", _claims(found)),
        ("Likelihood", _likelihood(found, shelf)),
        ("Curvature of the loss", _curvature(found, shelf)),
        ("Modes and samples", _modes(found, shelf)),
        ("The flows in pictures", _pictures(found, shelf)),
        ("Cost", _cost(found)),
        ("What failed", _failed(found)),
        ("How it was made", _made(found)),
    ]
    return [_Section(title, prefix + report_page.anchor(title), body) for title, body in parts if body]


def _in_short(found: Findings) -> str:
    run = found.run
    done = [stage for stage in run.stages if stage.done]
    dense = next((stage for stage in done if stage.stage == 0), None)
    methods = pruned_methods(run)
    seeds = f"{len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}"
    size = f" of {dense.params:,} params" if dense and dense.params else ""
    lines = [
        f"{len(done)} trained flows, {seeds}: dense flows{size}, pruned by {' and '.join(methods) or 'no method'}."
    ]
    for method in methods:
        lines.append(" ".join(summary(run, method)))
    for verdict, words in _VERDICTS.items():
        if told := _told([claim for claim in found.claims if claim.verdict == verdict], len(methods) > 1):
            lines.append(f"{words}: {told}.")
    if methods and (caveat := training_caveat(run)):
        lines.append(caveat)
    if len(run.seeds) == 1:
        lines.append("One seed: each verdict is about these networks; what another seed would give is not known.")
    return report_page.key_points(lines)


def _told(judged: Sequence[Claim], several: bool) -> str:
    methods: dict[str, list[str]] = {}
    for claim in judged:
        methods.setdefault(claim.subject, []).append(claim.method)
    return ", ".join(f"{subject} ({' and '.join(names)})" if several else subject for subject, names in methods.items())


def _claims(found: Findings) -> str:
    judged = found.claims
    if not judged:
        return report_page.paragraph("This run has no pruned stage: there is nothing to hold the claims against.")
    low, high = (f"{100 * end:.0f}" for end in MODERATE)
    seeds = len(found.run.seeds)
    how = (
        f"A verdict needs a 95 % interval that excludes no change: Student's t over {seeds} seeds, each stage against "
        "the dense flow of its own seed."
        if seeds > 1
        else "A verdict needs a change beyond 2 standard errors of the measurement (test set, estimator, samples)."
    )
    notes = [
        f"{how} Anything else cannot be told.",
        f"Moderate ratios are {low} to {high} % pruned, where the published gains lie; (b) and (c) take the mean over "
        "the stages there, (a) the one stage that the validation NLL chooses.",
        "The largest eigenvalue of one network moves by 10–15 % with the subset of rows alone: a change of the "
        "curvature below 15 % is never called one. Repeat with other subsets (--seed) before you believe less.",
    ]
    if caveat := training_caveat(found.run):
        notes.append(caveat)
    return report_page.verdicts(judged) + report_page.bullets(notes, "notes")


def _likelihood(found: Findings, shelf: _Shelf) -> str:
    sheets = [formats.sheet(table) for table in tabulate(found.run)]
    pictures = [shelf.figure(found.pictures.get(name)) for name in ("nll_vs_pr", "nll_vs_params")]
    return "".join([*(html_table(sheet) for sheet in sheets), *pictures])


def _curvature(found: Findings, shelf: _Shelf) -> str:
    if not found.hessian:
        return _not_there(found, "hessian")
    table = hessian_table(found.run, found.hessian)
    pictures = [shelf.figure(found.pictures.get(name)) for name in ("hessian_vs_pr", "spectral_density")]
    sheets = [html_table(sheet) for sheet in hessian_formats.sheets(table)]
    return "".join([*sheets, *pictures, _not_covered(found, "hessian", found.hessian)])


def _modes(found: Findings, shelf: _Shelf) -> str:
    if not found.modes:
        return _not_there(found, "modes")
    picture = shelf.figure(found.pictures.get("mode_quality"))
    sheet = html_table(modes_sheet(found.run.name, found.modes))
    return sheet + picture + _not_covered(found, "modes", found.modes)


def _pictures(found: Findings, shelf: _Shelf) -> str:
    if not found.fields:
        return _not_there(found, "field")
    still = [shelf.figure(picture) for picture in found.fields if picture.mime == "image/png"]
    # Behind a line that opens it: nothing moves on the page unless the reader wants it to.
    moving = [
        report_page.folded(f"{picture.caption.removesuffix('.')} (moves when opened)", shown)
        for picture in found.fields
        if picture.mime != "image/png" and (shown := shelf.figure(picture))
    ]
    more = f"{found.other_fields} more pictures, of the other stages, are in analysis/fields of the run folder."
    return "".join([*still, *moving, report_page.paragraph(more, quiet=True) if found.other_fields else ""])


def _cost(found: Findings) -> str:
    if not found.cost:
        return _not_there(found, "cost")
    return html_table(cost_sheet(found.run.name, found.cost)) + _not_covered(found, "cost", found.cost)


def _not_there(found: Findings, kind: str) -> str:
    return report_page.paragraph(f"Not known: {ANALYSES[kind]}. {found.problems.get(kind) or 'It was not analysed.'}")


def _not_covered(found: Findings, kind: str, stages: Mapping[Key, Values]) -> str:
    wanted = [(stage.series, stage.seed, stage.stage) for stage in found.run.stages if stage.done]
    absent = missing(stages, wanted)
    if not absent:
        return ""
    return report_page.paragraph(f"analysis/{kind}.json does not cover {_listed(absent)}.", quiet=True)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _failed(found: Findings) -> str:
    lines = [
        f"{stage.series}-s{stage.seed}/{stage.stage}, in the run: {stage.reason or 'no reason was recorded'}"
        for stage in found.run.stages
        if not stage.done
    ]
    for kind in ANALYSES:
        stages: Mapping[Key, Values] | None = getattr(found, kind)
        in_run = {f"{stage.series}-s{stage.seed}/{stage.stage}" for stage in found.run.stages if not stage.done}
        lines += [
            f"{name}, {ANALYSES[kind]}: {reason}"
            for name, reason in (line.split(": ", 1) for line in failures(stages or {}))
            if name not in in_run
        ]
    lines += [f"{ANALYSES[kind]}: {reason}" for kind, reason in found.problems.items()]
    return report_page.bullets(lines) if lines else report_page.paragraph("Nothing.")


def _made(found: Findings) -> str:
    parts = [report_page.paragraph(f"Run folder: {found.run.folder}")]
    if found.commands:
        parts += [report_page.paragraph("The same again:"), report_page.preformatted(found.commands)]
    if found.settings:
        parts.append(report_page.folded("All settings (spec.yaml)", report_page.preformatted(found.settings)))
    if found.versions:
        parts.append(report_page.folded("Versions", report_page.definitions(found.versions)))
    return "".join(parts)
