"""`report`: one self-contained report.html of one run or several."""

import contextlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer

from analysis.analyses.shape import run_analysis
from analysis.analyses.writing import require_densities, write_files
from analysis.cli.table import JSON_COLUMNS, dataset_suffix, figures, open_runs, run_suffixes, table_files
from analysis.report.findings import ANALYSES, Findings
from analysis.report.page import render
from analysis.report.pictures import Picture, field_pictures, picture
from analysis.runs.analyses import Key, Values, number, read_stages
from analysis.runs.records import DENSE, FAILED, Run, selected_by
from analysis.settings import SETTINGS
from sparseflows.errors import Interrupted, SparseFlowsError

_DISTRIBUTIONS = (
    *("sparseflows", "torch", "torchdiffeq", "numpy", "scipy"),
    *("pandas", "matplotlib", "seaborn", "scikit-learn"),
)
SHORT_FIRST = ("cost", "modes", "field", "hessian")
_CAPTIONS = {
    "nll_vs_pr": "Test NLL, and the KL gap where the true density is known, against the prune ratio. Faint dots are "
    "single networks, the line their mean, the band its standard error; star and dashed line: the dense flow.",
    "nll_vs_params": "Test NLL against the params that are kept, with the prune ratio on the upper scale.",
    "hessian_vs_pr": "Largest eigenvalue, trace, effective rank and condition number κ₈₀ of the Hessian, against "
    "the prune ratio; the star and the dashed line are the dense flow.",
    "spectral_density": "Density of the Hessian's eigenvalues.",
    "mode_quality": "Share of good samples against the prune ratio.",
}


def command(runs: Sequence[Path], only_cached: bool, subsets: int, as_json: bool, out: Path | None) -> None:
    """Analyse what is missing, and write report.html; see `report --help`."""
    read, folder = open_runs(runs, out)
    require_densities({Path(run.folder): stage.objective for run in read for stage in run.stages}, "report")
    problems = [{} if only_cached else _analyse(run, subsets) for run in read]
    documents = [_documents(run, known) for run, known in zip(read, problems, strict=True)]
    hessians = {run.folder: found["hessian"] for run, found in zip(read, documents, strict=True) if "hessian" in found}
    made = figures(read, hessians, curves=True)
    write_files(folder, table_files(read, hessians) | made)

    suffixes = run_suffixes(read)
    found = [
        _findings(run, suffix, made, document, known)
        for run, suffix, document, known in zip(read, suffixes, documents, problems, strict=True)
    ]
    comparison = _comparison(read, made) if len(read) > 1 else []
    now = datetime.now()
    page = render(found, comparison, f"{now.day} {now:%B %Y, %H:%M}")
    write_files(folder, {"report.html": page})
    path = folder / "report.html"
    typer.echo(_json(found, path, len(page.encode())) if as_json else str(path))


def _analyse(run: Run, subsets: int) -> dict[str, str]:
    """Run the analyses that the run folder has no result of; what fails and why."""
    path = Path(run.folder)
    problems = {}
    for kind in SHORT_FIRST:
        if _is_there(path, kind):
            continue
        typer.echo(f"{path}: {ANALYSES[kind]}", err=True)
        try:
            own = {"subsets": subsets} if kind == "hessian" else {}
            with contextlib.redirect_stdout(io.StringIO()):  # its table; the page has its own
                run_analysis(kind, [path], [], SETTINGS[kind](**own), False, None)
        except Interrupted:
            raise
        except Exception as error:  # a defect in one analysis must not cost the reader the rest of the page
            problems[kind] = f"{'' if isinstance(error, SparseFlowsError) else f'{type(error).__name__}: '}{error}"
            typer.echo(f"{path}: no {kind}: {problems[kind]}", err=True)
    return problems


def _is_there(run: Path, kind: str) -> bool:
    if kind == "field":
        return any((run / "analysis" / "fields").glob("*.png"))
    stages = read_stages(run, kind) or {}
    done = [values for values in stages.values() if values.get("status") != FAILED]
    if kind == "hessian":  # one of earlier versions has other figures
        done = [values for values in done if "subset_spread" in values]
    return bool(done)


def _documents(run: Run, problems: dict[str, str]) -> dict[str, Mapping[Key, Values]]:
    """The analyses that are there, by name; `problems` learns of those that are not."""
    path = Path(run.folder)
    found = {}
    for kind in ANALYSES:
        if not _is_there(path, kind):
            problems.setdefault(kind, f"not analysed yet; run 'sparseflows {kind} {path}'")
        try:
            found[kind] = read_stages(path, kind) or {}
        except SparseFlowsError as error:
            problems[kind] = str(error)
    return {kind: stages for kind, stages in found.items() if stages}


