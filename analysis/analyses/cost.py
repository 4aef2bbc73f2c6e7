"""`cost`: what every stage costs, beside the dense flow of its seed."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import torch

from analysis import cost
from analysis.analyses.shape import Analysis, Request, first_values, stage_sheet
from analysis.cost import Job, Timing, in_turns, processor, threads
from analysis.runs.progress import Progress
from analysis.runs.results import Entry, Report, Result, each_stage
from analysis.runs.study import Study, Subject
from analysis.settings import CostSettings
from analysis.tables.numbers import NOTHING, fixed, mean_in
from analysis.tables.sheet import Sheet
from sparseflows.errors import RunError, SparseFlowsError
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.experiment.folder.folder import MODEL
from sparseflows.experiment.folder.records import DENSE, DONE
from sparseflows.flow.smaller.sparse import BREAK_EVEN
from sparseflows.rng import numpy_generator

KIND = "cost2"  # the second: with the sparse execution of masked flows
WAYS = ("log_prob", "sample")
SPARSE = "_sparse"  # ends the name of a way, where zeros are not multiplied
_MEASURED = ("seconds", "seconds_min", "seconds_max", "nfe", "ratio", "speedup")
_LIKELIHOODS = {"nll_test": "test NLL", "kl_gap": "KL gap"}

_Timings: TypeAlias = Mapping[tuple[str, str], Timing | str]


def compute(request: Request) -> list[Entry]:
    """The cost of every stage. All that are not known yet are timed together, in turns, with their dense flows."""
    study, settings = request.study, request.settings
    depends = asdict(settings) | {"threads": 1, "processor": processor(), "torch": torch.__version__}
    known = each_stage(request.subjects, KIND, depends, _not_now, Progress("cost", io.StringIO(), bars=False))
    missing = [entry.subject for entry in known if entry.result is None and entry.subject.record.status == DONE]
    timings: _Timings = _time(study, missing, settings, request.progress) if missing else {}
    rows = len(_rows(study, settings.rows, settings.seed)) if missing else settings.rows
    batch = {"rows": rows, "repeats": settings.repeats, "samples_seed": settings.seed}

    def of_stage(subject: Subject, report: Report) -> Result:
        return Result(_values(study, subject, timings) | batch)

    return each_stage(request.subjects, KIND, depends, of_stage, request.progress)


def sheets(study: Study, entries: Sequence[Entry]) -> list[Sheet]:
    """What is counted, what is measured, and the same where zeros are skipped."""
    one = first_values(entries)
    if one is None:
        return [stage_sheet(study, entries, "", (), lambda values: ())]
    done = [entry.result.values for entry in entries if entry.result is not None]
    likelihoods = [name for name in _LIKELIHOODS if any(values[name] is not None for values in done)]
    counts = ("bytes", "bytes_sparse", "macs", "macs_divergence")
    counted = stage_sheet(
        study,
        entries,
        "bytes of the params in memory (sparse: of the surviving ones, matrices by rows); multiply-adds of one "
        "evaluation of f, and of f with its divergence, a row of the batch; test NLL and KL gap in nats, ± s.e.",
        ("bytes", "sparse", "f", "f + div.", *(_LIKELIHOODS[name] for name in likelihoods)),
        lambda values: [*(f"{values[n]:,}" for n in counts), *(fixed(mean_in(values, n), 3) for n in likelihoods)],
    )
    measured = Sheet(
        title="Seconds",
        legend=f"{one['rows']:,} rows, one thread, {one['processor']}: median of {one['repeats']} (fastest-slowest); "
        "speed-up: the dense flow's seconds over the stage's",
        heading=("stage", "NFE log p", "log p (ms)", "speed-up", "NFE sampling", "sampling (ms)", "speed-up"),
        body=tuple((entry.subject.name, *_measured(entry)) for entry in entries),
        label=f"{study.folder.spec.name}-seconds",
        whole_names=True,
        notes=tuple(
            f"not timed: {entry.subject.name}: {entry.result.values['timing_failure']}"
            for entry in entries
            if entry.result is not None and entry.result.values["timing_failure"]
        ),
    )
    return [counted, measured, *_sparse_sheet(study, entries, one)]


def _measured(entry: Entry) -> list[str]:
    values = {} if entry.result is None else entry.result.values
    cells = []
    for way in WAYS:
        if values.get(f"{way}_seconds") is None:
            cells += [NOTHING] * 3
        else:
            cells += [f"{values[f'{way}_nfe']:,}", _spread(values, way), fixed(values[f"{way}_speedup"])]
    return cells


def _sparse_sheet(study: Study, entries: Sequence[Entry], one: Mapping[str, Any]) -> list[Sheet]:
    """The table of those whose zeros were skipped; none where there are none."""
    body = []
    for entry in entries:
        values = {} if entry.result is None else entry.result.values
        if any(values.get(f"{way}{SPARSE}_seconds") is not None for way in WAYS):
            body.append((entry.subject.name, *(cell for way in WAYS for cell in _sparse_cells(values, way))))
    if not body:
        return []
    legend = (
        f"the same with sparse execution of the matrices that are more than {100 * one['break_even']:.0f} % zeros; "
        "speed-up over the dense flow, and over the stage itself as it is above"
    )
    heading = ("stage", "log p (ms)", "dense", "masked", "sampling (ms)", "dense", "masked")
    return [Sheet("Sparse execution", legend, heading, tuple(body), f"{study.folder.spec.name}-sparse")]


def _sparse_cells(values: Mapping[str, Any], way: str) -> list[str]:
    name = f"{way}{SPARSE}"
    if values[f"{name}_seconds"] is None:
        return [NOTHING] * 3
    return [_spread(values, name), *(fixed(values[f"{name}_speedup{end}"]) for end in ("", "_masked"))]


def _spread(values: Mapping[str, Any], way: str) -> str:
    """Milliseconds: median (fastest-slowest)."""
    median, least, most = (1e3 * values[f"{way}_seconds{suffix}"] for suffix in ("", "_min", "_max"))
    digits = 1 if median < 100 else 0
    return f"{median:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


def _not_now(subject: Subject, report: Report) -> Result:
    """What asks the cache alone."""
    raise RunError("not timed yet")


def _dense(study: Study, subject: Subject) -> Subject | None:
    found = [one for one in study.subjects() if one.record.series == DENSE and one.record.seed == subject.record.seed]
    return found[0] if found and found[0].record.status == DONE else None


def _time(study: Study, subjects: Sequence[Subject], settings: CostSettings, progress: Progress) -> _Timings:
    dense = [one for subject in subjects if (one := _dense(study, subject)) is not None]
    points = _rows(study, settings.rows, settings.seed)
    noise = numpy_generator(settings.seed, "analysis/cost/noise").standard_normal(points.shape)
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
    with threads(1):
        timings = in_turns(works, settings.repeats, progress.step)
    progress.close()
    return timings


def _rows(study: Study, rows: int, seed: int) -> np.ndarray:
    # Test rows first; the timing of a table with few of them goes on to the others.
    parts = (study.splits.test, study.splits.validation, study.splits.train)
    generator = numpy_generator(seed, "analysis/cost/rows")
    return np.concatenate([part[generator.permutation(len(part))] for part in parts])[:rows]


def _jobs(study: Study, subject: Subject, points: np.ndarray, noise: np.ndarray) -> dict[str, Job]:
    """The stage's flow as it is, and as "_sparse" where it has zeros enough."""
    flow = subject.flow()
    flows = {"": flow, SPARSE: cost.sparse_execution(flow)}
    dtype = getattr(torch, study.folder.spec.evaluate.dtype)
    return {suffix: Job(one, as_dtype(one, dtype), points, noise) for suffix, one in flows.items() if one is not None}


