"""`analysis cost`: what every stage costs, beside the dense flow of its seed."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import typer

from analysis.cli import layout
from analysis.cli.common import (
    document,
    folder_for,
    objectives_of,
    open_studies,
    require_densities,
    require_some,
    write_files,
)
from analysis.cli.cost_text import SPARSE, WAYS, text
from analysis.runs.progress import Progress
from analysis.runs.results import Entry, Report, Result, analyse
from analysis.runs.study import Study, Subject
from sparseflows.errors import RunError, SparseFlowsError
from sparseflows.experiment.folder.folder import MODEL
from sparseflows.experiment.folder.records import DENSE, DONE
from sparseflows.rng import numpy_generator

if TYPE_CHECKING:
    from analysis.cost import Job, Timing

KIND = "cost2"  # the second: with the sparse execution of masked flows
ROWS, REPEATS, SEED = 1024, 5, 0

_Timings: TypeAlias = "Mapping[tuple[str, str], Timing | str]"


def command(
    runs: Sequence[Path], stage: Sequence[str], rows: int, repeats: int, seed: int, as_json: bool, out: Path | None
) -> None:
    """Print and write the cost of `runs`; see `analysis cost --help`."""
    studies = open_studies(runs)
    require_densities(objectives_of(studies), "cost")
    chosen = {study: study.subjects(stage) for study in studies}
    folders = {study: folder_for(study, out, studies) for study in studies}
    progress = Progress("cost")
    found = {study: results(study, chosen[study], rows, repeats, seed, progress) for study in studies}
    require_some(found)
    typer.echo(document(found) if as_json else "\n".join(text(*one) for one in found.items()), nl=as_json)
    for study, entries in found.items():
        write_files(folders[study], {"cost.json": document({study: entries}) + "\n"} | files(entries))


def results(
    study: Study,
    subjects: Sequence[Subject],
    rows: int = ROWS,
    repeats: int = REPEATS,
    seed: int = SEED,
    progress: Progress | None = None,
) -> list[Entry]:
    """Cost of every stage.

    All stages that are not known yet are timed together, in turns, with the dense flows of their seeds.

    Args:
        study: the run.
        subjects: its stages.
        rows: of the batch that is timed; as many as there are where there are fewer.
        repeats: timings a stage.
        seed: of the choice of the rows, and of the noise.
        progress: what the user sees.
    """
    import torch

    from analysis.cost import processor

    settings = {
        "rows": rows,
        "repeats": repeats,
        "seed": seed,
        "threads": 1,
        "processor": processor(),
        "torch": torch.__version__,
    }
    known = analyse(subjects, KIND, settings, _not_now, Progress("cost", io.StringIO(), bars=False))
    missing = [entry.subject for entry in known if entry.result is None and entry.subject.record.status == DONE]
    progress = progress or Progress("cost")
    timings: _Timings = _time(study, missing, (rows, repeats, seed), progress) if missing else {}

    batch = {"rows": len(_rows(study, rows, seed)) if missing else rows, "repeats": repeats, "samples_seed": seed}

    def compute(subject: Subject, report: Report) -> Result:
        return Result(_values(study, subject, timings) | batch)

    return analyse(subjects, KIND, settings, compute, progress)


def files(entries: Sequence[Entry]) -> dict[str, str | bytes]:
    """cost.csv."""
    return {"cost.csv": layout.to_csv(entries)}


def _not_now(subject: Subject, report: Report) -> Result:
    """What asks the cache alone."""
    raise RunError("not timed yet")


def _dense(study: Study, subject: Subject) -> Subject | None:
    found = [one for one in study.subjects() if one.record.series == DENSE and one.record.seed == subject.record.seed]
    return found[0] if found and found[0].record.status == DONE else None


def _time(study: Study, subjects: Sequence[Subject], settings: tuple[int, int, int], progress: Progress) -> _Timings:
    from analysis.cost import in_turns, one_thread

    rows, repeats, seed = settings
    dense = [one for subject in subjects if (one := _dense(study, subject)) is not None]
    points = _rows(study, rows, seed)
    noise = numpy_generator(seed, "analysis/cost/noise").standard_normal(points.shape)
    works: dict[tuple[str, str], Callable[[], int]] = {}
    for subject in {one.name: one for one in (*dense, *subjects)}.values():
        try:
            jobs = _jobs(study, subject, points, noise)
        except SparseFlowsError:
            continue  # told when it is the stage's turn
        for suffix, job in jobs.items():
            works[subject.name, f"log_prob{suffix}"] = job.log_prob
            works[subject.name, f"sample{suffix}"] = job.sample
    progress.start(1)
    progress.begin("all stages, in turns")
    with one_thread():
        timings = in_turns(works, repeats, progress.step)
    progress.close()
    return timings


def _rows(study: Study, rows: int, seed: int) -> np.ndarray:
    # Test rows first; the timing of a table with few of them goes on to the others.
    parts = (study.splits.test, study.splits.validation, study.splits.train)
    generator = numpy_generator(seed, "analysis/cost/rows")
    return np.concatenate([part[generator.permutation(len(part))] for part in parts])[:rows]


def _jobs(study: Study, subject: Subject, points: np.ndarray, noise: np.ndarray) -> dict[str, Job]:
    """The stage's flow as it is, and as "_sparse" where it has zeros enough."""
    import torch

    from analysis.cost import Job, sparse_execution
    from sparseflows.evaluation.likelihood import as_dtype

    flow = subject.flow()
    flows = {"": flow, SPARSE: sparse_execution(flow)}
    dtype = getattr(torch, study.folder.spec.evaluate.dtype)
    return {suffix: Job(one, as_dtype(one, dtype), points, noise) for suffix, one in flows.items() if one is not None}


