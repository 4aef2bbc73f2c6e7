"""The baselines of a run: fitted once for each split of its data, kept in the run folder by what they depend on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.runs.groups import grouped
from analysis.runs.progress import Progress
from analysis.runs.results import Result, cache_place, in_one_line, read_result, write_result
from analysis.runs.study import Study
from analysis.tabular.baselines import Baseline, fit_baselines
from sparseflows.errors import SparseFlowsError
from sparseflows.experiment.folder.identity import identity_of
from sparseflows.specs.section import known_by

KIND = "baselines1"


@dataclass(frozen=True)
class SplitBaselines:
    """The baselines of one split; `n_test` counts its test rows, `n_scored` those that were scored."""

    baselines: tuple[Baseline, ...]
    n_train: int
    n_test: int
    n_scored: int


@dataclass(frozen=True)
class RunBaselines:
    """The baselines of a run, by seed; seeds that share a split share them. `reason` says why there are none."""

    by_seed: dict[int, SplitBaselines]
    own_splits: bool = False
    reason: str | None = None


def baselines_of(studies: Sequence[Study], progress: Progress) -> dict[str, RunBaselines]:
    """Run folder → its baselines. What cannot be fitted has its reason, and the others go on.

    Raises:
        Interrupted: Ctrl-C; splits that are finished are kept.
    """
    found = {str(study.path): RunBaselines({}, len(_splits(study)) > 1) for study in studies}
    jobs = [(study, split, seeds) for study in studies for split, seeds in _splits(study).items()]
    with progress.over(len(jobs)):
        for study, split, seeds in jobs:
            mine = found[str(study.path)]
            label = study.path.name + (f", split {split}" if mine.own_splits else "")
            path = _place(study, split)
            known, reason = read_result(path), None
            cached = known is not None
            try:
                if known is None:
                    progress.begin(label)
                    known = _compute(study, seeds[0], split, progress)
                    write_result(path, known)
            except (SparseFlowsError, ArithmeticError, MemoryError, OSError, ValueError) as error:
                reason = in_one_line(error)
            progress.done(label, reason, cached)
            fitted = {} if known is None else dict.fromkeys(seeds, _read(known.values))
            found[str(study.path)] = replace(mine, by_seed=mine.by_seed | fitted, reason=mine.reason or reason)
    return found


def _compute(study: Study, seed: int, split: int, progress: Progress) -> Result:
    from sparseflows.evaluation.likelihood import subset

    splits, at_most = study.splits_of(seed), study.folder.spec.evaluate.max_rows
    validation, test = (
        np.asarray(subset(rows, at_most, split, name))
        for rows, name in ((splits.validation, "validation"), (splits.test, "test"))
    )
    slope = splits.standardiser.log_slope
    fitted = fit_baselines(np.asarray(splits.train), validation, test, split, progress.step, slope)
    sizes = {"n_train": len(splits.train), "n_test": len(splits.test), "n_scored": len(test)}
    return Result({"baselines": [asdict(one) for one in fitted]} | sizes)


def _read(values: dict[str, Any]) -> SplitBaselines:
    sizes = {name: int(values[name]) for name in ("n_train", "n_test", "n_scored")}
    return SplitBaselines(
        tuple(Baseline(**(one | {"notes": tuple(one["notes"])})) for one in values["baselines"]), **sizes
    )


def _place(study: Study, split: int) -> Path:
    # The run's identity holds the digest of the user's own file, so that rows need not be read to know them.
    spec = study.folder.spec
    depends = {"data": known_by(spec.data), "max_rows": spec.evaluate.max_rows, "split": split}
    return cache_place(study.path, KIND, depends | {"identity": identity_of(study.path)})


def _splits(study: Study) -> dict[int, list[int]]:
    """The seed of each split of the run's data, and the run's own seeds that have it."""
    seeds = sorted({record.seed for record in study.records})
    return grouped(seeds, study.folder.spec.data.seed_for)
