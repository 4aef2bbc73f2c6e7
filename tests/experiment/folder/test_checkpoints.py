"""Checkpoints: the newest two of a training, damage that is seen and named, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparseflows.errors import DiskError
from sparseflows.experiment.folder.checkpoints import Checkpoints


class Kept(Checkpoints):
    """Checkpoints that note what they say; damaged files become `aside-<name>`."""

    def __init__(self, folder, stage=1):
        self.said: list[str] = []
        super().__init__(
            folder, stage, lambda path: path.rename(path.with_name(f"aside-{path.name}")), self.said.append
        )

    def at(self, step, attempt=0, **values):
        self.save({"step": step, "model": {"w": torch.full((3,), float(step))}, **values}, attempt)

    def path(self, step, attempt=0):
        (path,) = self.folder.glob(f"stage-{self.stage}-attempt-{attempt}-step-{step}-*.pt")
        return path

    def names(self):
        return sorted(path.name.rsplit("-", 1)[0] for path in self.folder.iterdir())


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "checkpoints")


def truncate(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def test_nothing_to_load(kept):
    assert kept.load_newest() is None
    kept.clear()
    assert kept.said == []


def test_the_newest_two_are_kept(kept):
    for step in (5, 10, 15, 100):
        kept.at(step)
    assert kept.names() == ["stage-1-attempt-0-step-100", "stage-1-attempt-0-step-15"]
    assert kept.load_newest()["step"] == 100
    assert torch.equal(kept.load_newest()["model"]["w"], torch.full((3,), 100.0))


def test_a_later_attempt_is_newer_though_its_step_is_smaller(kept):
    kept.at(90)
    kept.at(10, attempt=1)
    found = kept.load_newest()
    assert (found["attempt"], found["step"]) == (1, 10)
    kept.at(20, attempt=1)
    assert kept.names() == ["stage-1-attempt-1-step-10", "stage-1-attempt-1-step-20"]


def test_everything_comes_back(kept):
    history = [{"step": 1, "loss": 0.1}]
    kept.at(7, history=history, best=None, average={"updates": 3, "w": torch.ones(2)}, seconds=0.1 + 0.2)
    found = kept.load_newest()
    assert (found["history"], found["best"], found["seconds"]) == (history, None, 0.1 + 0.2)
    assert found["average"]["updates"] == 3


def test_what_is_loaded_is_where_it_is_wanted(kept):
    kept.at(7)
    elsewhere = Checkpoints(kept.folder, kept.stage, kept._set_aside, print, device=torch.device("meta"))
    assert elsewhere.load_newest()["model"]["w"].device.type == "meta"
    assert kept.load_newest()["model"]["w"].device.type == "cpu"


def test_stages_do_not_meet(tmp_path):
    one, eleven = Kept(tmp_path, 1), Kept(tmp_path, 11)
    one.at(5)
    eleven.at(50)
    assert (one.load_newest()["step"], eleven.load_newest()["step"]) == (5, 50)
    one.clear()
    assert one.load_newest() is None
    assert eleven.load_newest()["step"] == 50


def test_other_files_are_left_alone(kept):
    kept.at(5)
    others = [kept.folder / name for name in ("notes.txt", "stage-1-attempt-0-step-9.pt", ".damaged-1-stage-1.pt")]
    for path in others:
        path.touch()
    assert kept.load_newest()["step"] == 5
    kept.at(6)
    kept.clear()
    assert all(path.exists() for path in others)
    assert kept.said == []


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_one_is_named_and_set_aside_and_the_one_before_is_taken(kept, share):
    kept.at(5)
    kept.at(10)
    newest = kept.path(10)
    truncate(newest, share)
    content = newest.read_bytes()
    assert kept.load_newest()["step"] == 5
    assert kept.said == [
        f"{newest}: truncated or damaged; set aside as aside-{newest.name}, going on from the one before"
    ]
    assert newest.with_name(f"aside-{newest.name}").read_bytes() == content
    assert kept.load_newest()["step"] == 5  # said once
    assert len(kept.said) == 1


def test_a_changed_byte_is_seen(kept):
    kept.at(5)
    path = kept.path(5)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert kept.load_newest() is None
    assert len(kept.said) == 1
    assert "from the start" in kept.said[0]  # there is none before it


def test_both_truncated(kept):
    kept.at(5)
    kept.at(10)
    paths = [kept.path(10), kept.path(5)]
    for path in paths:
        truncate(path)
    assert kept.load_newest() is None
    assert [line.split(":")[0] for line in kept.said] == [str(path) for path in paths]
    assert kept.said[0].endswith("going on from the one before")
    assert kept.said[1].endswith("going on from the start of the stage")


def test_a_folder_in_place_of_one_is_set_aside_and_not_removed(kept):
    for step in (5, 10):
        kept.at(step)
    path = kept.path(10)
    path.unlink()
    (path / "mine").mkdir(parents=True)
    assert kept.load_newest()["step"] == 5
    assert (kept.folder / f"aside-{path.name}" / "mine").is_dir()
    older = kept.path(5)
    older.unlink()
    older.mkdir()
    kept.clear()
    assert kept.names() == ["aside-stage-1-attempt-0-step-10", "aside-stage-1-attempt-0-step-5"]


def test_one_that_cannot_be_removed_is_an_error_of_the_disk(kept, monkeypatch):
    def unlink(path, missing_ok=False):
        raise OSError(30, "Read-only file system")

    for step in (5, 10):
        kept.at(step)
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(DiskError, match=r"stage-1-attempt-0-step-5-\w+\.pt: could not be removed \(Read-only"):
        kept.at(15)


def test_no_code_is_run_on_loading(kept, monkeypatch):
    options = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **given: options.append(given) or load(*args, **given))
    kept.at(5)
    kept.load_newest()
    assert [one["weights_only"] for one in options] == [True]


# --- in a run


@pytest.fixture
def interrupted(param, tmp_path, call, monkeypatch):
    """Interrupt the tiny experiment after so many checkpoints; gives its folder and the checkpoints there."""

    def interrupt(after):
        saved = []
        save = Checkpoints.save

        def save_and_stop(self, checkpoint, attempt):
            save(self, checkpoint, attempt)
            saved.append(checkpoint["step"])
            if len(saved) == after:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save_and_stop)
            said = call("run", param, "--out", tmp_path / "runs")
        assert said.status == 130
        assert said.err.splitlines()[-1].endswith("interrupted; the same command goes on from the last checkpoint")
        folder = tmp_path / "runs" / "tiny"
        paths = folder.glob("cascades/*/checkpoints/*.pt")
        return folder, sorted(paths, key=lambda path: -int(path.name.split("-")[5]))

    return interrupt


@pytest.fixture
def steps(monkeypatch):
    """Where each training begins: (stage, first step)."""
    from sparseflows.experiment.stages import stage

    begun = []
    train = stage.train

    def note(*args, purpose, resume, **options):
        begun.append((purpose, resume["step"] if resume else 0))
        return train(*args, purpose=purpose, resume=resume, **options)

    monkeypatch.setattr(stage, "train", note)
    return begun


def test_a_run_goes_on_from_the_last_checkpoint(interrupted, run_again, finished, steps, numbers):
    folder, paths = interrupted(13)
    assert len(paths) == 2
    steps.clear()
    said = run_again(folder)
    assert said.status == 0
    assert steps[0] == ("dense/0", 39)  # a checkpoint every 1/20 of 60 steps
    assert [step for _, step in steps[1:]] == [0] * 6
    assert numbers(folder) == numbers(finished)


def test_a_truncated_checkpoint_costs_a_twentieth_of_a_training(interrupted, run_again, finished, steps, numbers):
    folder, (newest, _) = interrupted(20 + 20 + 7)  # in the second pruned stage
    assert newest.parent.parent.name == "unstructured-s0"
    truncate(newest)
    steps.clear()
    said = run_again(folder)
    assert said.status == 0
    assert said.err.count("truncated or damaged") == 1
    assert f"{newest}: truncated or damaged; set aside as .damaged-1-{newest.name}" in said.err
    assert (newest.parent / f".damaged-1-{newest.name}").is_file()
    assert steps[0] == ("unstructured/2", 12)
    assert numbers(folder) == numbers(finished)


def test_both_truncated_and_the_stage_begins_again(interrupted, run_again, finished, steps, numbers):
    folder, paths = interrupted(20 + 5)
    for path in paths:
        truncate(path, 0.9)
    steps.clear()
    said = run_again(folder)
    assert said.status == 0
    assert said.err.count("truncated or damaged") == 2
    assert [path.name for path in sorted(paths[0].parent.iterdir())] == sorted(f".damaged-1-{p.name}" for p in paths)
    assert steps[0] == ("unstructured/1", 0)
    assert numbers(folder) == numbers(finished)


def test_one_of_another_version_is_named_and_not_gone_on_from(kept, monkeypatch):
    monkeypatch.setattr("sparseflows.experiment.folder.checkpoints.LAYOUT", 1)
    kept.at(5)
    monkeypatch.undo()
    assert kept.load_newest() is None
    (said,) = kept.said
    assert "another version" in said
    assert "from its start" in said