def _findings(
    run: Run,
    suffix: str,
    made: Mapping[str, str | bytes],
    documents: Mapping[str, Mapping[Key, Values]],
    problems: Mapping[str, str],
) -> Findings:
    path = Path(run.folder)
    own = {} if suffix else {"nll_vs_params": made.get("nll_vs_params.png")}
    own |= {name: made.get(f"{name}{suffix}.png") for name in ("nll_vs_pr", "hessian_vs_pr")}
    stored = {name: path / "analysis" / f"{name}.png" for name in ("spectral_density", "mode_quality")}
    own |= {name: file.read_bytes() for name, file in stored.items() if file.is_file()}
    fields, others = field_pictures(path / "analysis" / "fields", _shown_stages(run))
    return Findings(
        run=run,
        documents=documents,
        problems=problems,
        pictures={
            name: picture(f"{name}{suffix}.png", data, f"{run.name}: {_CAPTIONS[name]}", _CAPTIONS[name])
            for name, data in own.items()
            if isinstance(data, bytes)
        },
        fields=fields,
        other_fields=others,
        settings=(path / "spec.yaml").read_text(encoding="utf-8"),
        versions=_versions(path),
        commands=_commands(path, documents),
    )


def _comparison(runs: Sequence[Run], made: Mapping[str, str | bytes]) -> list[Picture]:
    datasets = list(dict.fromkeys(stage.dataset for run in runs for stage in run.stages))
    found = []
    for dataset in datasets:
        name = f"nll_vs_params{dataset_suffix(dataset, datasets)}.png"
        if isinstance(data := made.get(name), bytes):
            caption = f"{dataset}: {_CAPTIONS['nll_vs_params']}"
            found.append(picture(name, data, caption, caption))
    return found


def _shown_stages(run: Run) -> list[tuple[Key, str]]:
    """The stages whose pictures the page shows, and what to call them.

    The dense flow and the last stage of each method, both of the first seed, the flow of the lowest validation NLL,
    and the pruned one of the lowest: what `field` draws without --stage is among them.
    """
    done = [stage for stage in run.stages if stage.done]
    first = min((stage.seed for stage in done), default=0)
    last = {stage.series: stage for stage in sorted(done, key=lambda stage: stage.stage) if stage.seed == first}
    best = [min(group, key=selected_by) for group in (done, [one for one in done if one.method != DENSE]) if group]
    shown = {}
    for stage in (*last.values(), *best):
        pruned = f"{stage.series}, {100 * (stage.prune_ratio or 0.0):.0f} % pruned"
        name = "dense flow" if stage.series == DENSE else pruned
        lowest = ", lowest validation NLL" if best and stage == best[0] and stage.nll_val is not None else ""
        shown[stage.key] = f"{name}, seed {stage.seed}{lowest}"
    return list(shown.items())


def _versions(run: Path) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        trained = json.loads((run / "run.json").read_text(encoding="utf-8")).get("versions", {})
        found = {f"{name} (training)": str(one) for name, one in trained.items()}
    found["Python (this page)"] = platform.python_version()
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(PackageNotFoundError):
            found[f"{name} (this page)"] = version(name)
    return found | {"machine (this page)": f"{platform.system()} {platform.machine()}"}


def _commands(run: Path, documents: Mapping[str, Mapping[Key, Values]]) -> str:
    def option(kind: str, key: str, flag: str) -> str:
        known = {number(values, key) for values in documents.get(kind, {}).values()} - {None}
        return f" {flag} {known.pop():.0f}" if len(known) == 1 else ""

    loss = {str(values["loss"]) for values in documents.get("hessian", {}).values() if values.get("loss")}
    hessian = option("hessian", "subset", "--subset") + option("hessian", "subsets", "--subsets")
    hessian += option("hessian", "subset_seed", "--seed")
    hessian += f" --loss {loss.pop()}" if len(loss) == 1 else ""
    modes = option("modes", "samples", "--samples") + option("modes", "samples_seed", "--seed")
    options = {"hessian": hessian, "modes": modes, "field": "", "cost": "", "report": ""}
    analyses = [f"sparseflows {kind} {run}{given}" for kind, given in options.items()]
    return "\n".join([f"sparseflows run {run}/spec.yaml --out runs", *analyses])


def _json(found: Sequence[Findings], path: Path, size: int) -> str:
    stages = []
    for one in found:
        for stage in one.run.stages:
            row: dict[str, Any] = {"run": one.run.folder, **{name: getattr(stage, name) for name in JSON_COLUMNS}}
            row |= {kind: one.documents.get(kind, {}).get(stage.key) for kind in ("hessian", "modes", "cost")}
            stages.append(row)
    runs = [one.run.folder for one in found]
    judged = [
        {"run": one.run.folder, "claim": claim.letter, "about": claim.claim, "method": claim.method}
        | {"verdict": claim.verdict, "numbers": claim.numbers, "reason": claim.reason, "remedy": claim.remedy}
        | {"sides": [asdict(side) for side in claim.sides]}
        for one in found
        for claim in one.claims
    ]
    document = {
        "run": runs if len(runs) > 1 else runs[0],
        "stages": stages,
        "claims": judged,
        "problems": {one.run.folder: dict(one.problems) for one in found},
        "report": str(path),
        "bytes": size,
    }
    return json.dumps(document, indent=2, allow_nan=False)
