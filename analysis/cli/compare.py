"""`compare`: which criterion beats random, and whether pruning beats its controls."""

from collections.abc import Sequence
from pathlib import Path

import typer

from analysis.analyses.writing import REMEDY, drawn, require_once, write_files
from analysis.cli.table import run_suffixes
from analysis.compare import formats as compare_formats
from analysis.compare.compare import compare
from analysis.compare.controls import again, remedy_of
from analysis.compare.notes import nothing_to_compare
from analysis.compare.types import Comparison
from analysis.plots.compare import compare_arrays, compare_figure
from analysis.runs.records import Run, read_run
from analysis.runs.sweeps import folder_for_all
from sparseflows.errors import InputError
from sparseflows.files import output_folder


def command(runs: Sequence[Path], as_json: bool, out: Path | None) -> None:
    """Print and write the comparisons of `runs`; see `compare --help`."""
    found = _comparisons(runs, out)
    folder = output_folder(out or folder_for_all(runs), remedy=REMEDY)
    comparisons = [one for several in found.values() for one in several]
    remedies = [remedy for run in found if (remedy := remedy_of(run)) is not None]
    text = compare_formats.to_text(comparisons) + again(remedies)
    document = compare_formats.to_json(comparisons, [str(run) for run in runs], remedies)
    typer.echo(document if as_json else text, nl=as_json)
    files: dict[str, str | bytes] = {
        "compare.txt": text,
        "compare.csv": compare_formats.to_csv(comparisons),
        "compare.md": compare_formats.to_markdown(comparisons),
        "compare.json": document + "\n",
    }
    write_files(folder, files | _figures(found))


def _comparisons(runs: Sequence[Path], out: Path | None) -> dict[Run, list[Comparison]]:
    """Run → its comparisons. Refused before any file is written where none of the runs has anything to compare.

    Raises:
        InputError: a run is given twice or cannot be read; several, and no folder named; nothing to compare.
    """
    require_once(runs)
    if out is None:
        folder_for_all(runs)
    found = {run: compare(run) for run in map(read_run, runs)}
    reasons = [
        f"{run.folder}: {reason}"
        for run, several in found.items()
        for one in several
        if (reason := nothing_to_compare(one))
    ]
    if len(reasons) == sum(len(several) for several in found.values()):
        raise InputError(reasons[0])
    for reason in reasons:
        typer.echo(reason, err=True)
    return found


def _figures(found: dict[Run, list[Comparison]]) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {}
    for (run, several), suffix in zip(found.items(), run_suffixes(list(found)), strict=True):
        for place, one in enumerate(several, start=1):
            name = f"compare{suffix}{f'-{place}' if len(several) > 1 else ''}"
            files |= drawn(name, compare_figure, compare_arrays(one), f"{name} of {run.folder}")
    return files
