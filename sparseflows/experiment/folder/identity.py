"""By what a run folder is found again: its settings, and the bytes of its data.

The rule for settings to come: one that a param file does not name must not change the identity of its run, or the
folders there are would be lost. So every setting that is added to `specs` is marked `LATER` (see `specs.section`).
"""

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError
from sparseflows.files import folder_at_once
from sparseflows.specs import FORMAT, Spec
from sparseflows.specs.section import known_by
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
    return str(read_run(path).get("identity")) if os.path.isfile(path / RUN) else None


def is_known_by(path: Path, spec: Spec) -> bool:
    """Whether the run folder at `path` began with the settings `spec`; folders that do not say: yes."""
    stored = read_run(path)
    return not {"identity", "data"} <= set(stored) or identity(spec, stored["data"]) == stored["identity"]


def read_run(path: Path) -> dict[str, Any]:
    """What run.json says of a run folder.

    Raises:
        InputError: it is one of another version, or damaged.
    """
    try:
        found: dict[str, Any] = json.loads((path / RUN).read_text(encoding="utf-8"))
        version = found.get("format")
    except (OSError, ValueError, AttributeError):
        raise InputError(f"{path / RUN}: damaged; this is no run folder to go on with") from None
    if version != FORMAT:
        raise InputError(
            f"{path}: a run folder of another version of Sparse Flows (format {version}; this one writes {FORMAT}); "
            "give another folder with --out"
        )
    return found


def create(path: Path, spec: Spec, wanted: str, data_fingerprint: str | None) -> None:
    """Make an empty run folder, whole or not at all; nothing where another process was quicker.

    Raises:
        InputError: nothing can be written there.
        DiskError: the disk is full.
    """
    document = {"format": FORMAT, "identity": wanted, "data": data_fingerprint, "versions": _versions()}
    folder_at_once(path, {SPEC: dump_spec(spec), RUN: json.dumps(document, indent=1)})


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("sparseflows", "torch", "torchdiffeq", "numpy"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
