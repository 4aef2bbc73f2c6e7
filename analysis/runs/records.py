"""A run folder, read: `spec.yaml` and `results.csv` become typed records.

Nothing here averages or formats. An empty cell is None, never a made-up number, and whatever is not as
a run writes it is refused with its line and column: a table over misread rows would look fine.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError
from sparseflows.experiment.folder.records import series_name

DENSE = "dense"
DONE = "done"
FAILED = "failed"

_COLUMNS = (
    *("dataset", "objective", "protocol", "method", "seed", "stage", "status", "reason"),
    *("keep_ratio_target", "prune_ratio", "params", "params_dense"),
    *("nll_val", "nll_test", "nll_test_se", "n_test", "nll_train", "kl_gap", "kl_gap_se"),
    *("accuracy_test", "loss_test", "nfe", "train_steps", "train_seconds"),
)
_LATER = ("loss_val", "steps_total")  # columns that older runs lack
_AS_WRITTEN = "it should be as the run wrote it"


@dataclass(frozen=True)
class Stage:
    """One row of `results.csv`. NLLs and KL gaps in nats; None where the column does not apply.

    `loss_val` (a classifier's, nats) and `steps_total` (training steps behind the weights, all stages before
    included) are None too where the file has no such column.
    """

    dataset: str
    objective: str
    protocol: str | None
    method: str
    seed: int
    stage: int
    status: str
    reason: str | None
    keep_ratio_target: float | None
    prune_ratio: float | None
    params: int | None
    params_dense: int | None
    nll_val: float | None
    nll_test: float | None
    nll_test_se: float | None
    n_test: int | None
    nll_train: float | None
    kl_gap: float | None
    kl_gap_se: float | None
    accuracy_test: float | None
    loss_test: float | None
    nfe: float | None
    train_steps: int | None
    train_seconds: float | None
    loss_val: float | None = None
    steps_total: int | None = None

    @property
    def series(self) -> str:
        """The method; of another protocol than the cascade `<protocol>.<method>`."""
        return series_name(self.method, self.protocol)

    @property
    def done(self) -> bool:
        """Whether the stage finished and its numbers count."""
        return self.status == DONE


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, its name, the seeds it was asked for, and its stages in file order."""

    folder: str
    name: str
    seeds: tuple[int, ...]
    stages: tuple[Stage, ...]


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        InputError: no such folder, not a run folder, nothing finished yet, or a file that is malformed.
    """
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; give a folder that 'sparseflows run' wrote")
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; give the run folder, not a file in it")
    missing = [name for name in ("spec.yaml", "results.csv") if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: not a run folder; it has no {' and no '.join(missing)}, and 'sparseflows run' writes both"
        )
    spec = _read_spec(folder / "spec.yaml")
    stages = _read_results(folder / "results.csv")
    asked = spec.get("seeds")
    seeds = {seed for seed in asked if isinstance(seed, int)} if isinstance(asked, list) else set()
    return Run(
        folder=str(folder),
        name=str(spec.get("name") or folder.resolve().name),
        seeds=tuple(sorted(seeds | {stage.seed for stage in stages})),
        stages=tuple(stages),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); {_AS_WRITTEN}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it should be readable") from error


def _read_spec(path: Path) -> dict[str, Any]:
    import yaml

    try:
        spec = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML; {_AS_WRITTEN}") from error
    if not isinstance(spec, dict):
        raise InputError(f"{path}: should hold settings by name (name, seeds, data, …), not {type(spec).__name__}")
    return spec


def _read_results(path: Path) -> list[Stage]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    try:
        header = reader.fieldnames
        if header is not None:
            _check_header(path, header)
        stages: list[Stage] = []
        first_line: dict[tuple[object, ...], int] = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            stage = _stage(where, row)
            key = (stage.dataset, stage.objective, stage.protocol, stage.method, stage.seed, stage.stage)
            if key in first_line:
                raise InputError(
                    f"{where}: repeats line {first_line[key]} ({stage.method}, seed {stage.seed}, "
                    f"stage {stage.stage}); there should be one row a stage"
                )
            first_line[key] = reader.line_num
            stages.append(stage)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}); {_AS_WRITTEN}") from error
    if not stages:
        raise InputError(f"{path}: empty, no stage has finished yet; wait for the run, or start it again")
    return stages


def _check_header(path: Path, header: Iterable[str]) -> None:
    # Columns that are not known are ignored: a later version may add some.
    missing = [name for name in _COLUMNS if name not in set(header)]
    if missing:
        raise InputError(
            f"{path}, line 1: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; {_AS_WRITTEN}"
        )


class _Cells:
    """The cells of one row, parsed on demand; `where` names the file and the line in every error."""

    def __init__(self, where: str, row: Mapping[Any, Any]) -> None:
        if None in row or None in row.values():
            count = "more" if None in row else "fewer"
            raise InputError(f"{where}: has {count} cells than the header has columns; {_AS_WRITTEN}")
        self.where = where
        self.cells = {name: " ".join(row.get(name, "").split()) for name in (*_COLUMNS, *_LATER)}

    def text(self, name: str) -> str | None:
        return self.cells[name] or None

    def needed(self, name: str) -> str:
        if not self.cells[name]:
            raise InputError(f"{self.where}: {name} is empty; this row needs one")
        return self.cells[name]

    def whole(self, name: str, low: int = 0) -> int | None:
        return None if not self.cells[name] else int(self._parse(name, int, low, math.inf))

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        return None if not self.cells[name] else self._parse(name, float, low, high)

    def _parse(self, name: str, kind: type[int] | type[float], low: float, high: float) -> float:
        try:
            value = kind(self.cells[name])
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            noun = "a whole number" if kind is int else "a finite number"
            bounds = [f"at least {low:g}"] * math.isfinite(low) + [f"at most {high:g}"] * math.isfinite(high)
            wanted = ", ".join([noun, " and ".join(bounds)] if bounds else [noun])
            raise InputError(f"{self.where}: {name} is '{self.cells[name]}'; it should be {wanted}")
        return value


def _stage(where: str, row: Mapping[Any, Any]) -> Stage:
    cells = _Cells(where, row)
    status = cells.needed("status")
    if status not in (DONE, FAILED):
        raise InputError(f"{where}: status is '{status}'; it should be '{DONE}' or '{FAILED}'")
    for name in ("seed", "stage", *(("params", "prune_ratio") if status == DONE else ())):
        cells.needed(name)
    return Stage(
        dataset=cells.needed("dataset"),
        objective=cells.needed("objective"),
        protocol=cells.text("protocol"),
        method=cells.needed("method"),
        seed=cells.whole("seed") or 0,
        stage=cells.whole("stage") or 0,
        status=status,
        reason=cells.text("reason"),
        keep_ratio_target=cells.number("keep_ratio_target", 0.0, 1.0),
        prune_ratio=cells.number("prune_ratio", 0.0, 1.0),
        params=cells.whole("params", 1),
        params_dense=cells.whole("params_dense", 1),
        nll_val=cells.number("nll_val"),
        nll_test=cells.number("nll_test"),
        nll_test_se=cells.number("nll_test_se", 0.0),
        n_test=cells.whole("n_test"),
        nll_train=cells.number("nll_train"),
        kl_gap=cells.number("kl_gap"),
        kl_gap_se=cells.number("kl_gap_se", 0.0),
        accuracy_test=cells.number("accuracy_test", 0.0, 1.0),
        loss_test=cells.number("loss_test"),
        nfe=cells.number("nfe", 0.0),
        train_steps=cells.whole("train_steps"),
        train_seconds=cells.number("train_seconds", 0.0),
        loss_val=cells.number("loss_val"),
        steps_total=cells.whole("steps_total"),
    )
