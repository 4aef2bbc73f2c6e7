"""Results by stage: computed once, kept by what they depend on; failures told, the others go on."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest

from analysis.runs.progress import Progress
from analysis.runs.results import Entry, Result, each_stage, read_result, write_result
from analysis.runs.study import Study, Subject
from sparseflows.errors import InputError, Interrupted, RunError

DENSE, UNSTRUCTURED, STRUCTURED = STAGES = ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"]


class Work:
    """A computation that notes what it was called for, and fails where it is told to."""

    def __init__(self, **failures: BaseException) -> None:
        self.failures = {name.replace("_", "-"): error for name, error in failures.items()}
        self.calls: list[str] = []

    def __call__(self, subject, report):
        self.calls.append(subject.name)
        report(1, 2)
        if subject.record.cascade in self.failures:
            raise self.failures[subject.record.cascade]
        number = len(self.calls)
        return Result({"value": 0.1 * number, "none": None, "pair": [1, 2]}, {"array": np.arange(number) / 3})


def run_on(folder, work, settings=None, kind="test-1", patterns=(), stream: io.StringIO | None = None) -> list[Entry]:
    progress = Progress("test", stream or io.StringIO(), bars=False)
    return each_stage(Study.open(folder).subjects(patterns), kind, settings or {"a": 1}, work, progress)


def same(first: Result, second: Result) -> bool:
    return first.values == second.values and all(
        np.array_equal(first.arrays[name], second.arrays[name]) for name in first.arrays | second.arrays
    )


def test_the_second_call_computes_nothing_and_gives_the_same(tiny_run):
    first, work = run_on(tiny_run, Work()), Work()
    second = run_on(tiny_run, work)
    assert work.calls == []
    assert [entry.cached for entry in first + second] == [False] * 3 + [True] * 3
    assert all(same(a.result, b.result) for a, b in zip(first, second, strict=True))
    assert [entry.document() | {"cached": True} for entry in first] == [entry.document() for entry in second]


def test_a_copy_of_the_folder_knows_them_too(tiny_run, tmp_path):
    run_on(tiny_run, Work())
    work = Work()
    run_on(shutil.copytree(tiny_run, tmp_path / "moved"), work)
    assert work.calls == []


@pytest.mark.parametrize("change", [{"settings": {"a": 2}}, {"settings": {"a": 1, "b": None}}, {"kind": "test-2"}])
def test_another_setting_is_another_result(tiny_run, change):
    run_on(tiny_run, Work())
    work = Work()
    run_on(tiny_run, work, **change)
    assert work.calls == STAGES
    again = Work()
    run_on(tiny_run, again)  # and the first one is still there
    assert again.calls == []


def test_other_weights_are_another_result(tiny_run):
    run_on(tiny_run, Work())
    for name in ("dense-s0/stages/0/model", "structured-s0/stages/1/masks"):
        path = tiny_run / "cascades" / f"{name}.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    work = Work()
    run_on(tiny_run, work)
    assert work.calls == [DENSE, STRUCTURED]


def test_damage_anywhere_is_computed_again_or_was_harmless(tiny_run):
    (entry,) = run_on(tiny_run, Work(), patterns=[DENSE])
    (path,) = (tiny_run / "analysis/cache/test-1").iterdir()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    unreadable = 0
    for place in [*rng.integers(0, len(whole), 300), 0, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        found = read_result(path)
        unreadable += found is None
        assert found is None or same(found, entry.result)
    assert unreadable > 100
    for content in (b"", whole[: len(whole) // 2], b"no archive"):
        path.write_bytes(content)
        assert read_result(path) is None
    work = Work()
    assert same(run_on(tiny_run, work, patterns=[DENSE])[0].result, entry.result)
    assert work.calls == [DENSE]
    assert path.read_bytes() != b"no archive"


def test_what_is_not_ours_is_not_read(tmp_path):
    assert read_result(tmp_path / "missing.npz") is None
    for values in ("[1, 2]", "{", '"text"'):
        np.savez(tmp_path / "x.npz", values=np.array(values))
        assert read_result(tmp_path / "x.npz") is None
    np.savez(tmp_path / "x.npz", array=np.ones(2))
    assert read_result(tmp_path / "x.npz") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunError("the loss\nis not deterministic"), "the loss is not deterministic"),
        (MemoryError(), "MemoryError"),
        (ZeroDivisionError("division by zero"), "division by zero"),
        (np.linalg.LinAlgError("did not converge"), "did not converge"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"), "out of memory"),
    ],
)
def test_a_stage_that_fails_says_why_and_the_others_go_on(tiny_run, error, reason):
    work, stream = Work(unstructured_s0=error), io.StringIO()
    entries = run_on(tiny_run, work, stream=stream)
    assert work.calls == STAGES
    assert [entry.status for entry in entries] == ["done", "failed", "done"]
    assert [entry.reason for entry in entries] == [None, reason, None]
    assert f"[2/3] unstructured-s0/1  no test: {reason}" in stream.getvalue()
    document = entries[1].document()
    assert (document["status"], document["reason"], document["method"]) == ("failed", reason, "unstructured")
    assert "value" not in document
    again = Work()
    assert run_on(tiny_run, again)[1].result is not None  # a failure is not kept
    assert again.calls == [UNSTRUCTURED]


@pytest.mark.parametrize("error", [InputError("wrong"), RuntimeError("a bug"), KeyError("a bug")])
def test_wrong_input_and_bugs_are_not_a_stages_fault(tiny_run, error):
    class Bar(Progress):
        closed: tuple[str, ...] = ()

        def close(self) -> None:
            self.closed = tuple(work.calls)

    progress, work = Bar("test", io.StringIO(), bars=False), Work(unstructured_s0=error)
    with pytest.raises(type(error), match=str(error.args[0])):
        each_stage(Study.open(tiny_run).subjects(), "test-1", {}, work, progress)
    assert work.calls == [DENSE, UNSTRUCTURED]
    assert progress.closed == (DENSE, UNSTRUCTURED)  # after the error, not before


def test_an_interruption_keeps_what_is_finished(tiny_run):
    with pytest.raises(Interrupted, match="goes on from there"):
        run_on(tiny_run, Work(unstructured_s0=KeyboardInterrupt()))
    work = Work()
    assert [entry.cached for entry in run_on(tiny_run, work)] == [True, False, False]
    assert work.calls == [UNSTRUCTURED, STRUCTURED]


def test_stages_that_failed_in_the_run_are_listed(tiny_run, fail_stage):
    fail_stage(tiny_run, STRUCTURED, "the solver ran out of steps")
    work = Work()
    entries = run_on(tiny_run, work)
    assert work.calls == [DENSE, UNSTRUCTURED]
    assert entries[2].reason == "failed in the run: the solver ran out of steps"
    assert entries[2].document()["status"] == "failed"


def test_weights_that_have_gone_are_that_stages_failure(tiny_run):
    (tiny_run / "cascades/unstructured-s0/stages/1/model.safetensors").unlink()
    work = Work()
    entries = run_on(tiny_run, work)
    assert work.calls == [DENSE, STRUCTURED]
    assert "No such file" in entries[1].reason


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_json_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_result(tmp_path / "x.npz", Result({"value": value}))
    assert not (tmp_path / "x.npz").exists()


def test_the_document_says_which_stage_it_is(tiny_run):
    (entry,) = run_on(tiny_run, Work(), patterns=[STRUCTURED])
    assert isinstance(entry.subject, Subject)
    record = entry.subject.record
    assert json.loads(json.dumps(entry.document(), allow_nan=False)) == {
        **{"method": "structured", "seed": 0, "stage": 1, "status": "done"},
        **{"prune_ratio": record.prune_ratio, "params": record.params},
        **{"value": 0.1, "none": None, "pair": [1, 2], "cached": False},
    }