def _values(study: Study, subject: Subject, timings: _Timings) -> dict[str, Any]:
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
    flow = subject.flow()
    kept = subject.kept(flow)
    path = subject.folder.stage(subject.record.cascade, subject.record.stage) / MODEL
    return {
        "bytes": cost.stored_bytes(flow),
        "bytes_sparse": cost.sparse_bytes(flow, kept),
        "bytes_file": path.stat().st_size,
        "macs": cost.macs(flow),
        "macs_kept": cost.macs_kept(flow, kept),
        "macs_divergence": cost.macs_divergence(flow),
    }


def _seconds(way: str, timing: Timing | str | None, base: Timing | str | None) -> dict[str, Any]:
    found: tuple[float | None, ...] = (None,) * len(_MEASURED)
    if isinstance(timing, Timing):
        seconds, speedup = timing.seconds, _speedup(timing, base)
        spread = map(float, (np.median(seconds), seconds.min(), seconds.max()))
        found = (*spread, timing.nfe, None if speedup is None else 1 / speedup, speedup)
    return {f"{way}_{name}": value for name, value in zip(_MEASURED, found, strict=True)}


def _speedup(timing: Timing | str | None, base: Timing | str | None) -> float | None:
    """How many times as fast as `base`, medians; None where one of them was not timed."""
    if not isinstance(timing, Timing) or not isinstance(base, Timing):
        return None
    return float(np.median(base.seconds) / np.median(timing.seconds))


ANALYSIS = Analysis("cost", compute, sheets)
