"""`bounds`: what sipp and pfp promised, beside what was observed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from analysis.analyses.writing import folder_for, open_studies, write_files
from analysis.runs.study import Study
from analysis.tables.bounds import LayerBound, bounds_of, rows_csv, sheet
from analysis.tables.text import text
from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import DamagedStage


def command(runs: Sequence[Path], as_json: bool, out: Path | None) -> None:
    """Print and write the promises of `runs`; see `bounds --help`."""
    studies = open_studies(runs)
    found = {study: _bounds(study) for study in studies}
    folders = {study: folder_for(study, out, studies) for study in studies}
    said = [text(sheet(study.folder.spec.name, bounds)) for study, bounds in found.items()]
    typer.echo(_document(found) if as_json else "\n".join(said), nl=as_json)
    for study, bounds in found.items():
        one = text(sheet(study.folder.spec.name, bounds))
        write_files(folders[study], {"bounds.csv": rows_csv(bounds), "bounds.txt": one})


def _bounds(study: Study) -> list[LayerBound]:
    # Not from metrics.jsonl: the stages' own records have a digest.
    try:
        bounds = bounds_of(study.folder.metric_lines())
    except DamagedStage as damage:
        raise InputError(f"{damage}; `sparseflows run` with the same settings makes it again") from None
    if not bounds:
        raise InputError(f"{study.path}: no stage was pruned by sipp or pfp; only they promise an error")
    return bounds


def _document(found: dict[Study, list[LayerBound]]) -> str:
    runs: list[dict[str, Any]] = [
        {"run": str(study.path), "layers": [asdict(one) for one in bounds]} for study, bounds in found.items()
    ]
    return json.dumps(runs[0] if len(runs) == 1 else {"runs": runs}, indent=1)
