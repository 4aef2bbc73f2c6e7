"""Run folders opened for analysis: which stages, which flows, which rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.curvature.operators import Survivors
from analysis.runs.study import Study
from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import DONE, Record
from sparseflows.experiment.rows import prepare
from sparseflows.specs.yaml import validate

STAGES = ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"]


def names(study: Study, *patterns: str) -> list[str]:
    return [subject.name for subject in study.subjects(patterns)]


def test_stages_by_name_and_pattern(tiny_run):
    study = Study.open(tiny_run)
    assert study.path == tiny_run
    assert names(study) == STAGES
    assert names(study, "dense-s0/0") == STAGES[:1]
    assert names(study, "*-s0/1") == STAGES[1:]
    assert names(study, "s*", "d*") == [STAGES[0], STAGES[2]]  # in the order of results.csv, not of the patterns
    assert names(study, "dense-s0/*", "*/0", "dense-s0/0") == STAGES[:1]  # each once
    best = min(study.records, key=lambda record: record.nll_val)
    assert names(study, "best") == [f"{best.cascade}/{best.stage}"]


@pytest.mark.parametrize("pattern", ["structured-s0/2", "dense", "Dense-s0/0", "*-s1/*", ""])
def test_an_unknown_stage_lists_the_known_ones(tiny_run, pattern):
    with pytest.raises(InputError, match=r"there are: best, dense-s0/0, unstructured-s0/1, structured-s0/1") as caught:
        Study.open(tiny_run).subjects(["best", pattern])
    assert f"no stage '{pattern}'" in str(caught.value)
    assert ("did you mean 'structured-s0/1'" in str(caught.value)) == (pattern == "structured-s0/2")


def test_failed_stages_are_refused_by_name_and_listed_otherwise(tiny_run, fail_stage):
    fail_stage(tiny_run, "structured-s0/1", "the state became infinite")
    study = Study.open(tiny_run)
    with pytest.raises(InputError, match=r"structured-s0/1 failed \(the state became infinite\); take another"):
        study.subjects(["structured-s0/1"])
    assert names(study) == STAGES
    assert names(study, "*-s0/1") == STAGES[1:]
    assert names(study, "best") != ["structured-s0/1"]


def test_nothing_finished_yet(tmp_path):
    spec = validate({"name": "x", "data": {"name": "moons"}, "train": {"steps": 1}}, "x.yaml")
    RunFolder.claim(tmp_path, spec, None)
    with pytest.raises(InputError, match="no stage is finished yet"):
        Study.open(tmp_path / "x")


def test_a_subject_is_the_stage_that_was_trained(tiny_run):
    study = Study.open(tiny_run)
    dense, unstructured, structured = study.subjects()
    assert dense.label == "dense"
    assert unstructured.label == "unstructured, PR 40 %"
    for subject in study.subjects():
        flow = subject.flow()
        kept = subject.kept(flow)
        assert {name: mask.shape for name, mask in kept.items()} == {n: p.shape for n, p in flow.named_parameters()}
        # As many survivors as the run counted, masked or shrunk; and the masked ones are zero.
        assert Survivors(flow, kept).size == subject.record.params
        assert all(not p[~kept[name]].any() for name, p in flow.named_parameters())
    assert sum(p.numel() for p in unstructured.flow().parameters()) == 80
    assert sum(p.numel() for p in structured.flow().parameters()) == structured.record.params < 80
    assert not all(mask.all() for mask in unstructured.kept(unstructured.flow()).values())


def test_the_digest_changes_with_a_bit(tiny_run):
    dense, unstructured, _ = Study.open(tiny_run).subjects()
    before, other = dense.digest(), unstructured.digest()
    assert before != other
    for name in ("model", "masks"):
        path = tiny_run / f"cascades/dense-s0/stages/0/{name}.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        assert dense.digest() != before
        before = dense.digest()
    assert unstructured.digest() == other


def test_the_rows_are_made_again(tiny_run):
    study = Study.open(tiny_run)
    assert study.splits.train.shape == (60, 2)
    assert study.splits is study.splits
    statistics = json.loads((tiny_run / "data.json").read_text())  # those of the run
    np.testing.assert_array_equal(study.splits.standardiser.shift, statistics["shift"])
    np.testing.assert_array_equal(study.splits.standardiser.scale, statistics["scale"])


def table_run(folder: Path) -> tuple[Path, Path]:
    """A run on a file of its own, with one stage that says it is done; and the file."""
    file = folder / "rows.npy"
    np.save(file, np.random.default_rng(0).standard_normal((50, 3)))
    spec = validate(
        {"name": "own", "data": {"name": "table", "path": str(file)}, "train": {"steps": 1}}, str(folder / "own.yaml")
    )
    run = RunFolder.claim(folder, spec, prepare(spec)[1])
    run.write_stage(Record("table", "nll", "cascade", "dense", 0, 0, DONE, params=1), {}, [])
    return run.path, file


def test_a_file_that_changed_or_went_is_refused(tmp_path):
    run, file = table_run(tmp_path)
    assert Study.open(run).splits.train.shape[1] == 3
    rows = np.load(file)
    rows[7, 1] += 1e-9
    np.save(file, rows)
    with pytest.raises(InputError, match=r"rows\.npy: not the rows that .* was trained on; put the file back"):
        _ = Study.open(run).splits
    file.unlink()
    with pytest.raises(InputError, match=r"rows\.npy"):
        _ = Study.open(run).splits


def test_opening_computes_nothing(tiny_run, monkeypatch):
    monkeypatch.setattr(torch, "tensor", None)
    assert len(Study.open(tiny_run).subjects()) == 3
