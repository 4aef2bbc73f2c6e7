"""A run folder, read: `spec.yaml` and `results.csv` become typed records, held against those of the stages.

Nothing here averages or formats. An empty cell is None, never a made-up number, and whatever is not as
a run writes it is refused with its line and column: a table over misread rows would look fine.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from sparseflows.errors import InputError
from sparseflows.experiment.folder.records import CASCADE, DENSE, DONE, FAILED, read_csv, read_text
from sparseflows.experiment.folder.records import Record as Stage

# All but the times, which are others where a stage was made again, and words.
_NUMBERS = [field.name for field in fields(Stage) if field.name not in ("train_seconds", "reason")]

__all__ = ["CASCADE", "DENSE", "DONE", "FAILED", "NO_REASON", "Run", "Stage", "read_run", "selected_by"]

NO_REASON = "no reason was recorded"


@dataclass(frozen=True)
class Run:
    """A run folder: where it is, its name, the seeds it was asked for, and its stages in file order."""

    folder: str
    name: str
    seeds: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def dense(self) -> dict[int, Stage]:
        """The dense flow of each seed that has one."""
        return {stage.seed: stage for stage in self.stages if stage.series == DENSE and stage.done}


def selected_by(stage: Stage) -> float:
    """What a stage is chosen by, the lowest first: its validation NLL, or the test NLL of runs that have none."""
    return next((value for value in (stage.nll_val, stage.nll_test) if value is not None), math.inf)


def read_run(folder: Path) -> Run:
    """Read one run folder. Where it holds the stages themselves, not the tables alone, both must say the same.

    Raises:
        InputError: no such folder, not a run folder, nothing finished yet, a file that is malformed, or a row that is
            not what its stage says.
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
    from sparseflows.specs.yaml import parse_yaml  # with pydantic and NumPy, which `--help` does not wait for

    path = folder / "spec.yaml"
    spec = parse_yaml(read_text(path), str(path))
    if not isinstance(spec, dict):
        raise InputError(f"{path}: should hold settings by name (name, seeds, data, …), not {type(spec).__name__}")
    stages = read_csv(folder / "results.csv")
    if (folder / "run.json").is_file() and (folder / "cascades").is_dir():
        stages = _with_the_stages(folder, stages)
    asked = spec.get("seeds")
    seeds = {seed for seed in asked if isinstance(seed, int)} if isinstance(asked, list) else set()
    return Run(
        folder=str(folder),
        name=str(spec.get("name") or folder.resolve().name),
        seeds=tuple(sorted(seeds | {stage.seed for stage in stages})),
        stages=tuple(stages),
    )


def _with_the_stages(folder: Path, rows: list[Stage]) -> list[Stage]:
    """The rows, each held against its stage's own record; stages that have no row yet are put among them."""
    # With pydantic and NumPy, which `--help` does not wait for.
    from sparseflows.experiment.folder.folder import RunFolder
    from sparseflows.experiment.folder.sequences import stages as stages_of_run

    run = RunFolder.open(folder)
    records = {(one.cascade, one.stage): one for one in run.records()}
    order = {(name.cascade, name.stage): k for k, name in enumerate(stages_of_run(run.spec))}
    for row in rows:
        if (row.cascade, row.stage) not in order:
            raise InputError(
                f"{folder / 'results.csv'}: {row.cascade}/{row.stage} is no stage of this run's settings; "
                "`sparseflows run` with the same settings writes it again"
            )
        record = records.pop((row.cascade, row.stage), None)
        differs = [name for name in _NUMBERS if record is not None and _cell(row, name) != _cell(record, name)]
        if differs:
            raise InputError(
                f"{folder / 'results.csv'}: {differs[0]} of {row.cascade}/{row.stage} is {_cell(row, differs[0])}, but "
                f"the stage says {_cell(record, differs[0])}; `sparseflows run` with the same settings writes it again"
            )
    if not records:
        return rows
    return sorted([*rows, *records.values()], key=lambda one: order.get((one.cascade, one.stage), len(order)))


def _cell(stage: Stage | None, name: str) -> object:
    """A number of a stage; None where it is none."""
    value: object = getattr(stage, name)
    return None if value != value else value
