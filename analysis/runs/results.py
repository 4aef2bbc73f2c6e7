"""Results of one analysis, a stage at a time: computed once, kept in the run folder by what they depend on."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.runs.progress import Progress
from analysis.runs.study import Subject
from sparseflows.errors import InputError, SparseFlowsError, is_out_of_memory
from sparseflows.experiment.folder.records import DONE, FAILED
from sparseflows.files import output_folder, write_whole
from sparseflows.specs.section import known_by

Report = Callable[[int, int], None]  # so many steps done, of so many


@dataclass(frozen=True)
class Result:
    """What an analysis found of one stage: values that JSON can hold, and arrays for figures."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One stage and its result, or the reason why it has none."""

    subject: Subject
    result: Result | None
    reason: str | None = None
    cached: bool = False

    @property
    def status(self) -> str:
        """`done` or `failed`."""
        return FAILED if self.result is None else DONE

    def document(self) -> dict[str, Any]:
        """The stage as a JSON object: what it is, and the values."""
        record = self.subject.record
        head = {
            "method": record.series,
            "seed": record.seed,
            "stage": record.stage,
            "status": self.status,
            "prune_ratio": record.prune_ratio,
            "params": record.params,
        }
        if self.result is None:
            return head | {"reason": self.reason}
        return head | self.result.values | {"cached": self.cached}


def each_stage(
    subjects: Sequence[Subject],
    kind: str,
    settings: Mapping[str, Any],
    compute: Callable[[Subject, Report], Result],
    progress: Progress,
) -> list[Entry]:
    """`compute` for every stage that has no result of the same kind, settings and weights yet.

    A stage that fails, in the run or here, is told with its reason, and the others go on. What is finished
    when the work is interrupted is kept.

    `kind` is the name of the analysis, with a number after it that rises when its results change their meaning;
    `settings` is everything else that the result depends on, JSON values all.

    Raises:
        InputError: what the user asked for is wrong for a stage.
        Interrupted: Ctrl-C.
    """

    def one(subject: Subject) -> Entry:
        if subject.record.status != DONE:
            return Entry(subject, None, f"failed in the run: {subject.record.reason}")
        try:
            path = place_of(subject, kind, settings)
            known = read_result(path)
            if known is not None:
                return Entry(subject, known, cached=True)
            progress.begin(subject.name)
            result = compute(subject, progress.step)
        except InputError:
            raise
        except (SparseFlowsError, ArithmeticError, MemoryError, OSError, np.linalg.LinAlgError) as error:
            return Entry(subject, None, in_one_line(error))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return Entry(subject, None, "out of memory")  # PyTorch has no exception of its own for that on a CPU
        write_result(path, result)
        return Entry(subject, result)

    entries: list[Entry] = []
    with progress.over(len(subjects)):
        for subject in subjects:
            entries.append(one(subject))
            progress.done(subject.name, entries[-1].reason, entries[-1].cached)
    return entries


def is_known(subject: Subject, kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether `each_stage` would find that stage's result."""
    return read_result(place_of(subject, kind, settings)) is not None


def place_of(subject: Subject, kind: str, settings: Mapping[str, Any]) -> Path:
    """The file in the run folder of a stage's result of that kind and those settings.

    Raises:
        RunError: the stage's weights cannot be read.
    """
    spec = subject.folder.spec
    depends = {"kind": kind, "settings": dict(settings), "weights": subject.digest()}
    depends |= {"data": known_by(spec.data), "evaluate": known_by(spec.evaluate)}
    return cache_place(subject.folder.path, kind, depends, f"{subject.record.cascade}-{subject.record.stage}-")


def cache_place(run: Path, kind: str, depends: Mapping[str, Any], name: str = "") -> Path:
    """The file of a result that depends on such things, JSON values all; `name` goes ahead of their digest."""
    digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:20]
    return run / "analysis" / "cache" / kind / f"{name}{digest}.npz"


def in_one_line(error: BaseException) -> str:
    """What went wrong, for a table; the name of the error where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def read_result(path: Path) -> Result | None:
    """What `write_result` wrote; None where there is nothing, or nothing that can be read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return Result(dict(json.loads(str(arrays.pop("values")))), arrays)
    except Exception:  # a damaged archive raises a dozen kinds, zlib's and struct's own among them
        return None


def write_result(path: Path, result: Result) -> None:
    """Write `result` to one file, whole or not at all."""
    output_folder(path.parent, remedy="analyses keep their results in the run folder; make it writable")
    buffer = io.BytesIO()
    # NumPy's own scalars are let in: a result that took an hour is not lost for being of the wrong type.
    values = np.array(json.dumps(result.values, allow_nan=False, default=lambda scalar: scalar.item()))
    np.savez_compressed(buffer, values=values, **result.arrays)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())
