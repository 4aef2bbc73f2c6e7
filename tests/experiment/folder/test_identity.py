"""By what a run folder is found again: over versions, and whatever settings are added."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from pydantic import BaseModel, Field

from sparseflows.errors import DiskError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.identity import create, identity
from sparseflows.specs import EvaluateSpec, Spec
from sparseflows.specs.section import LATER, known_by
from sparseflows.specs.yaml import dump_spec, validate

DOCUMENT = {
    "name": "known",
    "seeds": [0, 3],
    "data": {"name": "gaussian_spiral", "n_train": 500},
    "flow": {"hidden": [8, 8], "activation": "silu", "time": "concat"},
    "train": {"objective": "flow_matching", "steps": 40, "batch": 64, "lr": 0.02},
    "prune": {"methods": ["unstructured"], "keep_ratios": [0.5], "retrain": {"steps": 20}},
    "evaluate": {"max_rows": 50},
}
# What version 0.1 knew it by: the folders of all users are found by such numbers.
KNOWN_AS = "527003e94aecefcd6dd5156009d85f6c0db585b604c2e56b69ca4af551daeb8e"


class LaterEvaluate(EvaluateSpec):
    rows_a_chunk: int | None = Field(None, json_schema_extra=LATER)


class LaterSpec(Spec):
    evaluate: LaterEvaluate = Field(default_factory=lambda: LaterEvaluate.model_validate({}))
    images: LaterEvaluate | None = Field(None, json_schema_extra=LATER)
    levels: list[int] = Field(default_factory=list, json_schema_extra=LATER)


def later(**changes: object) -> Spec:
    return LaterSpec.model_validate(DOCUMENT | changes)


def test_the_identity_is_what_it_was():
    assert identity(validate(DOCUMENT, "test"), None) == KNOWN_AS


def test_a_setting_of_a_later_version_changes_nothing_where_it_is_not_named():
    assert identity(later(), None) == KNOWN_AS
    assert identity(later(evaluate={"max_rows": 50, "rows_a_chunk": None}, levels=[]), None) == KNOWN_AS


def test_but_it_counts_where_it_is_changed():
    evaluate = {"max_rows": 50, "rows_a_chunk": 7}
    changed = [later(evaluate=evaluate), later(levels=[1]), later(images={}), later(images=evaluate)]
    found = {identity(spec, None) for spec in changed}
    assert len(found | {KNOWN_AS}) == 5
    assert known_by(changed[0])["evaluate"]["rows_a_chunk"] == 7
    assert known_by(changed[2])["images"] == known_by(validate(DOCUMENT, "test").evaluate) | {"max_rows": None}


def of_before(section):
    """All settings but those that came later, section by section."""
    marked = {name for name, field in type(section).model_fields.items() if field.json_schema_extra == LATER}
    values = {name: getattr(section, name) for name in type(section).model_fields if name not in marked}
    dumped = section.model_dump()
    return {name: of_before(value) if isinstance(value, BaseModel) else dumped[name] for name, value in values.items()}


def test_every_setting_of_before_counts():
    spec = validate(DOCUMENT, "test")
    assert known_by(spec) == of_before(spec)
    assert "transform" not in known_by(spec)["data"]
    named = spec.data.model_copy(update={"name": "table", "header": False})
    assert known_by(named) == of_before(named) | {"header": False}


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_before_is_found_by_the_settings_of_later(tmp_path, force):
    spec = validate(DOCUMENT, "test")
    create(tmp_path / "known", spec, KNOWN_AS, None)
    assert (tmp_path / "known" / "spec.yaml").read_text() == dump_spec(spec)
    assert RunFolder.claim(tmp_path, later(), None, force=force).path == tmp_path / "known"
    assert (tmp_path / "known.old-1").exists() == force


def test_a_disk_that_is_full_at_once_is_left_as_it_was(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match=r"spec\.yaml: could not be written \(No space left on device\)"):
        create(tmp_path / "known", validate(DOCUMENT, "test"), KNOWN_AS, None)
    assert not list(tmp_path.iterdir())


def test_without_fcntl_a_run_runs_and_bars_others(tmp_path):
    """What Windows lacks is hidden from a whole process."""
    (tmp_path / "p.yaml").write_text(json.dumps(DOCUMENT | {"seeds": [0]}))
    code = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from sparseflows import files
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
from sparseflows.files import FileLock
assert files.fcntl is None
run = ["run", "p.yaml", "--out", "."]
assert run_app(app, "sparseflows", run) == 0
with FileLock(Path("known/run.lock")) as lock:
    assert lock.take()
    assert run_app(app, "sparseflows", run) == 2
assert run_app(app, "sparseflows", run) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "another `sparseflows run` is at work in this folder; wait for it" in done.stderr
    assert not list(tmp_path.rglob("cascade.lock"))
