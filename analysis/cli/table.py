"""`table`: NLL (of classifiers: accuracy) against params and curvature against dense, in five forms."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from analysis.analyses.writing import REMEDY, drawn, require_once, write_files
from analysis.plots.curves import hessian_vs_pr_arrays, nll_vs_pr_arrays, vs_pr_figure
from analysis.plots.nll import vs_params_arrays, vs_params_figure
from analysis.runs.analyses import Key, Values, read_stages
from analysis.runs.records import Run, read_run
from analysis.runs.sweeps import folder_for_all
from analysis.tables import hessian, nll
from analysis.tables.curvature import hessian_table
from analysis.tables.markup import latex, markdown
from analysis.tables.means import CLASSIFIES, tabulate
from analysis.tables.sheet import Sheet
from analysis.tables.text import text
from sparseflows.errors import InputError
from sparseflows.files import output_folder

JSON_COLUMNS = (
    *("dataset", "objective", "protocol", "method", "seed", "stage", "status", "reason", "prune_ratio"),
    *("params", "params_dense", "nll_test", "nll_test_se", "kl_gap", "kl_gap_se", "nfe"),
)
_CLASSIFIERS = ("accuracy_test", "loss_test")  # in their JSON objects too

Hessians = Mapping[str, Mapping[Key, Values]]  # run folder → the stages of its hessian.json


def command(runs: Sequence[Path], as_json: bool, out: Path | None) -> None:
    """Print and write the tables of `runs`; see `table --help`."""
    read, folder = open_runs(runs, out)
    hessians = {run.folder: stages for run in read if (stages := read_stages(Path(run.folder), "hessian"))}
    files = table_files(read, hessians)
    shown = "\n".join(str(files[name]) for name in ("table.txt", "hessian_table.txt") if name in files)
    typer.echo(_json(read, hessians) if as_json else shown, nl=as_json)
    write_files(folder, files | figures(read, hessians, curves=bool(hessians)))


def open_runs(runs: Sequence[Path], out: Path | None) -> tuple[list[Run], Path]:
    """The runs, and the folder for what is about all of them.

    Raises:
        InputError: a run is given twice or cannot be read; several, and no folder named.
    """
    require_once(runs)
    folder = out or folder_for_all(runs)
    read = [read_run(run) for run in runs]
    return read, output_folder(folder, remedy=REMEDY)


def table_files(runs: Sequence[Run], hessians: Hessians) -> dict[str, str | bytes]:
    """table.* of the runs, and hessian_table.* of those that have a Hessian.

    Raises:
        InputError: classifiers beside flows that do not classify.
    """
    tables = [one for run in runs for one in tabulate(run)]
    if len({table.classifies for table in tables}) > 1:
        classifier, flow = (next(t.run for t in tables if t.classifies is kind) for kind in (True, False))
        raise InputError(
            f"{classifier} is a run of classifiers (accuracy), {flow} of densities (NLL); tabulate each kind by itself"
        )
    files = written("table", [nll.sheet(table) for table in tables]) | {"table.csv": nll.rows_csv(tables)}
    curvature = [hessian_table(run, hessians[run.folder]) for run in runs if run.folder in hessians]
    if curvature:
        files |= written("hessian_table", [one for table in curvature for one in hessian.sheets(table)])
        files |= {"hessian_table.csv": hessian.rows_csv(curvature)}
    return files


def written(name: str, sheets: Sequence[Sheet]) -> dict[str, str | bytes]:
    """Sheets as files: <name>.txt, .md, .tex."""
    return {f"{name}.txt": text(*sheets), f"{name}.md": markdown(*sheets), f"{name}.tex": latex(*sheets)}


def figures(runs: Sequence[Run], hessians: Hessians, curves: bool) -> dict[str, str | bytes]:
    """nll_vs_params.* (of classifiers: accuracy_vs_params.*) for each data set; with `curves` nll_vs_pr.* and
    hessian_vs_pr.* for each run.
    """
    files: dict[str, str | bytes] = {}
    tables = [one for run in runs for one in tabulate(run)]
    datasets = list(dict.fromkeys(table.dataset for table in tables))
    for dataset in datasets:
        own = [table for table in tables if table.dataset == dataset]
        name = f"{'accuracy' if own[0].classifies else 'nll'}_vs_params{dataset_suffix(dataset, datasets)}"
        files |= drawn(name, vs_params_figure, vs_params_arrays(own), f"for {dataset}")
    for run, suffix in zip(runs if curves else (), run_suffixes(runs), strict=False):
        files |= drawn(f"nll_vs_pr{suffix}", vs_pr_figure, nll_vs_pr_arrays(run))
        if run.folder in hessians:
            files |= drawn(f"hessian_vs_pr{suffix}", vs_pr_figure, hessian_vs_pr_arrays(run, hessians[run.folder]))
    return files


def run_suffixes(runs: Sequence[Run]) -> list[str]:
    """What ends the names of the files of each run: nothing for one run, else its folder's name, made unique."""
    if len(runs) == 1:
        return [""]
    suffixes: list[str] = []
    for run in runs:
        suffix = f"-{_plain(Path(run.folder).resolve().name)}"
        twins = sum(other == suffix or other.startswith(f"{suffix}~") for other in suffixes)
        suffixes.append(f"{suffix}~{twins + 1}" if twins else suffix)
    return suffixes


def dataset_suffix(dataset: str, datasets: Sequence[str]) -> str:
    """What ends the name of a data set's figure: nothing where there is one data set."""
    return f"-{_plain(dataset)}" if len(set(datasets)) > 1 else ""


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)


def _json(runs: Sequence[Run], hessians: Hessians) -> str:
    stages = []
    for run in runs:
        known = hessians.get(run.folder, {})
        for stage in run.stages:
            columns = (*JSON_COLUMNS, *(_CLASSIFIERS if stage.objective == CLASSIFIES else ()))
            row: dict[str, Any] = {"run": run.folder, **{name: getattr(stage, name) for name in columns}}
            curvature = known.get(stage.key)
            stages.append(row | ({"hessian": curvature} if curvature else {}))
    return json.dumps({"run": [run.folder for run in runs], "stages": stages}, indent=2, allow_nan=False)
