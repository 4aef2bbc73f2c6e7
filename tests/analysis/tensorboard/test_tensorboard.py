"""`--log tensorboard`: what TensorBoard's own reader finds in the event files is what the run folder holds."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.classify_runs import MOONS

from analysis.runs.records import read_run
from analysis.tables.markup import markdown
from analysis.tables.means import tabulate
from analysis.tables.nll import sheet
from analysis.tensorboard.events import EventFile
from analysis.tensorboard.logger import TensorBoard, flat
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.monitoring.loggers import Loggers
from sparseflows.files import sealed

SETTINGS = {
    "name": "tiny",
    "data": {"name": "gaussian_spiral", "n_train": 100},
    "flow": {"hidden": [8, 8], "activation": "silu", "time": "concat"},
    "train": {"objective": "flow_matching", "steps": 80, "batch": 50, "lr": 0.02, "select": "best_val",
              "selections": 4, "selection_rows": 20},
    "prune": {"methods": ["structured"], "keep_ratios": [0.5], "retrain": {"steps": 40}},
    "evaluate": {"max_rows": 20},
}  # fmt: skip
SINGLE = 1e-7  # of TensorBoard's scalars: relative rounding of single precision, 2^-24


def train(folder, *options, settings=SETTINGS):
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    status = run_app(app, "sparseflows", ["run", str(path), "--out", str(folder), *options])
    return folder / settings["name"], status


def read(run):
    """Folder below `tensorboard` → TensorBoard's reader of it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    root = run / "tensorboard"
    for folder in sorted({path.parent for path in root.rglob("events.*")}):
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
        found[str(folder.relative_to(root))] = reader.Reload()
    return found


def scalars(readers):
    """(folder, tag) → [(step, value)]."""
    return {
        (folder, tag): [(event.step, event.value) for event in reader.Scalars(tag)]
        for folder, reader in readers.items()
        for tag in reader.Tags()["scalars"]
    }


