"""`classify`: accuracy by prune ratio, decision boundaries and paths, weights and norms of neurons by sparsity."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer

from analysis.analyses.writing import drawn, folder_for, open_studies, write_files
from analysis.classifiers.plane import Sweep, chosen, sweeps
from analysis.plots.classifiers.accuracy import classify_arrays, classify_figure
from analysis.runs.progress import Progress
from analysis.runs.records import read_run
from analysis.runs.results import Entry, Report, Result, each_stage
from analysis.runs.study import Study, Subject
from analysis.tables.means import CLASSIFIES, Table, tabulate
from analysis.tables.nll import rows_csv, sheet
from analysis.tables.rows import with_se
from analysis.tables.text import text
from sparseflows.errors import InputError

T = TypeVar("T")

KIND = "classify1"
MOST = 6  # stages in a row of panels, the dense one among them
ROWS = 4  # methods in one figure; of more, the others have figures of their own
_STAGE = (
    *("protocol", "method", "seed", "stage", "status", "reason", "prune_ratio", "params", "params_dense"),
    *("accuracy_test", "loss_test", "loss_val", "n_test", "nfe"),
)
_MEAN = ("label", "protocol", "method", "stage", "status", "seeds_done", "prune_ratio", "params", "nfe", "best")


def command(runs: Sequence[Path], seed: int, as_json: bool, out: Path | None) -> None:
    """Print and write what there is to see of classifiers; see `classify --help`."""
    studies = open_studies(runs)
    for study in studies:
        if (objective := study.folder.spec.train.objective) != CLASSIFIES:
            raise InputError(
                f"{study.path}: a run of densities (train.objective: {objective}), and 'classify' is about "
                f"classifiers ({CLASSIFIES}); use 'sparseflows table {study.path}'"
            )
    folders = {study: folder_for(study, out, studies) for study in studies}
    tables = {study: tabulate(read_run(study.path))[0] for study in studies}
    shown = {study: text(sheet(table)) for study, table in tables.items()}
    several = [_document(study, tables[study]) for study in studies]
    document = several[0] if len(several) == 1 else {"runs": several}
    typer.echo(json.dumps(document, indent=2, allow_nan=False) if as_json else "\n".join(shown.values()), nl=as_json)
    for study, own in zip(studies, several, strict=True):
        files: dict[str, str | bytes] = {
            "classify.txt": shown[study],
            "classify.csv": rows_csv([tables[study]]),
            "classify.json": json.dumps(own, indent=2, allow_nan=False) + "\n",
        }
        files |= drawn("classify", classify_figure, classify_arrays(tables[study]), f"classify of {tables[study].run}")
        write_files(folders[study], files | pictures(study, seed))


def pictures(study: Study, seed: int) -> dict[str, bytes]:
    """The figures of the networks themselves: weights.*, and of data with two columns boundary.*, trajectories.*.

    `seed` chooses the test points that are shown.
    """
    found = sweeps(study)
    files = _weights(study, found)
    if found and len(study.folder.read_data()["shift"]) == 2:
        files |= _planes(study, found, planes(study, found, seed))
    return files


def planes(study: Study, found: Sequence[Sweep], seed: int) -> list[Entry]:
    """Probability maps and paths (`analysis.classifiers.plane.plane`) of the stages that are shown, a network once."""
    subjects = {subject.name: subject for sweep in found for subject in chosen(sweep, MOST)}

    def compute(subject: Subject, report: Report) -> Result:
        from analysis.classifiers.plane import plane
        from sparseflows.evaluation.likelihood import reporting_solver
        from sparseflows.experiment.loading import load_network

        settings = study.folder.spec.evaluate
        splits = study.splits_of(subject.record.seed)
        network = load_network(study.path, subject.name)
        return plane(network, splits, reporting_solver(settings), settings.dtype, seed)

    return each_stage(list(subjects.values()), KIND, {"seed": seed}, compute, Progress("classify"))


def _weights(study: Study, found: Sequence[Sweep]) -> dict[str, bytes]:
    from analysis.classifiers.weights import histograms
    from analysis.plots.classifiers.weights import weights_animation, weights_figure

    files: dict[str, bytes] = {}
    for suffix, page in _pages(found):
        arrays = histograms(page)
        title = _title(study, page)
        files |= {f"weights{suffix}.{kind}": one for kind, one in weights_figure(arrays, title).items()}
        files[f"weights{suffix}.gif"] = weights_animation(arrays, title)
    return files


def _planes(study: Study, found: Sequence[Sweep], entries: Sequence[Entry]) -> dict[str, bytes]:
    from analysis.plots.classifiers.plane import Row, boundary_figure, trajectories_figure
    from analysis.plots.fields.plane import Panel

    results = {entry.subject.name: entry.result for entry in entries if entry.result is not None}
    rows = []
    for sweep in found:
        known = [one for one in chosen(sweep, MOST) if one.name in results]
        panels = [Panel(_panel_title(one), results[one.name].arrays) for one in known]
        if panels:
            rows.append(Row(sweep.label, panels))
    files: dict[str, bytes] = {}
    for suffix, page in _pages(rows):
        title = _title(study, found)
        figures: dict[str, Callable[..., dict[str, bytes]]] = {"boundary": boundary_figure}
        if all("paths" in panel.arrays for row in page for panel in row.panels):
            figures["trajectories"] = trajectories_figure
        for name, figure in figures.items():
            files |= {f"{name}{suffix}.{kind}": content for kind, content in figure(page, title).items()}
    return files


def _pages(items: Sequence[T]) -> list[tuple[str, Sequence[T]]]:
    """What goes in one figure, with what ends its name: nothing for the first, then -2, -3, …"""
    starts = range(0, len(items), ROWS)
    return [(f"-{page}" if page > 1 else "", items[start : start + ROWS]) for page, start in enumerate(starts, 1)]


def _title(study: Study, found: Sequence[Sweep]) -> str:
    seeds = sorted({subject.record.seed for sweep in found for subject in sweep.subjects})
    return f"{study.folder.spec.name}, seed {', '.join(map(str, seeds))}"


def _panel_title(subject: Subject) -> str:
    record = subject.record
    ratio = "dense" if record.stage == 0 else f"PR {100 * (record.prune_ratio or 0):.1f} %"
    accuracy = "" if record.accuracy_test is None else f"\naccuracy {100 * record.accuracy_test:.1f} %"
    return f"{ratio}, {record.params or 0:,} params{accuracy}"


def _document(study: Study, table: Table) -> dict[str, Any]:
    """The run as JSON: every network (`stages`), and the means over the seeds (`means`)."""
    return {
        "run": str(study.path),
        "dataset": table.dataset,
        "seeds": table.seeds,
        "se_over": table.se_over,
        "stages": [{name: getattr(stage, name) for name in _STAGE} for stage in read_run(study.path).stages],
        "means": [
            {name: getattr(row, name) for name in _MEAN}
            | with_se("accuracy_test", row.accuracy)
            | with_se("loss_test", row.loss)
            for row in table.rows
        ],
    }
