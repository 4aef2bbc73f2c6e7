"""The baselines of a run: fitted once for each split of its data, kept in the run folder by what they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.runs.progress import Progress
from analysis.runs.results import Result, read_result, write_result
from analysis.runs.study import Study
from analysis.tabular.baselines import Baseline, fit_baselines
from sparseflows.data.splits import Splits
from sparseflows.errors import Interrupted, SparseFlowsError
from sparseflows.experiment.folder.folder import RUN
from sparseflows.specs.later import known_by

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


def splits_of(study: Study, seed: int) -> Splits:
    """The rows that `seed` of a run was trained and tested on."""
    return study.splits_of(seed)


def data_seed_of(study: Study, seed: int) -> int:
    """The seed of the split that `seed` of a run has."""
    return study.folder.spec.data.seed_for(seed)


def baselines_of(studies: Sequence[Study], progress: Progress) -> dict[str, RunBaselines]:
    """Run folder → its baselines. What cannot be fitted has its reason, and the others go on.

    Raises:
        Interrupted: Ctrl-C; splits that are finished are kept.
    """
    jobs = {
        (study, split): [seed for seed in _seeds(study) if data_seed_of(study, seed) == split]
        for study in studies
        for split in dict.fromkeys(data_seed_of(study, seed) for seed in _seeds(study))
    }
    found: dict[str, RunBaselines] = {}
    progress.start(len(jobs))
    try:
        for (study, split), seeds in jobs.items():
            label = study.path.name + (f", split {split}" if len(seeds) < len(_seeds(study)) else "")
            path = _place(study, split)
            known, reason = read_result(path), None
            cached = known is not None
            try:
                if known is None:
                    progress.begin(label)
                    known = _compute(study, seeds[0], split, progress)
                    write_result(path, known)
            except (SparseFlowsError, ArithmeticError, MemoryError, OSError, ValueError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
            progress.done(label, reason, cached)
            earlier = found.get(str(study.path), RunBaselines({}))
            mine = {} if known is None else dict.fromkeys(seeds, _read(known.values))
            own = len({data_seed_of(study, seed) for seed in _seeds(study)}) > 1
            found[str(study.path)] = RunBaselines(earlier.by_seed | mine, own, earlier.reason or reason)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what is finished is kept, the same command goes on from there") from None
    finally:
        progress.close()
    return found


def _compute(study: Study, seed: int, split: int, progress: Progress) -> Result:
    from sparseflows.evaluation.likelihood import subset

    splits, at_most = splits_of(study, seed), study.folder.spec.evaluate.max_rows
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
    depends = {
        "data": known_by(spec.data),
        "max_rows": spec.evaluate.max_rows,
        "split": split,
        "identity": json.loads((study.path / RUN).read_text(encoding="utf-8")).get("identity"),
    }
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:20]
    return study.path / "analysis" / "cache" / KIND / f"{digest}.npz"


def _seeds(study: Study) -> list[int]:
    return sorted({record.seed for record in study.records})
