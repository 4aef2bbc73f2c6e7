"""By what a run folder is found again: its settings, and the bytes of its data.

The rule for settings to come: one that a param file does not name must not change the identity of its run, or the
folders there are would be lost. So every setting that is added to `specs` is marked `LATER` (see `specs.later`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

from sparseflows.errors import DiskError, InputError
from sparseflows.files import write_whole
from sparseflows.specs import FORMAT, Spec
from sparseflows.specs.later import known_by
from sparseflows.specs.yaml import dump_spec

SPEC, RUN = "spec.yaml", "run.json"


def identity(spec: Spec, data_fingerprint: str | None) -> str:
    """What makes two runs the same run: every setting (`known_by`), and the bytes of the user's own table."""
    text = json.dumps([known_by(spec), data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identity_of(path: Path) -> str | None:
    """What the run folder at `path` is known by; None where there is no run folder.

    Raises:
        InputError: it is one of another version, or damaged.
    """
    if not os.path.isfile(path / RUN):
        return None
    check_format(path)
    value = json.loads((path / RUN).read_text(encoding="utf-8")).get("identity")
    return str(value)


def is_known_by(path: Path, spec: Spec) -> bool:
    """Whether the run folder at `path` began with the settings `spec`; folders that do not say: yes."""
    stored = json.loads((path / RUN).read_text(encoding="utf-8"))
    return not {"identity", "data"} <= set(stored) or identity(spec, stored["data"]) == stored["identity"]


def check_format(path: Path) -> None:
    """Raise InputError where a run folder is of another version, or damaged."""
    try:
        version = json.loads((path / RUN).read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{path / RUN}: damaged; this is no run folder to go on with") from None
    if version != FORMAT:
        raise InputError(
            f"{path}: a run folder of another version of Sparse Flows (format {version}; this one writes {FORMAT}); "
            "give another folder with --out"
        )


def places(out: Path, spec: Spec, wanted: str) -> tuple[Path, Path]:
    """Where the run may be below `out`: by its name, or by its name and its identity where that is another's."""
    return out / spec.name, out / f"{spec.name}-{wanted[:8]}"


def create(path: Path, spec: Spec, wanted: str, data_fingerprint: str | None) -> None:
    """Make an empty run folder, whole or not at all; nothing where another process was quicker.

    Raises:
        InputError: nothing can be written there.
        DiskError: the disk is full.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}.tmp")
    document = {"format": FORMAT, "identity": wanted, "data": data_fingerprint, "versions": _versions()}
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        write_whole(beside / SPEC, dump_spec(spec))
        write_whole(beside / RUN, json.dumps(document, indent=1))
        os.rename(beside, path)
    except DiskError:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    except OSError as error:
        if os.path.exists(path):  # another process was quicker; whose it is, the caller looks up
            shutil.rmtree(beside, ignore_errors=True)
            return
        raise InputError(
            f"{path}: cannot write a run folder here ({error.strerror}); give another with --out"
        ) from None


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("sparseflows", "torch", "torchdiffeq", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
