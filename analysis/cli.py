"""The command line of the analyses. Only typer is imported here: everything else comes when it is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparseflows.errors import InputError

if TYPE_CHECKING:
    from analysis.records import Run
    from analysis.tables import Table

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

_JSON_COLUMNS = (
    *("dataset", "objective", "method", "seed", "stage", "status", "reason", "prune_ratio"),
    *("params", "params_dense", "nll_test", "nll_test_se", "kl_gap", "kl_gap_se", "nfe"),
)


@app.callback()
def analysis() -> None:
    """See what pruning did to the flows of a run."""


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, as 'sparseflows run' wrote them.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document, a stage an object, instead of the table.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the files; needed with several RUNs. [RUN/analysis]"),
    ] = None,
) -> None:
    """Tabulate and plot the test NLL against the params.

    Prints one table a run: the mean over the seeds of every stage, its standard error (over the seeds, or
    over the test set where there is one seed), the lowest NLL marked. NLLs are in nats, lower is better.
    Stages that failed are listed with their reason, and enter no mean.

    Writes table.txt, .csv, .md, .tex (booktabs) and nll_vs_params.png, .pdf, .npz (the plotted numbers).
    Several runs share one figure a data set; with several data sets, its name ends each figure's name.

    \b
    Example: train and prune, then compare two objectives.
      sparseflows run param/quick.yaml --out runs
      python -m analysis table runs/quick
      python -m analysis table runs/nll runs/flow-matching --out comparison
    """
    from analysis import formats
    from analysis.records import read_run
    from analysis.tables import tabulate
    from sparseflows.files import output_folder, write_whole

    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("the same run folder is given twice; give each once")
    if out is None and len(runs) > 1:
        raise InputError(f"{len(runs)} runs, and no folder for what compares them; name one with --out DIR")
    read = [read_run(run) for run in runs]
    tables = [one for run in read for one in tabulate(run)]
    text = formats.to_text(tables)
    folder = output_folder(out or runs[0] / "analysis", remedy="name another folder with --out DIR")

    typer.echo(_json(read) if as_json else text, nl=as_json)
    files: dict[str, str | bytes] = {
        "table.txt": text,
        "table.csv": formats.to_csv(tables),
        "table.md": formats.to_markdown(tables),
        "table.tex": formats.to_latex(tables),
    }
    files |= _figures(tables)
    for name, content in files.items():
        write_whole(folder / name, content)
    typer.echo(f"wrote {', '.join(files)} in {folder}", err=True)


def _json(runs: list[Run]) -> str:
    stages = [
        {"run": run.folder, **{name: getattr(stage, name) for name in _JSON_COLUMNS}}
        for run in runs
        for stage in run.stages
    ]
    return json.dumps({"run": [run.folder for run in runs], "stages": stages}, indent=2, allow_nan=False)


def _figures(tables: list[Table]) -> dict[str, bytes]:
    from analysis.plots import nll_vs_params_arrays, nll_vs_params_figure

    datasets = list(dict.fromkeys(table.dataset for table in tables))
    files = {}
    for dataset in datasets:
        arrays = nll_vs_params_arrays([table for table in tables if table.dataset == dataset])
        if arrays["nll"].size == 0:
            typer.echo(f"no figure for {dataset}: none of its stages has a test NLL", err=True)
            continue
        suffix = f"-{re.sub(r'[^A-Za-z0-9.-]+', '_', dataset)}" if len(datasets) > 1 else ""
        for kind, content in nll_vs_params_figure(arrays).items():
            files[f"nll_vs_params{suffix}.{kind}"] = content
    return files
