"""`table --tabular`: NLL and params of every model on every tabular set, in the published layout."""

from collections.abc import Sequence
from pathlib import Path

import typer

from analysis.analyses.writing import REMEDY, drawn, require_once, write_files
from analysis.cli.table import written
from analysis.plots.tabular import tabular_arrays, tabular_figure
from analysis.reference import load_reference
from analysis.runs.progress import Progress
from analysis.runs.study import Study
from analysis.runs.sweeps import folder_for_all
from analysis.tables.text import text
from analysis.tabular import formats
from analysis.tabular.baseline_results import RunBaselines, baselines_of
from analysis.tabular.runs import Choice, choose, read_variants
from analysis.tabular.table import tabular_table
from analysis.tabular.words import with_words
from sparseflows.errors import InputError
from sparseflows.files import output_folder


def command(runs: Sequence[Path], published: bool, fit_baselines: bool, as_json: bool, out: Path | None) -> None:
    """Print and write the table of `runs`; see `table --help`."""
    folder = _folder(runs, published, out)
    choices = choose([variant for run in runs for variant in read_variants(run)])
    baselines = _baselines(choices) if fit_baselines else {}
    theirs = load_reference().tabular if published else None
    table, comparisons = with_words(tabular_table(choices, baselines, theirs), choices, baselines, theirs)
    document = formats.to_json(table, comparisons, baselines, [str(run) for run in runs])
    sheet = formats.sheet(table)
    shown = text(sheet, width=formats.TEXT_WIDTH) + formats.remedies(comparisons)
    typer.echo(document if as_json else shown, nl=as_json)
    if folder is None:
        typer.echo("wrote no files; name a folder for them with --out DIR", err=True)
        return
    files = written("tabular", [sheet]) | {"tabular.txt": shown, "tabular.csv": formats.rows_csv(table)}
    files |= {"tabular.json": document + "\n"}
    write_files(folder, files | drawn("nll_vs_params_tabular", tabular_figure, tabular_arrays(table)))


def _folder(runs: Sequence[Path], published: bool, out: Path | None) -> Path | None:
    if not runs and not published:
        raise InputError("no RUN is given; give run folders, or --published for the published rows alone")
    require_once(runs)
    place = out or (folder_for_all(runs) if runs else None)
    for run in runs:
        read_variants(run)  # a folder that is none is refused before another is made
    return None if place is None else output_folder(place, remedy=REMEDY)


def _baselines(choices: Sequence[Choice]) -> dict[str, RunBaselines]:
    found: dict[str, RunBaselines] = {}
    studies = []
    for folder in dict.fromkeys(choice.shown.run.folder for choice in choices):
        try:
            studies.append(Study.open(Path(folder)))
        except InputError as error:  # results.csv is enough for the flows' rows
            found[folder] = RunBaselines({}, reason=str(error))
    return found | baselines_of(studies, Progress("baselines"))