def text_of(reader, tag):
    (event,) = reader.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def rows_of(run):
    with (run / "results.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def steps_of(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "step" in line]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, status = train(tmp_path_factory.mktemp("logged"), "--log", "tensorboard")
    assert status == 0
    return folder


@pytest.fixture(scope="module")
def readers(run):
    return read(run)


STAGES = [("dense-s0", 0), ("structured-s0", 1)]


def test_there_is_one_event_file_a_folder(run, readers):
    assert list(readers) == ["dense-s0", "dense-s0/0", "run", "structured-s0", "structured-s0/1"]
    assert len(list(run.rglob("events.*"))) == len(readers)


@pytest.mark.parametrize(("cascade", "stage"), STAGES)
def test_curves_along_a_training(run, readers, cascade, stage):
    found, expected = scalars(readers), {}
    for line in steps_of(run):
        if f"{line['method']}-s0" == cascade:
            for name in {"loss", "lr", "nfe", "val"} & set(line):
                expected.setdefault("validation/val" if name == "val" else f"train/{name}", []).append(line)
    assert sorted(expected) == ["train/loss", "train/lr", "train/nfe", "validation/val"]
    for tag, lines in expected.items():
        steps, values = zip(*found[f"{cascade}/{stage}", tag], strict=True)
        assert list(steps) == [line["step"] for line in lines]
        assert values == pytest.approx([line[tag.split("/")[1]] for line in lines], rel=SINGLE)


def test_results_against_the_stage_and_against_params(run, readers):
    found, (dense, pruned) = scalars(readers), rows_of(run)
    for name in ("nll_test", "nll_val", "kl_gap", "params", "prune_ratio", "nfe"):
        values = [float(row[name]) for row in (dense, pruned)]
        assert found["dense-s0", f"stages/{name}"] == [(0, pytest.approx(values[0], rel=SINGLE))]
        steps, seen = zip(*found["structured-s0", f"stages/{name}"], strict=True)
        assert (steps, seen) == ((0, 1), pytest.approx(values, rel=SINGLE))
        at = int(pruned["train_steps"])
        assert found["structured-s0/1", f"result/{name}"] == [(at, pytest.approx(values[1], rel=SINGLE))]
    for name in ("nll_test", "kl_gap"):
        steps, seen = zip(*found["structured-s0", f"against_params/{name}"], strict=True)
        assert steps == (int(pruned["params"]), int(dense["params"]))  # rising
        assert seen == pytest.approx([float(pruned[name]), float(dense[name])], rel=SINGLE)
    assert not [tag for _, tag in found if "accuracy" in tag or "loss_test" in tag]  # they do not apply


def test_the_table_is_the_one_that_analysis_makes(run, readers):
    assert text_of(readers["run"], "table") == markdown(*map(sheet, tabulate(read_run(run))))
    (event,) = readers["run"].Tensors("table/text_summary")
    assert event.step == 2
    settings = text_of(readers["run"], "settings")
    assert "".join(line.removeprefix("    ") for line in settings.splitlines(True)) == (run / "spec.yaml").read_text()


def test_pictures_are_whole(readers):
    from PIL import Image

    for folder, tag in [("run", "nll_vs_params"), ("dense-s0/0", "field"), ("structured-s0/1", "field")]:
        (event,) = readers[folder].Images(tag)
        picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
        assert picture.shape == (event.height, event.width, 3)
        assert picture.std() > 10  # of 255; an empty page has 0


def test_settings_beside_results(run, readers):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    reader, (_, row) = readers["structured-s0/1"], rows_of(run)
    contents = reader.PluginTagToContent("hparams")
    found = {tag: HParamsPluginData.FromString(content) for tag, content in contents.items()}
    shown = found["_hparams_/session_start_info"].session_start_info.hparams
    assert shown["train.lr"].number_value == 0.02
    assert shown["flow.hidden"].string_value == "[8, 8]"
    assert shown["method"].string_value == row["method"]
    assert shown["stage"].number_value == int(row["stage"])
    metrics = [info.name.tag for info in found["_hparams_/experiment"].experiment.metric_infos]
    assert set(metrics) == {tag for tag in reader.Tags()["scalars"] if tag.startswith("result/")}


def test_interrupted_and_taken_up_again_nothing_is_there_twice(readers, tmp_path, monkeypatch):
    save, count = Checkpoints.save, 0

    def save_or_stop(self, checkpoint, attempt):
        nonlocal count
        count += 1
        if count in (13, 28):  # within either stage, with lines logged beyond the newest checkpoint
            raise KeyboardInterrupt
        save(self, checkpoint, attempt)

    monkeypatch.setattr(Checkpoints, "save", save_or_stop)
    assert train(tmp_path, "--log", "tensorboard")[1] == 130
    partly = scalars(read(tmp_path / "tiny"))
    assert len(partly["dense-s0/0", "train/loss"]) == 26  # what was logged is in the file at once
    assert train(tmp_path, "--log", "tensorboard")[1] == 130
    again, status = train(tmp_path, "--log", "tensorboard")
    assert status == 0
    assert scalars(read(again)) == scalars(readers)
    assert text_of(read(again)["run"], "table") == text_of(readers["run"], "table")
    assert len(list(again.rglob("events.*"))) == len(readers)


def test_asked_for_later_it_shows_the_same(run, readers, tmp_path):
    assert train(tmp_path)[1] == 0
    again, status = train(tmp_path, "--log", "tensorboard")
    assert status == 0
    later = read(again)
    assert scalars(later) == scalars(readers)
    assert later["dense-s0/0"].Images("field")[0].encoded_image_string == (
        readers["dense-s0/0"].Images("field")[0].encoded_image_string
    )
    files = {path: path.stat().st_mtime_ns for path in again.rglob("events.*")}
    assert train(tmp_path, "--log", "tensorboard")[1] == 0
    assert {path: path.stat().st_mtime_ns for path in again.rglob("events.*")} == files  # heard already


def test_a_folder_that_cannot_be_written_is_told_and_costs_no_number(tmp_path, capsys):
    short = SETTINGS | {"prune": {}, "train": SETTINGS["train"] | {"steps": 4}}
    folder, status = train(tmp_path, settings=short)
    assert status == 0
    (folder / "tensorboard").write_text("in the way")
    before = (folder / "results.csv").read_bytes()
    capsys.readouterr()
    assert train(tmp_path, "--log", "tensorboard", settings=short)[1] == 0
    said = capsys.readouterr().err
    assert "logger tensorboard: begin raised NotADirectoryError: " in said
    assert said.count("it is told nothing more, the run goes on") == 1
    assert (folder / "results.csv").read_bytes() == before


def test_classifiers_and_failures(tmp_path, monkeypatch):
    folder, status = train(tmp_path, "--log", "tensorboard", settings=MOONS)
    assert status == 0
    readers, rows = read(folder), rows_of(folder)
    accuracy = [float(row["accuracy_test"]) for row in rows if row["method"] != "unstructured"]
    assert [value for _, value in scalars(readers)["structured-s0", "stages/accuracy_test"]] == pytest.approx(
        accuracy, rel=SINGLE
    )
    assert readers["run"].Images("accuracy_vs_params")
    assert not [reader for reader in readers.values() if "field" in reader.Tags()["images"]]

    from sparseflows.experiment.folder.folder import RunFolder

    record = RunFolder.open(folder).records()[1]
    failed = type(record)(**{**vars(record), "status": "failed", "reason": "too wild", "accuracy_test": float("nan")})
    stage = folder / "cascades/unstructured-s0/stages/1/record.json"
    document = json.loads(stage.read_text())
    stage.write_text(json.dumps(sealed(document | vars(failed) | {"accuracy_test": None, "sha256": {}})))
    Loggers(folder, {"tensorboard": TensorBoard(folder)}).end(failed, None)  # without a begin
    readers = read(folder)
    assert text_of(readers["unstructured-s0/1"], "status") == "failed: too wild"
    assert len(scalars(readers)["unstructured-s0", "stages/accuracy_test"]) == 1  # the dense one
    assert "failed: unstructured, stage 1, seed 0: too wild" in text_of(readers["run"], "table")


def test_an_event_file_takes_the_place_of_the_one_before(tmp_path):
    for values in ([3.0, 2.0, 1.0], [5.0, float("nan"), None, float("inf"), 4.0]):
        with EventFile(tmp_path / "tensorboard/a") as file:
            for step, value in enumerate(values):
                file.scalar("loss", value, step)
    assert len(list((tmp_path / "tensorboard/a").iterdir())) == 1
    assert scalars(read(tmp_path)) == {("a", "loss"): [(0, 5.0), (4, 4.0)]}


def test_a_kill_between_two_event_files_shows_no_point_twice(tmp_path):
    folder = tmp_path / "tensorboard/a"
    with EventFile(folder) as file:
        for step in (1, 2, 3):
            file.scalar("loss", float(step), step)
    (before,) = folder.iterdir()
    content = before.read_bytes()
    with EventFile(folder) as file:
        file.scalar("loss", 10.0, 1)
    before.write_bytes(content)  # as if the process had died before it was removed
    assert len(list(folder.iterdir())) == 2
    assert scalars(read(tmp_path)) == {("a", "loss"): [(1, 10.0)]}


def test_flat():
    nested = {"a": 1, "b": {"c": True, "d": {"e": "x"}, "f": None}, "g": [1, 2], "h": {}}
    assert flat(nested) == {"a": 1, "b.c": True, "b.d.e": "x", "g": "[1, 2]"}


def test_nothing_but_this_needs_tensorboard():
    root = Path(__file__).resolve().parents[3]
    files = [path for package in ("analysis", "sparseflows") for path in (root / package).rglob("*.py")]
    named = re.compile(r"^\s*(from|import) (torch\.utils\.)?tensorboard\b", re.MULTILINE)
    naming = {str(path.relative_to(root)) for path in files if named.search(path.read_text())}
    assert naming == {"analysis/tensorboard/events.py"}
