"""Run folders: found by their settings, locked while in use, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.distributed.processes import ALONE, Processes
from sparseflows.errors import DiskError, InputError, RunError
from sparseflows.experiment.folder.locks import Signature, hold_cascade
from sparseflows.experiment.folder.records import CASCADE, DENSE, Record, cascade_name, to_csv
from sparseflows.experiment.folder.run_lock import LOCK, hold_folder
from sparseflows.files import make_folder, write_whole
from sparseflows.specs import FORMAT, Spec
from sparseflows.specs.yaml import dump_spec, parse_yaml, validate

SPEC, RUN, DATA, RESULTS, METRICS = "spec.yaml", "run.json", "data.json", "results.csv", "metrics.jsonl"
SWEEP_INDEX = "sweep.json"  # what the folder of a sweep has in their place
RECORD, MODEL, MASKS = "record.json", "model.safetensors", "masks.safetensors"
NOTICEABLE = 0.05  # seconds


def identity(spec: Spec, data_fingerprint: str | None) -> str:
    """What makes two runs the same run: every setting, and the bytes of the user's own table."""
    text = json.dumps([spec.model_dump(), data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class RunFolder:
    """One run folder. Reading needs no lock; `sparseflows run` holds one while it writes.

    Attributes:
        processes: that train its flows together (`together.SharedFolder`).
    """

    processes: Processes = ALONE

    def __init__(self, path: Path, spec: Spec) -> None:
        self.path, self.spec = path, spec
        self._not_before = 0.0  # the next refresh of the tables

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder.

        Raises:
            InputError: not a run folder, or one of another version.
        """
        if not os.path.isdir(path):  # unlike Path.is_dir, no exception where we may not look
            raise InputError(f"{path}: no such run folder; give the folder that `sparseflows run` wrote")
        if os.path.isfile(path / SWEEP_INDEX):
            raise InputError(f"{path}: the folder of a sweep; give one of the runs in it")
        if not os.path.isfile(path / SPEC) or not os.path.isfile(path / RUN):
            raise InputError(
                f"{path}: not a run folder (it has no {SPEC} and {RUN}); give the one `sparseflows run` wrote"
            )
        _check_format(path)
        try:
            document = parse_yaml((path / SPEC).read_text(encoding="utf-8"), str(path / SPEC))
        except (OSError, UnicodeDecodeError):
            document = None
        if not isinstance(document, dict):
            raise InputError(f"{path / SPEC}: damaged; not the settings of a run")
        return cls(path, validate(document, str(path / SPEC)))

    @classmethod
    def claim(cls, out: Path, spec: Spec, data_fingerprint: str | None, *, force: bool = False) -> RunFolder:
        """The folder of this experiment below `out`: the one that these settings made before, or a new one.

        It is `out/<name>`, or `out/<name>-<8 hex digits of the settings>` where another experiment has that
        name already. With `force` what these settings made before is moved to `<folder>.old-<n>`.
        """
        wanted = identity(spec, data_fingerprint)
        paths = _places(out, spec, wanted)
        for path in paths:
            if _identity_of(path) == wanted:
                if not force:
                    _mend_spec(path, spec)
                    return cls(path, spec)
                with cls(path, spec).lock():  # nobody is writing there
                    move_aside(path)
        for path in paths:
            if not os.path.exists(path):
                _create(path, spec, wanted, data_fingerprint)
            if _identity_of(path) == wanted:
                return cls(path, spec)
        raise InputError(f"{path}: taken by something else; give another folder with --out")

    @classmethod
    def at(cls, path: Path, spec: Spec, data_fingerprint: str | None) -> RunFolder:
        """The folder of this experiment at `path` itself, made where it is missing.

        Raises:
            InputError: something else is there.
            DiskError: it cannot be made.
        """
        wanted = identity(spec, data_fingerprint)
        if not os.path.exists(path):
            try:
                _create(path, spec, wanted, data_fingerprint)
            except InputError as error:
                raise DiskError(str(error)) from None
        elif _identity_of(path) == wanted:
            _mend_spec(path, spec)
        if _identity_of(path) != wanted:
            raise InputError(f"{path}: taken by something else; give another folder with --out")
        return cls(path, spec)

    @classmethod
    def place(cls, out: Path, spec: Spec, data_fingerprint: str | None) -> Path:
        """Where `claim` would put this experiment, as the folders are now; nothing is made."""
        wanted = identity(spec, data_fingerprint)
        first, second = _places(out, spec, wanted)
        return first if _identity_of(first) == wanted or not os.path.exists(first) else second

    @contextlib.contextmanager
    def lock(self, join: bool = False) -> Iterator[None]:
        """Hold the folder against other runs; the lock goes with the process, however that ends.

        Args:
            join: share it with other runs; what keeps them apart are the locks of the cascades.

        Raises:
            InputError: another run holds it, or the folder cannot be written to.
        """
        with hold_folder(self.path, functools.partial(remove_litter, self.path), join):
            yield

    @contextlib.contextmanager
    def share_lock(self) -> Iterator[None]:
        """Hold the folder as a worker of the process that locked it, so that it stays held should that be killed."""
        try:
            stream = (self.path / LOCK).open("a+")
        except OSError as error:
            raise DiskError(f"{self.path / LOCK}: could not be written ({error.strerror})") from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def hold(self, cascade: str, describe: Callable[[], Signature] = dict, wait: bool = True) -> Iterator[bool]:
        """Hold a cascade against other workers; see `locks.hold_cascade`."""
        with hold_cascade(self.cascade(cascade), describe, wait) as held:
            yield held

    def cascade(self, name: str) -> Path:
        """Folder of one cascade."""
        return self.path / "cascades" / name

    def stage(self, cascade: str, stage: int) -> Path:
        """Folder of one stage."""
        return self.cascade(cascade) / "stages" / str(stage)

    def began_with(self, data_fingerprint: str | None) -> bool:
        """Whether the files of the run's data were known by that when it began; folders that do not say: yes."""
        stored = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        return "data" not in stored or stored["data"] == data_fingerprint

    def data_digest(self) -> str | None:
        """What the files of the run's data were known by when it began; None where there are none."""
        stored = json.loads((self.path / RUN).read_text(encoding="utf-8")).get("data")
        return None if stored is None else str(stored)

    def write_data(self, description: dict[str, Any]) -> None:
        """Keep the statistics of the data: `score`, `map` and `sample` need them, the rows they do not."""
        write_whole(self.path / DATA, json.dumps(description, indent=1))

    def read_data(self) -> dict[str, Any]:
        """What `write_data` kept."""
        try:
            found = dict(json.loads((self.path / DATA).read_text(encoding="utf-8")))
            if not {"shift", "scale"} <= set(found):
                raise ValueError("no statistics in it")
            return found
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.path / DATA}: missing or damaged ({error}); run the experiment again") from None

    def standardiser(self, seed: int) -> Standardiser:
        """Of the rows that `seed` was trained on.

        Raises:
            InputError: data.json is missing or damaged.
        """
        found = self.read_data()
        return Standardiser.from_dict(found.get("seeds", {}).get(str(seed), found))

    def write_stage(self, record: Record, tensors: dict[str, bytes], metrics: list[dict[str, Any]]) -> None:
        """Put a stage in its place in one rename, then refresh results.csv and metrics.jsonl."""
        final = self.stage(record.cascade, record.stage)
        beside = final.with_name(f".writing-{record.stage}")
        shutil.rmtree(beside, ignore_errors=True)
        make_folder(beside)
        digests = {}
        for name, content in tensors.items():
            write_whole(beside / name, content)
            digests[name] = hashlib.sha256(content).hexdigest()
        document = {**record.__dict__, "metrics": metrics, "sha256": digests}
        write_whole(beside / RECORD, json.dumps(document, indent=1))
        try:
            os.rename(beside, final)
            _sync_folder(final.parent)
        except OSError as error:
            raise DiskError(f"{final}: could not be written ({error.strerror})") from error
        self._refresh_results()

    def read_stage(self, cascade: str, stage: int) -> Record | None:
        """The record of a whole stage; None where there is none.

        Raises:
            DamagedStage: its files are not what was written.
        """
        folder = self.stage(cascade, stage)
        if not folder.is_dir():
            return None
        document = self._document(folder)
        for name, digest in document["sha256"].items():
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                raise DamagedStage(folder, name)
        return Record.from_dict(document)

    def peek(self, cascade: str, stage: int) -> Record | None:
        """The record of a stage, its files unchecked; None where there is none. Raises as `read_stage`."""
        folder = self.stage(cascade, stage)
        return Record.from_dict(self._document(folder)) if folder.is_dir() else None

    def is_there(self, cascade: str, stage: int) -> bool:
        """Whether a stage has been put in its place, whole or damaged since."""
        return os.path.isdir(self.stage(cascade, stage))

    def metrics(self, cascade: str, stage: int) -> list[dict[str, Any]]:
        """The lines of a whole stage in metrics.jsonl, without its name.

        Raises:
            DamagedStage: its record is missing or not what was written.
        """
        return list(self._document(self.stage(cascade, stage))["metrics"])

    def set_aside(self, damaged: Path) -> Path:
        """Rename a damaged stage or checkpoint out of the way; nothing is deleted."""
        n = 1
        while (aside := damaged.with_name(f".damaged-{n}-{damaged.name}")).exists():
            n += 1
        os.rename(damaged, aside)
        return aside

    def records(self) -> list[Record]:
        """Records of all whole stages: by seed, then in the order of the methods, then by stage."""
        return [Record.from_dict(document) for document in self._documents()]

    def _refresh_results(self) -> None:
        """`write_results`, but in runs of thousands of stages only now and then: it reads them all."""
        if time.monotonic() < self._not_before:
            return
        started = time.monotonic()
        self.write_results()
        spent = time.monotonic() - started
        if spent > NOTICEABLE:
            self._not_before = time.monotonic() + 50 * spent

    def settle(self) -> list[Record]:
        """`records`; the tables are made anew where they are of others: two workers may have written them at once."""
        found = self.records()
        try:
            current = (self.path / RESULTS).read_text(encoding="utf-8") == to_csv(found)
        except (OSError, UnicodeDecodeError):
            current = False
        if not current:
            self.write_results()
        return found

    def write_results(self) -> None:
        """results.csv and metrics.jsonl, made anew from the stages that are there."""
        documents = list(self._documents())
        write_whole(self.path / RESULTS, to_csv(Record.from_dict(document) for document in documents))
        lines = [json.dumps(_place(d) | metric) for d in documents for metric in d["metrics"]]
        write_whole(self.path / METRICS, "".join(line + "\n" for line in lines))

    def _documents(self) -> Iterator[dict[str, Any]]:
        for seed in self.spec.seeds:
            for protocol, method in ((CASCADE, DENSE), *self.spec.prune.sequences()):
                dense = (protocol, method) == (CASCADE, DENSE)
                for stage in range(1 if dense else len(self.spec.prune.keep_ratios) + 1):
                    folder = self.stage(cascade_name(method, seed, protocol), stage)
                    if folder.is_dir():
                        with contextlib.suppress(DamagedStage):  # told and repaired when the stage is needed
                            yield self._document(folder)

    @staticmethod
    def _document(folder: Path) -> dict[str, Any]:
        try:
            document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if {"status", "sha256", "metrics"} <= set(document):
                return dict(document)
        except (OSError, ValueError, TypeError):
            pass
        raise DamagedStage(folder, RECORD)


def remove_litter(run: Path) -> None:
    """Remove what killed processes had begun to write in a run folder; for who holds it alone."""
    begun = [path for name in (DATA, RESULTS, METRICS) for path in run.glob(f".{name}-*.tmp")]
    for path in (*begun, *run.glob(".coordinator-*"), *(run / "cascades").rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            path.unlink()


def _places(out: Path, spec: Spec, wanted: str) -> tuple[Path, Path]:
    return out / spec.name, out / f"{spec.name}-{wanted[:8]}"


def _place(document: dict[str, Any]) -> dict[str, Any]:
    """Which stage a line of metrics.jsonl is of."""
    names = ("method", "seed", "stage") if document["protocol"] == CASCADE else ("protocol", "method", "seed", "stage")
    return {name: document[name] for name in names}


class DamagedStage(RunError):
    """A stage whose files are not what was written."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(f"{folder / name}: missing or damaged")
        self.folder, self.name = folder, name

    def __reduce__(self) -> tuple[type[DamagedStage], tuple[Path, str]]:
        return type(self), (self.folder, self.name)  # from a worker process to its parent


def _check_format(path: Path) -> None:
    try:
        version = json.loads((path / RUN).read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{path / RUN}: damaged; this is no run folder to go on with") from None
    if version != FORMAT:
        raise InputError(
            f"{path}: a run folder of another version of Sparse Flows (format {version}; this one writes {FORMAT}); "
            "give another folder with --out"
        )


def _identity_of(path: Path) -> str | None:
    if not os.path.isfile(path / RUN):
        return None
    _check_format(path)
    value = json.loads((path / RUN).read_text(encoding="utf-8")).get("identity")
    return str(value)


def _create(path: Path, spec: Spec, wanted: str, data_fingerprint: str | None) -> None:
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_whole(beside / SPEC, dump_spec(spec))
        write_whole(
            beside / RUN,
            json.dumps(
                {"format": FORMAT, "identity": wanted, "data": data_fingerprint, "versions": _versions()}, indent=1
            ),
        )
        os.rename(beside, path)
    except OSError as error:
        if os.path.exists(path):  # another process was quicker; whose it is, the caller looks up
            shutil.rmtree(beside, ignore_errors=True)
            return
        raise InputError(
            f"{path}: cannot write a run folder here ({error.strerror}); give another with --out"
        ) from None


def _mend_spec(path: Path, spec: Spec) -> None:
    """Write spec.yaml anew where it is damaged: run.json says that these are the settings."""
    text = dump_spec(spec)
    with contextlib.suppress(OSError, UnicodeDecodeError, InputError):
        found = (path / SPEC).read_text(encoding="utf-8")
        if found == text or RunFolder.open(path).spec == spec:  # an older version may have written it otherwise
            return
    write_whole(path / SPEC, text)


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("sparseflows", "torch", "torchdiffeq", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def move_aside(path: Path) -> None:
    """Rename `path` to the first free `<name>.old-<n>`."""
    n = 1
    while (aside := path.with_name(f"{path.name}.old-{n}")).exists():
        n += 1
    os.rename(path, aside)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