def _values(study: Study, subject: Subject, timings: _Timings) -> dict[str, Any]:
    from analysis.cost import processor
    from sparseflows.flow.smaller.sparse import BREAK_EVEN

    own = _counts(subject)
    dense = _dense(study, subject)
    other = None if dense is None else own if dense.name == subject.name else _counts(dense)
    record = subject.record
    values: dict[str, Any] = {
        **own,
        "bytes_ratio": None if other is None else own["bytes"] / other["bytes"],
        "macs_ratio": None if other is None else own["macs"] / other["macs"],
    }
    failures = []
    for way in WAYS:
        timing = timings.get((subject.name, way))
        base = None if dense is None else timings.get((dense.name, way))
        sparse = timings.get((subject.name, way + SPARSE))
        values |= _seconds(way, timing, base) | _seconds(way + SPARSE, sparse, base)
        values[f"{way}{SPARSE}_speedup_masked"] = _speedup(sparse, timing)
        what = "log p" if way == "log_prob" else "sampling"
        failures += [f"{what}: {one}" for one in (timing, sparse) if isinstance(one, str)]
    return values | {
        "timing_failure": "; ".join(failures) or None,
        "break_even": BREAK_EVEN,
        "threads": 1,
        "processor": processor(),
        **{name: getattr(record, name) for name in ("nll_test", "nll_test_se", "kl_gap", "kl_gap_se", "nfe")},
    }


def _counts(subject: Subject) -> dict[str, Any]:
    from analysis.cost import macs, macs_divergence, macs_kept, sparse_bytes, stored_bytes

    flow = subject.flow()
    kept = subject.kept(flow)
    path = subject.folder.stage(subject.record.cascade, subject.record.stage) / MODEL
    return {
        "bytes": stored_bytes(flow),
        "bytes_sparse": sparse_bytes(flow, kept),
        "bytes_file": path.stat().st_size,
        "macs": macs(flow),
        "macs_kept": macs_kept(flow, kept),
        "macs_divergence": macs_divergence(flow),
    }


def _seconds(way: str, timing: Timing | str | None, base: Timing | str | None) -> dict[str, Any]:
    from analysis.cost import Timing

    names = ("seconds", "seconds_min", "seconds_max", "nfe", "ratio", "speedup")
    values: dict[str, Any] = dict.fromkeys(f"{way}_{name}" for name in names)
    if not isinstance(timing, Timing):
        return values
    median = float(np.median(timing.seconds))
    values |= {
        f"{way}_seconds": median,
        f"{way}_seconds_min": float(timing.seconds.min()),
        f"{way}_seconds_max": float(timing.seconds.max()),
        f"{way}_nfe": timing.nfe,
    }
    speedup = _speedup(timing, base)
    if speedup is not None:
        values |= {f"{way}_ratio": 1 / speedup, f"{way}_speedup": speedup}
    return values


def _speedup(timing: Timing | str | None, base: Timing | str | None) -> float | None:
    """How many times as fast as `base`, medians; None where one of them was not timed."""
    from analysis.cost import Timing

    if not isinstance(timing, Timing) or not isinstance(base, Timing):
        return None
    return float(np.median(base.seconds) / np.median(timing.seconds))
