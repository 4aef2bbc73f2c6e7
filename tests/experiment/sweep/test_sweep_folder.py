"""The folder of a sweep: made whole or not at all, so that a sweep that is killed at once is found again."""

import pytest

from sparseflows import files
from sparseflows.experiment.sweep.folder import SweepFolder
from sparseflows.experiment.sweep.points import expand

DOCUMENT = {"name": "s", "data": {"name": "moons"}, "train": {"steps": 2}, "sweep": {"train.lr": [0.1, 0.2]}}


class Killed(BaseException):
    """What no `except` of the product catches."""


def test_a_sweep_that_is_killed_before_its_index_is_there_leaves_no_folder_of_its_name(tmp_path, monkeypatch):
    def die(*arguments):
        raise Killed

    sweep = expand(DOCUMENT, "s.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_whole", die)
        with pytest.raises(Killed):
            SweepFolder.claim(tmp_path, sweep)
    assert not (tmp_path / "s").exists()
    assert SweepFolder.claim(tmp_path, sweep).path == tmp_path / "s"


def test_an_empty_folder_is_taken_and_one_that_holds_something_is_left_alone(tmp_path):
    sweep = expand(DOCUMENT, "s.yaml")
    (tmp_path / "s").mkdir()
    assert SweepFolder.claim(tmp_path, sweep).path == tmp_path / "s"
    (tmp_path / "other" / "s").mkdir(parents=True)
    (tmp_path / "other" / "s" / "letter.txt").write_text("mine")
    assert SweepFolder.claim(tmp_path / "other", sweep).path.name == f"s-{sweep.identity[:8]}"
