"""`analysis hessian`: the curvature of the loss at every stage."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from analysis.cli.common import (
    document,
    folder_for,
    objectives_of,
    open_studies,
    require_densities,
    require_some,
    write_files,
)
from analysis.curvature.stage import Settings, check, hessian_of_stage
from analysis.plots.spectrum import spectrum_figure
from analysis.runs.progress import Progress
from analysis.runs.results import Entry, analyse
from analysis.runs.study import Study, Subject

KIND = "hessian-1"
PANELS = 12  # of the spectral densities, at most
__all__ = ["Settings", "command", "files", "results"]

_COLUMNS = (
    *("method", "seed", "stage", "status", "reason", "prune_ratio", "params", "loss", "loss_value"),
    *("subset", "subset_seed", "lambda_max", "lambda_min", "trace", "trace_se", "kappa", "below_eps", "kappa_lanczos"),
    *("kappa_lanczos_se", "kappa_eps", "negative_share", "negative_share_se", "negative_cut"),
    *("clearly_negative_share", "clearly_negative_share_se", "hvps", "seconds", "peak_mib"),
)


def command(runs: Sequence[Path], stage: Sequence[str], settings: Settings, as_json: bool, out: Path | None) -> None:
    """Compute, print and write the Hessian reports of `runs`; see `analysis hessian --help`."""
    studies = open_studies(runs)
    require_densities(objectives_of(studies), "hessian")
    chosen = {study: study.subjects(stage) for study in studies}
    for study, subjects in chosen.items():
        check(study, subjects, settings)
    folders = {study: folder_for(study, out, studies) for study in studies}
    found = {study: results(study, subjects, settings, Progress("hessian")) for study, subjects in chosen.items()}
    typer.echo(document(found) if as_json else "\n".join(text(study, found[study]) for study in studies))
    for study, entries in found.items():
        write_files(folders[study], {"hessian.json": document({study: entries}) + "\n", **files(entries)})
    require_some(found)


def results(study: Study, subjects: Sequence[Subject], settings: Settings, progress: Progress) -> list[Entry]:
    """The Hessian report of every stage, from the cache where it is known."""
    return analyse(
        subjects,
        KIND,
        settings.document(),
        lambda subject, report: hessian_of_stage(study, subject, settings, report),
        progress,
    )


def files(entries: Sequence[Entry]) -> dict[str, str | bytes]:
    """hessian.csv, and the spectral densities of up to 12 stages. (The trace of each layer is in the JSON.)"""
    written: dict[str, str | bytes] = {"hessian.csv": _csv(entries)}
    done = [entry for entry in entries if entry.result]
    shown = _spread(done, PANELS)
    if shown:
        several_seeds = len({entry.subject.record.seed for entry in shown}) > 1
        labels = [
            entry.subject.label + (f", seed {entry.subject.record.seed}" if several_seeds else "") for entry in shown
        ]
        first = shown[0].subject
        seeds = "" if several_seeds else f", seed {first.record.seed}"
        title = f"{first.folder.spec.name}{seeds}: spectral density of the Hessian"
        figure = spectrum_figure(labels, [entry.result.arrays for entry in shown if entry.result], title)
        written |= {f"spectral_density.{kind}": content for kind, content in figure.items()}
    return written


def text(study: Study, entries: Sequence[Entry]) -> str:
    """The report of a run as a table."""
    head = ("stage", "PR", "params", "λ_max", "λ_min", "trace", "κ", "κ (100 Lanczos steps)", "λ < −.001", "products")
    rows = [_row(entry) for entry in entries]
    widths = [max(len(row[i]) for row in (head, *rows) if len(row) > i) for i in range(len(head))]
    lines = [_line(row, widths) for row in (head, *rows)]
    for entry in entries:
        if entry.result is None:
            lines.append(f"{entry.subject.name}: {entry.reason}")
    extras = [line for entry in entries if entry.result for line in _extras(entry.subject.name, entry.result.values)]
    first = next((entry.result.values for entry in entries if entry.result), None)
    notes = []
    if first is not None:
        what = "mean NLL, exact divergence" if first["loss"] == "nll" else "mean flow-matching loss"
        notes = [
            f"{what}, over {first['subset']:,} training rows (seed {first['subset_seed']}); surviving params, ± s.e.",
            "λ < −.001: share of the eigenvalues below −0.001 max |λ|",
            "another subset moves one flow's λ_max by 10-15 %: repeat with other --seed before believing less",
        ]
    return "\n".join([f"{study.folder.spec.name}: Hessian", "", *lines, *([""] if extras else []), *extras, "", *notes])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )
    return "  ".join([first, *others])


def _row(entry: Entry) -> tuple[str, ...]:
    record = entry.subject.record
    if entry.result is None:
        return (entry.subject.name, "failed")
    v = entry.result.values
    kappa = "" if v["kappa"] is None else f"{v['kappa']:.3g} ({v['below_eps']} below ε)"
    return (
        entry.subject.name,
        f"{100 * (record.prune_ratio or 0):.1f} %",
        f"{record.params:,}",
        f"{v['lambda_max']:.4g}",
        f"{v['lambda_min']:.4g}",
        _pm(v["trace"], v["trace_se"]),
        kappa,
        _pm(v["kappa_lanczos"], v["kappa_lanczos_se"]),
        f"{100 * v['clearly_negative_share']:.1f} %",
        f"{v['hvps']:,}",
    )


def _extras(name: str, values: dict[str, Any]) -> list[str]:
    lines = []
    if "paper" in values:
        paper = values["paper"]
        lines.append(
            f"{name}, published estimator (sums of unweighted Ritz values, not a trace): "
            f'λ_max {paper["lambda_max"]:.4g}, "trace" {paper["trace"]:.4g}, κ {_shown(paper["kappa"])}'
        )
    if "pyhessian" in values:
        its = values["pyhessian"]
        longer = "" if its["time_ratio"] is None else f"; at our s.e. {its['time_ratio']:.1f} × our time (by 1/√n)"
        lines.append(
            f"{name}, PyHessian: λ_max {its['lambda_max']:.4g} ({_shown(its['lambda_ratio'])} of ours), "
            f"trace {_pm(its['trace'], its['trace_se'])} from {its['trace_probes']} probes, "
            f"{its['seconds']:.0f} s{longer}"
        )
    if not values["converged"]:
        residuals = f"{values['lambda_max_residual']:.2g} and {values['lambda_min_residual']:.2g}"
        lines.append(f"{name}: the extreme eigenvalues did not converge; residuals {residuals}")
    return lines


def _pm(value: float | None, se: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if not se else f"{value:.4g} ± {se:.2g}"


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _spread(entries: Sequence[Entry], most: int) -> list[Entry]:
    # Of too many stages: the first seed's; of still too many: evenly chosen ones, first and last among them.
    if len(entries) > most:
        entries = [entry for entry in entries if entry.subject.record.seed == entries[0].subject.record.seed]
    if len(entries) <= most:
        return list(entries)
    return [entries[round(i * (len(entries) - 1) / (most - 1))] for i in range(most)]


def _csv(entries: Sequence[Entry]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        cells = {name: "" if value is None else value for name, value in entry.document().items()}
        writer.writerow({name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in cells.items()})
    return stream.getvalue()
