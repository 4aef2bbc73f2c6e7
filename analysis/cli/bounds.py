"""`bounds`: what sipp and pfp promised, beside what was observed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from analysis.analyses.writing import folder_for, open_studies, write_files
from analysis.runs.study import Study
from analysis.tables.bounds import LayerBound, bounds_of, rows_csv, sheet
from analysis.tables.text import text
from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import METRICS


def command(runs: Sequence[Path], as_json: bool, out: Path | None) -> None:
    """Print and write the promises of `runs`; see `bounds --help`."""
    studies = open_studies(runs)
    found = {study: _bounds(study) for study in studies}
    folders = {study: folder_for(study, out, studies) for study in studies}
    shown = {study: text(sheet(study.folder.spec.name, bounds)) for study, bounds in found.items()}
    several = [{"run": str(study.path), "layers": list(map(asdict, bounds))} for study, bounds in found.items()]
    document = several[0] if len(several) == 1 else {"runs": several}
    typer.echo(json.dumps(document, indent=1) if as_json else "\n".join(shown.values()), nl=as_json)
    for study, bounds in found.items():
        write_files(folders[study], {"bounds.csv": rows_csv(bounds), "bounds.txt": shown[study]})


def _bounds(study: Study) -> list[LayerBound]:
    path = study.path / METRICS
    try:
        bounds = bounds_of(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: missing or damaged ({error}); `sparseflows run` makes it again") from None
    if not bounds:
        raise InputError(f"{study.path}: no stage was pruned by sipp or pfp; only they promise an error")
    return bounds
