"""What the commands share: opening the runs, printing one JSON document, writing the files."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer

from analysis.runs.results import Entry
from analysis.runs.study import Study
from analysis.tables.means import CLASSIFIES
from sparseflows.errors import InputError, RunError
from sparseflows.files import output_folder, write_whole

Row = Mapping[str, Any]  # a stage as a JSON object

REMEDY = "name another folder with --out DIR"


def open_studies(runs: Sequence[Path]) -> list[Study]:
    """The run folders, each given once.

    Raises:
        InputError: one is given twice, or is not a run folder.
    """
    require_once(runs)
    return [Study.open(run) for run in runs]


def require_once(runs: Sequence[Path]) -> None:
    """Raise InputError where a run folder is given twice."""
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("the same run folder is given twice; give each once")


def require_densities(objectives: Mapping[Path, str], analysis: str) -> None:
    """Raise InputError where one of the `objectives`, run folder → its, is that of classifiers."""
    for run, objective in objectives.items():
        if objective == CLASSIFIES:
            raise InputError(
                f"{run}: a run of classifiers (train.objective: {CLASSIFIES}), and '{analysis}' is about "
                f"densities; use 'sparseflows classify {run}'"
            )


def folder_for(study: Study, out: Path | None, studies: Sequence[Study], inner: str = "") -> Path:
    """Where a run's files go: RUN/analysis, or below `--out` (in a folder of its own where there are several runs).

    `inner` is a folder in it, made too.

    Raises:
        InputError: it cannot be written to, or two runs would have the same folder.
    """
    name = study.path.resolve().name
    if out is None:
        place = study.path / "analysis"
    elif len(studies) == 1:
        place = out
    elif [other.path.resolve().name for other in studies].count(name) > 1:
        raise InputError(f"two run folders are called '{name}'; with --out, give them one at a time")
    else:
        place = out / name
    folder = output_folder(place, remedy=REMEDY)
    if inner:
        output_folder(folder / inner, remedy=REMEDY)
    return folder


def with_earlier(study: Study, path: Path, entries: Sequence[Entry]) -> list[Row]:
    """The JSON objects of these stages, and those that the file at `path` has of the run's others, in its order."""
    rows = {_key(row): row for row in (entry.document() for entry in entries)}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        own = path.parent == study.path / "analysis" or Path(document["run"]).resolve() == study.path.resolve()
        rows = {_key(row): dict(row) for row in document["stages"] if own} | rows
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no file, or none that can be read: it is written anew
    order = [(record.series, record.seed, record.stage) for record in study.records]
    return [rows[key] for key in order if key in rows]


def _key(row: Row) -> tuple[str, int, int]:
    return row["method"], row["seed"], row["stage"]


def document(found: Mapping[Study, Sequence[Row]]) -> str:
    """The JSON of an analysis: `run` (a list where there are several) and `stages`, whose objects are given."""
    runs = [str(study.path) for study in found]
    several = len(runs) > 1
    stages = [
        ({"run": str(study.path)} if several else {}) | dict(row) for study, rows in found.items() for row in rows
    ]
    return json.dumps({"run": runs if several else runs[0], "stages": stages}, indent=2, allow_nan=False)


def drawn(
    name: str,
    figure: Callable[[Mapping[str, np.ndarray]], Mapping[str, bytes]],
    arrays: Mapping[str, np.ndarray],
    called: str = "",
) -> dict[str, str | bytes]:
    """The files <name>.* of a figure; none where there is nothing to draw, which is said of what it is `called`."""
    try:
        return {f"{name}.{kind}": content for kind, content in figure(arrays).items()}
    except ValueError as error:
        typer.echo(f"no figure {called or name}: {error}", err=True)
        return {}


def write_files(folder: Path, files: Mapping[str, str | bytes], what: str = "") -> None:
    """Write each file whole, and say so on standard error: by name, or how many of `what`."""
    for name, content in files.items():
        write_whole(folder / name, content)
    typer.echo(f"wrote {f'{len(files)} files of {what}' if what else ', '.join(files)} in {folder}", err=True)


def require_some(found: Mapping[Study, Sequence[Entry]]) -> None:
    """Raise RunError where not a single stage has a result: the command has nothing to show."""
    entries = [entry for several in found.values() for entry in several]
    if not any(entry.result for entry in entries):
        raise RunError(f"no stage could be analysed; {entries[0].subject.name}: {entries[0].reason}")
