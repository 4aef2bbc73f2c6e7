"""Run folders: found by their settings, locked while in use; what else than stages is in one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.transforms.transformed import standardiser_from_dict
from sparseflows.distributed.processes import by_first
from sparseflows.errors import DiskError, InputError
from sparseflows.experiment.folder.identity import RUN, SPEC, create, identity, identity_of, is_known_by, read_run
from sparseflows.experiment.folder.locks import Signature, hold_cascade, hold_folder, share_folder
from sparseflows.experiment.folder.stage_files import MASKS, METRICS, MODEL, RESULTS, DamagedStage, StageFiles
from sparseflows.files import is_as_sealed, move_aside, sealed, write_whole
from sparseflows.specs import Spec
from sparseflows.specs.yaml import dump_spec, parse_yaml, validate

__all__ = ["DATA", "MASKS", "METRICS", "MODEL", "RESULTS", "RUN", "SPEC", "SWEEP_INDEX", "DamagedStage", "RunFolder"]

DATA = "data.json"
SWEEP_INDEX = "sweep.json"  # what the folder of a sweep has in place of its own settings
OLD = "{name}.old-{n}"


class RunFolder(StageFiles):
    """One run folder. Reading needs no lock; `sparseflows run` holds one while it writes."""

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
        read_run(path)
        try:
            document = parse_yaml((path / SPEC).read_text(encoding="utf-8"), str(path / SPEC))
        except (OSError, UnicodeDecodeError):
            document = None
        if not isinstance(document, dict):
            raise InputError(f"{path / SPEC}: damaged; not the settings of a run")
        spec = validate(document, str(path / SPEC))
        if not is_known_by(path, spec):
            raise InputError(
                f"{path / SPEC}: not the settings that the run began with, changed or damaged since; `sparseflows run` "
                "with its param file writes them again"
            )
        return cls(path, spec)

    @classmethod
    def claim(cls, out: Path, spec: Spec, data_fingerprint: str | None, *, force: bool = False) -> RunFolder:
        """The folder of this experiment below `out`: the one that these settings made before, or a new one.

        It is `out/<name>`, or `out/<name>-<8 hex digits of the settings>` where another experiment has that
        name already. With `force` what these settings made before is moved to `<folder>.old-<n>`.
        """
        wanted = identity(spec, data_fingerprint)
        path = cls.place(out, spec, data_fingerprint)
        if force and identity_of(path) == wanted:
            with cls(path, spec).lock():  # nobody is writing there
                move_aside(path, OLD)
            path = cls.place(out, spec, data_fingerprint)
        if not os.path.exists(path):
            create(path, spec, wanted, data_fingerprint)
            path = cls.place(out, spec, data_fingerprint)  # another process may have been quicker
        return cls.at(path, spec, data_fingerprint)

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
                create(path, spec, wanted, data_fingerprint)
            except InputError as error:
                raise DiskError(str(error)) from None
        if identity_of(path) != wanted:
            raise InputError(f"{path}: taken by something else; give another folder with --out")
        _mend_spec(path, spec)
        return cls(path, spec)

    @classmethod
    def place(cls, out: Path, spec: Spec, data_fingerprint: str | None) -> Path:
        """Where `claim` finds this experiment, or would put it as the folders are now; nothing is made."""
        wanted = identity(spec, data_fingerprint)
        paths = out / spec.name, out / f"{spec.name}-{wanted[:8]}"
        ours = next((path for path in paths if identity_of(path) == wanted), None)
        return ours or next((path for path in paths if not os.path.exists(path)), paths[1])

    @contextlib.contextmanager
    def lock(self, join: bool = False) -> Iterator[None]:
        """Hold the folder against other runs, or share it with those that `join` too; see `locks.hold_folder`."""
        hold = hold_folder(self.path, functools.partial(remove_litter, self.path), join)
        with contextlib.ExitStack() as held:
            self.processes.first(lambda: held.enter_context(hold))
            yield

    @contextlib.contextmanager
    def share_lock(self) -> Iterator[None]:
        """Hold the folder as a worker of the process that locked it; see `locks.share_folder`."""
        with contextlib.nullcontext() if self.processes.several else share_folder(self.path):
            yield

    @contextlib.contextmanager
    def hold(self, cascade: str, describe: Callable[[], Signature] = dict, wait: bool = True) -> Iterator[bool]:
        """Hold a cascade against other workers; see `locks.hold_cascade`."""
        self.require_there()
        with contextlib.ExitStack() as held:
            hold = hold_cascade(self.cascade(cascade), describe, wait)
            yield self.processes.first(lambda: held.enter_context(hold))

    def began_with(self, data_fingerprint: str | None) -> bool:
        """Whether the files of the run's data were known by that when it began; folders that do not say: yes."""
        return bool(read_run(self.path).get("data", data_fingerprint) == data_fingerprint)

    @by_first
    def data_digest(self) -> str | None:
        """What the files of the run's data were known by when it began; None where there are none."""
        stored: str | None = read_run(self.path).get("data")
        return stored

    @by_first
    def write_data(self, description: dict[str, Any]) -> None:
        """Keep the statistics of the data: `score`, `map` and `sample` need them, the rows they do not."""
        write_whole(self.path / DATA, json.dumps(sealed(description), indent=1))

    def read_data(self) -> dict[str, Any]:
        """What `write_data` kept."""
        try:
            found = dict(json.loads((self.path / DATA).read_text(encoding="utf-8")))
            if not {"shift", "scale"} <= set(found):
                raise ValueError("no statistics in it")
            if not is_as_sealed(found):
                raise ValueError("not what was written")
            return found
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{self.path / DATA}: missing or damaged ({error}); run the experiment again") from None

    def standardiser(self, seed: int) -> Standardiser:
        """The statistics of the rows that `seed` was trained on.

        Raises:
            InputError: data.json is missing or damaged.
        """
        found = self.read_data()
        return standardiser_from_dict(found.get("seeds", {}).get(str(seed), found))


def remove_litter(run: Path) -> None:
    """Remove what killed processes had begun to write in a run folder; for who holds it alone."""
    begun = [path for name in (DATA, RESULTS, METRICS) for path in run.glob(f".{name}-*.tmp")]
    for path in (*begun, *run.glob(".coordinator-*"), *(run / "cascades").rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            path.unlink()


def _mend_spec(path: Path, spec: Spec) -> None:
    """Write spec.yaml anew where it is damaged: run.json says that these are the settings."""
    text = dump_spec(spec)
    with contextlib.suppress(OSError, UnicodeDecodeError, InputError):
        found = (path / SPEC).read_text(encoding="utf-8")
        if found == text or RunFolder.open(path).spec == spec:  # an older version may have written it otherwise
            return
    write_whole(path / SPEC, text)
