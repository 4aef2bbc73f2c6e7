"""The stages in a run folder: written whole or not at all, checked when they are read, set aside where damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparseflows.distributed.processes import ALONE, Processes, by_first
from sparseflows.errors import DiskError, RunError
from sparseflows.experiment.folder.identity import RUN
from sparseflows.experiment.folder.records import Record, place_of, to_csv
from sparseflows.experiment.folder.sequences import stages
from sparseflows.files import is_as_sealed, make_folder, move_aside, sealed, sha256, write_whole
from sparseflows.specs import Spec

RESULTS, METRICS = "results.csv", "metrics.jsonl"
RECORD, MODEL, MASKS = "record.json", "model.safetensors", "masks.safetensors"
NOTICEABLE = 0.05  # seconds


class DamagedStage(RunError):
    """A stage whose files are not what was written."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(f"{folder / name}: missing or damaged")
        self.folder, self.name = folder, name

    def __reduce__(self) -> tuple[type[DamagedStage], tuple[Path, str]]:
        return type(self), (self.folder, self.name)  # from a worker process to its parent


class StageFiles:
    """The stages of one run; of the `processes` that train its flows together the first one alone reads and writes."""

    def __init__(self, path: Path, spec: Spec, processes: Processes = ALONE) -> None:
        self.path, self.spec, self.processes = path, spec, processes
        self._not_before = 0.0  # the next refresh of the tables

    def cascade(self, name: str) -> Path:
        """Folder of one cascade."""
        return self.path / "cascades" / name

    def stage(self, cascade: str, stage: int) -> Path:
        """Folder of one stage."""
        return self.cascade(cascade) / "stages" / str(stage)

    @by_first
    def require_there(self) -> None:
        """Raise DiskError where the run folder was moved or removed: what is made in its place is no run folder."""
        if not (self.path / RUN).is_file():
            raise DiskError(f"{self.path}: no longer there; was it moved or removed while the run was at work?")

    @by_first
    def write_stage(self, record: Record, tensors: dict[str, bytes], metrics: list[dict[str, Any]]) -> None:
        """Put a stage in its place in one rename, then refresh results.csv and metrics.jsonl."""
        self.require_there()
        final = self.stage(record.cascade, record.stage)
        beside = final.with_name(f".writing-{record.stage}")
        shutil.rmtree(beside, ignore_errors=True)
        make_folder(beside)
        for name, content in tensors.items():
            write_whole(beside / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in tensors.items()}
        document = {**vars(record), "metrics": metrics, "sha256": digests}
        write_whole(beside / RECORD, json.dumps(sealed(document), indent=1))
        try:
            os.rename(beside, final)
            _sync_folder(final.parent)
        except OSError as error:
            raise DiskError(f"{final}: could not be written ({error.strerror})") from error
        self._refresh_results()

    @by_first
    def read_stage(self, cascade: str, stage: int) -> Record | None:
        """The record of a whole stage; None where there is none.

        Raises:
            DamagedStage: its files are not what was written.
        """
        folder = self.stage(cascade, stage)
        if not folder.is_dir():
            return None
        document = _document(folder)
        for name, digest in document["sha256"].items():
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                raise DamagedStage(folder, name)
        return Record.from_dict(document)

    def peek(self, cascade: str, stage: int) -> Record | None:
        """The record of a stage, its files unchecked; None where there is none. Raises as `read_stage`."""
        folder = self.stage(cascade, stage)
        return Record.from_dict(_document(folder)) if folder.is_dir() else None

    def metrics(self, cascade: str, stage: int) -> list[dict[str, Any]]:
        """The lines of a whole stage in metrics.jsonl, without its name.

        Raises:
            DamagedStage: its record is missing or not what was written.
        """
        return list(_document(self.stage(cascade, stage))["metrics"])

    @by_first
    def set_aside(self, damaged: Path) -> Path:
        """Rename a damaged stage or checkpoint out of the way; nothing is deleted. Gives its new path."""
        return move_aside(damaged, ".damaged-{n}-{name}")

    @by_first
    def records(self) -> list[Record]:
        """Records of all whole stages: by seed, then in the order of the methods, then by stage."""
        return [Record.from_dict(document) for document in self._documents()]

    @by_first
    def write_results(self) -> None:
        """results.csv and metrics.jsonl, made anew from the stages that are there."""
        documents = list(self._documents())
        write_whole(self.path / RESULTS, to_csv(Record.from_dict(document) for document in documents))
        write_whole(self.path / METRICS, "".join(f"{line}\n" for one in documents for line in _lines(one)))

    def metric_lines(self) -> list[str]:
        """The lines of metrics.jsonl, from the stages themselves.

        Raises:
            DamagedStage: the record of one is missing or not what was written.
        """
        folders = [self.stage(name.cascade, name.stage) for name in stages(self.spec)]
        return [line for folder in folders if folder.is_dir() for line in _lines(_document(folder))]

    def settle(self) -> list[Record]:
        """`records`; the tables are made anew where they are of others: two workers may have written them at once."""
        found = self.records()
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (self.path / RESULTS).read_text(encoding="utf-8") == to_csv(found):
                return found
        self.write_results()
        return found

    def _refresh_results(self) -> None:
        """`write_results`, but in runs of thousands of stages only now and then: it reads them all."""
        if time.monotonic() < self._not_before:
            return
        started = time.monotonic()
        self.write_results()
        spent = time.monotonic() - started
        if spent > NOTICEABLE:
            self._not_before = time.monotonic() + 50 * spent

    def _documents(self) -> Iterator[dict[str, Any]]:
        for name in stages(self.spec):
            folder = self.stage(name.cascade, name.stage)
            if folder.is_dir():
                with contextlib.suppress(DamagedStage):  # told and repaired when the stage is needed
                    yield _document(folder)


def _document(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, TypeError):
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if {"status", "sha256", "metrics"} <= set(document) and is_as_sealed(document):
            return dict(document)
    raise DamagedStage(folder, RECORD)


def _lines(document: dict[str, Any]) -> list[str]:
    """What a stage has in metrics.jsonl."""
    return [json.dumps(place_of(document) | metric) for metric in document["metrics"]]


def _sync_folder(path: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
