"""`analysis modes`: are the samples of every stage good, and are all modes there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
from analysis.cli.modes_text import CLOSENESS, FAR, text
from analysis.plots.modes import mode_quality_arrays, mode_quality_figure
from analysis.runs.progress import Progress
from analysis.runs.results import Entry, Report, Result, analyse
from analysis.runs.study import Study, Subject
from analysis.samples.coverage import LEAST_ROWS, WASSERSTEIN_ROWS, Closeness, closeness
from analysis.samples.modes import DEVIATIONS, Array, ModeQuality, as_values, mode_quality, perfect_share
from sparseflows.data.splits import Splits
from sparseflows.errors import InputError, RunError
from sparseflows.rng import numpy_generator

KIND = "modes2"
SAMPLES, SEED = 20_000, 0


def command(
    runs: Sequence[Path], stage: Sequence[str], samples: int, seed: int, paper: bool, as_json: bool, out: Path | None
) -> None:
    """Print and write the mode quality of `runs`; see `analysis modes --help`."""
    studies = open_studies(runs)
    require_densities(objectives_of(studies), "modes")
    chosen = {study: study.subjects(stage) for study in studies}
    if paper:
        for study in studies:
            _require_modes(study)
    folders = {study: folder_for(study, out, studies) for study in studies}
    progress = Progress("modes")
    found = {study: results(study, chosen[study], samples, seed, paper, progress) for study in studies}
    require_some(found)
    typer.echo(document(found) if as_json else "\n".join(text(*one) for one in found.items()), nl=as_json)
    for study, entries in found.items():
        write_files(folders[study], {"modes.json": document({study: entries}) + "\n"} | files(entries))


def results(
    study: Study,
    subjects: Sequence[Subject],
    samples: int = SAMPLES,
    seed: int = SEED,
    paper: bool = False,
    progress: Progress | None = None,
) -> list[Entry]:
    """Mode quality of every stage.

    Args:
        study: the run.
        subjects: its stages.
        samples: to draw from each.
        seed: of the samples, and of the directions of the sliced Wasserstein distance.
        paper: add the shares by the published distance.
        progress: what the user sees.

    Raises:
        InputError: `paper`, and the data have no modes.
    """
    if paper:
        _require_modes(study)
    truths = {one: _Truth(study, one, samples, seed) for one in dict.fromkeys(s.record.seed for s in subjects)}

    def compute(subject: Subject, report: Report) -> Result:
        return Result(_values(subject, truths[subject.record.seed], paper, report))

    settings = {"samples": samples, "seed": seed, "paper": paper}
    return analyse(subjects, KIND, settings, compute, progress or Progress("modes"))


def files(entries: Sequence[Entry]) -> dict[str, str | bytes]:
    """modes.csv, and the figure where there is a stage to draw."""
    written: dict[str, str | bytes] = {"modes.csv": layout.to_csv(entries)}
    done = [entry for entry in entries if entry.result is not None]
    if done:
        dataset = done[0].subject.record.dataset
        arrays = mode_quality_arrays([entry.document() for entry in done], dataset)
        written |= {f"mode_quality.{kind}": content for kind, content in mode_quality_figure(arrays).items()}
    return written


@dataclass(frozen=True)
class _Truth:
    """What the samples of every stage are compared with; worked out once, when the first stage needs it."""

    study: Study
    run_seed: int
    samples: int
    seed: int

    @property
    def splits(self) -> Splits:
        return self.study.splits_of(self.run_seed)

    @property
    def test(self) -> Array:
        return np.asarray(self.splits.test)

    @property
    def rows(self) -> int:
        """Points on either side of a comparison: flow with test rows, validation rows with test rows."""
        return min(len(self.splits.test), len(self.splits.validation), self.samples, WASSERSTEIN_ROWS)

    @property
    def wanted(self) -> int:
        """Samples to draw: where there are no modes, no more than there are true rows to compare them with."""
        return self.samples if self.splits.modes is not None else self.rows

    def closeness_of(self, points: Array) -> Closeness:
        """Of points against as many test rows; the same directions whatever the points."""
        rows = min(self.rows, len(points))
        return closeness(self.test[:rows], points[:rows], numpy_generator(self.seed, "analysis/closeness"))

    @cached_property
    def closeness(self) -> Closeness | None:
        """Of validation rows against test rows: two independent sets of true rows. None where they are too few."""
        return None if self.rows < LEAST_ROWS else self.closeness_of(np.asarray(self.splits.validation))

    @cached_property
    def quality(self) -> ModeQuality:
        """Of the test rows themselves."""
        assert self.splits.modes is not None
        return mode_quality(self.test, self.splits.modes)

    @cached_property
    def paper_quality(self) -> ModeQuality:
        """The same by the published distance."""
        assert self.splits.modes is not None
        return mode_quality(self.test, self.splits.modes, paper=True)


def _require_modes(study: Study) -> None:
    if study.splits.modes is None:
        raise InputError(
            f"{study.path}: no modes in the data ({study.folder.spec.data.name}); the published distance is one to the "
            "modes of a mixture of Gaussians (gaussians, gaussian_spiral): leave --protocol paper out"
        )


def _values(subject: Subject, truth: _Truth, paper: bool, report: Report) -> dict[str, Any]:
    from sparseflows.evaluation.sampling import draw_standardised

    started = time.perf_counter()
    if truth.splits.modes is None and truth.closeness is None:
        raise RunError(f"{truth.rows} test or validation rows; density and coverage need {LEAST_ROWS} at least")
    dim = truth.splits.test.shape[1]
    points = draw_standardised(subject.flow(), dim, truth.wanted, truth.seed, report)
    # A sample that is lost is near no mode; from what cannot hold it, it is left out.
    lost = ~(np.abs(points).max(1) <= FAR)
    kept = points[~lost]
    if len(kept) < LEAST_ROWS:
        raise RunError(f"{lost.sum()} of {len(points)} samples are infinite or beyond {FAR:,} standard deviations")
    values = _mode_values(np.where(lost[:, None], FAR, points), truth, paper) | _closeness_values(kept, truth)
    return values | {
        "samples": len(points),
        "samples_lost": int(lost.sum()),
        "samples_seed": truth.seed,
        "seconds": time.perf_counter() - started,
    }


def _mode_values(points: Array, truth: _Truth, paper: bool) -> dict[str, Any]:
    modes = truth.splits.modes
    if modes is None:
        names = [f"good_within_{k}{suffix}" for k in DEVIATIONS for suffix in ("", "_se")]
        return dict.fromkeys([*names, "good_se", "modes_captured", "modes_total"])
    quality = mode_quality(points, modes)
    values = as_values(quality, "good") | {
        "good_se": max(quality.se(k) for k in DEVIATIONS),
        "modes_captured": quality.captured,
        "modes_total": quality.total,
        "mode_shares": quality.shares,
    }
    values |= {f"perfect_within_{k}": perfect_share(k, points.shape[1]) for k in DEVIATIONS}
    values |= as_values(truth.quality, "data")
    values |= {"data_modes_captured": truth.quality.captured, "data_rows": truth.quality.samples}
    if paper:
        published = mode_quality(points, modes, paper=True)
        values |= as_values(published, "paper_good") | {"paper_modes_captured": published.captured}
        values |= as_values(truth.paper_quality, "paper_data")
        values |= {"paper_data_modes_captured": truth.paper_quality.captured}
    return values


def _closeness_values(points: Array, truth: _Truth) -> dict[str, Any]:
    reference = truth.closeness
    if reference is None:
        return {}
    found = truth.closeness_of(points)
    values: dict[str, Any] = {}
    for name in CLOSENESS:
        for suffix, one in (("", found), ("_data", reference)):
            values[f"{name}{suffix}"] = getattr(one, name)
            values[f"{name}{suffix}_se"] = getattr(one, f"{name}_se")
    return values | {
        "neighbours": found.neighbours,
        "neighbour_rows": found.rows,
        "wasserstein_rows": found.wasserstein_rows,
    }
