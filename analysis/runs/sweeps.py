"""The folder of a sweep stands for all runs in it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import RESULTS
from sparseflows.experiment.folder.folder import SWEEP_INDEX as INDEX


def with_sweeps(given: Sequence[Path]) -> list[Path]:
    """`given` with each folder of a sweep replaced by its runs, those that have begun, in the sweep's order.

    Raises:
        InputError: sweep.json is damaged, or no run of the sweep has begun.
    """
    return [run for path in given for run in (_runs_of(path) if (path / INDEX).is_file() else [path])]


def folder_for_all(runs: Sequence[Path]) -> Path:
    """Where what is about all `runs` goes: into the only one, or into the sweep that they are of.

    Raises:
        InputError: several runs, not of one sweep.
    """
    if len(runs) == 1:
        return runs[0] / "analysis"
    parents = {run.parent for run in runs}
    common = next(iter(parents))
    if len(parents) > 1 or not (common / INDEX).is_file():
        raise InputError(f"{len(runs)} runs, and no folder for what compares them; name one with --out DIR")
    return common / "analysis"


def _runs_of(sweep: Path) -> list[Path]:
    from sparseflows.experiment.sweep.folder import SweepFolder  # with pydantic and NumPy, for sweeps alone

    names = list(SweepFolder(sweep).read_index()["points"])
    found = [sweep / name for name in names if (sweep / name / RESULTS).is_file()]
    if len(found) < len(names):
        print(
            f"{sweep}: {len(names) - len(found)} of {len(names)} runs have not begun, and are left out", file=sys.stderr
        )
    if not found:
        raise InputError(f"{sweep}: no run of this sweep has begun yet")
    return found
