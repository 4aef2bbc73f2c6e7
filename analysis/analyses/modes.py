"""`modes`: are the samples of every stage good, and are all modes there."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.analyses.shape import Analysis, Request, chosen_name, first_values, stage_sheet
from analysis.plots.modes import mode_quality_arrays, mode_quality_figure
from analysis.runs.results import Entry, Report, Result, each_stage
from analysis.runs.study import Study, Subject
from analysis.samples.coverage import LEAST_ROWS, WASSERSTEIN_ROWS, Closeness, closeness
from analysis.samples.modes import DEVIATIONS, Array, as_values, mode_quality, perfect_share
from analysis.tables.numbers import Mean, fixed, mean_in, share
from analysis.tables.sheet import Sheet
from sparseflows.data.splits import Splits
from sparseflows.errors import InputError, RunError
from sparseflows.rng import numpy_generator

KIND = "modes2"
CLOSENESS = ("density", "coverage", "sliced_wasserstein")
FAR = 1000  # standard deviations of the data, in any column: a sample that far out is lost


def compute(request: Request) -> list[Entry]:
    """The mode quality of every stage, from the cache where it is known."""
    settings = request.settings
    seeds = dict.fromkeys(subject.record.seed for subject in request.subjects)
    truths = {one: _Truth(request.study, one, settings.samples, settings.seed) for one in seeds}

    def of_stage(subject: Subject, report: Report) -> Result:
        return Result(_values(subject, truths[subject.record.seed], settings.protocol == "paper", report))

    return each_stage(request.subjects, KIND, settings.document(), of_stage, request.progress)


def check(request: Request) -> None:
    """Refuse the published distance where the data have no modes."""
    if request.settings.protocol == "paper" and request.study.splits.modes is None:
        raise InputError(
            f"{request.study.path}: no modes in the data ({request.study.folder.spec.data.name}); the published "
            "distance is one to the modes of a mixture of Gaussians (gaussians, gaussian_spiral): leave --protocol "
            "paper out"
        )


def figures(request: Request, entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The shares of good samples, or coverage, against the prune ratio."""
    done = [entry for entry in entries if entry.result is not None]
    if done:
        arrays = mode_quality_arrays([entry.document() for entry in done], done[0].subject.record.dataset)
        yield (
            "",
            {
                f"{chosen_name(request, 'mode_quality')}.{kind}": content
                for kind, content in mode_quality_figure(arrays).items()
            },
        )


def sheets(study: Study, entries: Sequence[Entry]) -> list[Sheet]:
    """The reference rows first, then a stage a row; by the published distance too where it was asked for."""
    one = first_values(entries)
    if one is None:
        return [stage_sheet(study, entries, "", (), lambda values: ())]
    lost = _lost(entries)
    if one["modes_total"] is None:
        return [_closeness_sheet(study, entries, one, lost)]
    prefixes = ["", "paper_"] if "paper_good_within_2" in one else [""]
    return [_shares_sheet(study, entries, one, prefix, lost if not prefix else []) for prefix in prefixes]


def _shares_sheet(
    study: Study, entries: Sequence[Entry], one: dict[str, Any], prefix: str, notes: Sequence[str]
) -> Sheet:
    total = one["modes_total"]

    def shares(values: dict[str, Any], name: str, captured: int) -> list[str]:
        return [*(share(mean_in(values, f"{name}_within_{k}")) for k in DEVIATIONS), f"{captured} of {total}"]

    above = [["test rows", *shares(one, f"{prefix}data", one[f"{prefix}data_modes_captured"])]]
    if not prefix:
        above.insert(0, ["perfect sampler", *shares(one, "perfect", total)])
    distance = "published" if prefix else "Mahalanobis"
    return stage_sheet(
        study,
        entries,
        f"% of samples within k sd of the nearest mode ({distance} distance), ± binomial s.e.; {_drawn(one)}",
        (*(f"within {k} sd" for k in DEVIATIONS), "captured"),
        lambda values: shares(values, f"{prefix}good", values[f"{prefix}modes_captured"]),
        above,
        notes,
    )


def _closeness_sheet(study: Study, entries: Sequence[Entry], one: dict[str, Any], notes: Sequence[str]) -> Sheet:
    own = {name: Mean(one[f"{name}_data"], one[f"{name}_data_se"]) for name in CLOSENESS}
    return stage_sheet(
        study,
        entries,
        f"against test rows, {one['neighbour_rows']:,} a side ({one['wasserstein_rows']:,} for the distance, in "
        f"standard deviations), k = {one['neighbours']} neighbours; ± s.e.; the data have no modes; {_drawn(one)}",
        ("density", "coverage", "sliced Wasserstein"),
        lambda values: [fixed(mean_in(values, name), 3) for name in CLOSENESS],
        [["validation rows", *(fixed(mean, 3) for mean in own.values())]],
        notes,
    )


def _drawn(one: dict[str, Any]) -> str:
    return f"{one['samples']:,} samples a stage, seed {one['samples_seed']}"


def _lost(entries: Sequence[Entry]) -> list[str]:
    lost = [
        f"{entry.subject.name} {entry.result.values['samples_lost']:,}"
        for entry in entries
        if entry.result is not None and entry.result.values["samples_lost"]
    ]
    said = f"lost (run off to infinity or beyond {FAR:,} sd; they count as near no mode)"
    return [f"{said}: {', '.join(lost)}"] if lost else []


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
    own = mode_quality(truth.test, modes)
    values |= as_values(own, "data") | {"data_modes_captured": own.captured, "data_rows": own.samples}
    if paper:
        quality, own = (mode_quality(rows, modes, paper=True) for rows in (points, truth.test))
        values |= as_values(quality, "paper_good") | {"paper_modes_captured": quality.captured}
        values |= as_values(own, "paper_data") | {"paper_data_modes_captured": own.captured}
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


ANALYSIS = Analysis("modes", compute, sheets, figures, check)
