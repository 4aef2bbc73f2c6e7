"""`bounds`: what sipp and pfp promised of every layer, beside the error that was observed, from a run's metrics."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import typer

from analysis.analyses.writing import folder_for, open_studies, write_files
from analysis.runs.study import Study
from analysis.tables.numbers import percent
from analysis.tables.rows import to_csv
from analysis.tables.sheet import Sheet
from analysis.tables.text import text
from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import DamagedStage
from sparseflows.experiment.folder.records import CASCADE, cascade_name


@dataclass(frozen=True)
class LayerBound:
    """One layer of one stage; relative errors as `sparseflows.pruning.scoring.bounds.Promise` has them."""

    protocol: str
    method: str
    seed: int
    stage: int
    layer: str
    promised: float
    observed: float
    mean_promised: float
    mean_observed: float
    kept: bool
    fresh_promised: float | None
    fresh_observed: float | None
    fresh_kept: float | None


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
        rows = to_csv([asdict(one) for one in bounds], whole=False)
        write_files(folders[study], {"bounds.csv": rows, "bounds.txt": shown[study]})


def _bounds(study: Study) -> list[LayerBound]:
    # Not from metrics.jsonl: the stages' own records have a digest.
    try:
        bounds = bounds_of(study.folder.metric_lines())
    except DamagedStage as damage:
        raise InputError(f"{damage}; `sparseflows run` with the same settings makes it again") from None
    if not bounds:
        raise InputError(f"{study.path}: no stage was pruned by sipp or pfp; only they promise an error")
    return bounds


def bounds_of(lines: Iterable[str]) -> list[LayerBound]:
    """The promises among the lines of metrics.jsonl, in their order."""
    known = [field.name for field in fields(LayerBound)]
    documents = [{"protocol": CASCADE} | json.loads(line) for line in lines]
    return [LayerBound(**{name: one.get(name) for name in known}) for one in documents if "promised" in one]


def sheet(name: str, bounds: Sequence[LayerBound]) -> Sheet:
    """A row a layer: promised and observed, on the sample and on fresh rows."""
    held = sum(one.kept for one in bounds)
    fresh = [one.fresh_kept for one in bounds if one.fresh_kept is not None]
    telling = sum(0 < one.promised < 1 for one in bounds)
    notes = [
        f"on the sample {held} of {len(bounds)} layers kept their promise with every neuron at every input",
        f"in {telling} of them it was between 0 and 1: at 0 nothing was pruned there, from 1 on it says nothing",
    ]
    if fresh:
        enough = sum(share >= 0.95 for share in fresh)
        notes.append(
            f"on fresh rows the promise held at 95 % of the inputs or more in {enough} of {len(fresh)} layers; it "
            "assumes that no share is more than 3 times the sample's largest"
        )
    return Sheet(
        title=f"{name}: relative error of a layer's outputs, promised and observed",
        legend="largest over its neurons (mean over them), relative to the sum of the products' sizes; random choices "
        "promise with probability 95 %; a promise of 1 or more says nothing",
        heading=("stage", "layer", "promised", "observed", "fresh: promised", "observed", "held"),
        body=tuple(_row(one) for one in bounds),
        label="tab:bounds",
        notes=tuple(notes),
    )


def _row(one: LayerBound) -> tuple[str, ...]:
    fresh = ("-", "-", "-")
    if one.fresh_promised is not None and one.fresh_observed is not None and one.fresh_kept is not None:
        fresh = (f"{one.fresh_promised:.3g}", f"{one.fresh_observed:.3g}", percent(one.fresh_kept))
    layer = one.layer.removesuffix(".weight").removeprefix("blocks.").replace(".field.layers.", "/")
    shown = (f"{one.promised:.3g} ({one.mean_promised:.3g})", f"{one.observed:.3g} ({one.mean_observed:.3g})")
    return (f"{cascade_name(one.method, one.seed, one.protocol)}/{one.stage}", layer, *shown, *fresh)
