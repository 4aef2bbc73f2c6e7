"""Run folders: their layout, whose they are, how they are written and what is refused."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
import yaml

from sparseflows.errors import InputError, RunError
from sparseflows.experiment.folder import stage_files as store
from sparseflows.experiment.folder.folder import DamagedStage, RunFolder, identity
from sparseflows.experiment.folder.records import Record, to_csv
from sparseflows.files import output_folder, write_whole
from sparseflows.specs.yaml import load_spec

COLUMNS = (
    *("dataset", "objective", "protocol", "method", "seed", "stage", "status", "reason", "keep_ratio_target"),
    *("prune_ratio", "params", "params_dense", "nll_val", "nll_test", "nll_test_se", "n_test", "nll_train"),
    *(
        "kl_gap",
        "kl_gap_se",
        "accuracy_test",
        "loss_test",
        "nfe",
        "train_steps",
        "train_seconds",
        "loss_val",
        "steps_total",
        "rows_unsolved",
        "rows_infinite",
    ),
)
LABELS = ["dense-s0/0", *(f"{method}-s0/{k}" for method in ("unstructured", "structured") for k in (1, 2, 3))]


@pytest.fixture
def spec(param):
    return load_spec(param)


@pytest.fixture
def folder(spec, tmp_path):
    """A run folder with nothing in it yet."""
    return RunFolder.claim(tmp_path, spec, None)


def record_of(stage: int, method: str = "unstructured", **changes) -> Record:
    values = {"dataset": "rings", "objective": "nll", "protocol": "cascade", "method": method, "seed": 0}
    return Record(**(values | {"stage": stage, "status": "done"} | changes))


def refusal(call, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what a run leaves behind


def test_layout(finished, stages):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    of_run = {"spec.yaml", "run.json", "data.json", "results.csv", "metrics.jsonl", "run.lock"}
    of_stages = {
        f"cascades/{cascade}/stages/{k}/{name}"
        for cascade, k in (label.split("/") for label in LABELS)
        for name in ("model.safetensors", "masks.safetensors", "record.json")
    }
    assert names == of_run | of_stages
    assert sorted(stages(finished)) == sorted(LABELS)
    assert sorted(path.name for path in finished.parent.iterdir()) == ["tiny"]


def test_spec_yaml_holds_every_setting(finished, param):
    spec = load_spec(param)
    assert load_spec(finished / "spec.yaml") == spec
    assert yaml.safe_load((finished / "spec.yaml").read_text()) == spec.model_dump()  # defaults are written out
    assert RunFolder.open(finished).spec == spec


def test_results_has_the_columns_and_rows_in_order(finished, rows):
    head = (finished / "results.csv").read_text().splitlines()[0]
    assert head == ",".join(COLUMNS)
    table = rows(finished)
    assert [f"{row['method']}-s{row['seed']}/{row['stage']}" for row in table] == LABELS
    for row in table:
        assert (row["dataset"], row["objective"], row["protocol"]) == ("gaussian_spiral", "flow_matching", "cascade")
        assert row["status"] == "done"
        empty = {name for name, cell in row.items() if cell == ""}
        expected = {"reason", "accuracy_test", "loss_test", "loss_val"}
        assert empty == (expected | {"keep_ratio_target"} if row["method"] == "dense" else expected)
        assert (row["n_test"], row["params_dense"]) == ("50", "122")
        assert row["train_steps"] == ("60" if row["method"] == "dense" else "40")
    assert [row["keep_ratio_target"] for row in table] == ["", *["0.7", "0.5", "0.3"] * 2]


def test_prune_ratio_is_the_one_counted(finished, rows):
    from safetensors.torch import load_file

    for row in rows(finished):
        stage = finished / "cascades" / f"{row['method']}-s0" / "stages" / row["stage"]
        kept = sum(int(mask.sum()) for mask in load_file(stage / "masks.safetensors").values())
        model = load_file(stage / "model.safetensors")
        assert kept == int(row["params"])
        if row["method"] == "structured":  # physically smaller
            assert sum(tensor.numel() for tensor in model.values()) == kept
        else:
            assert sum(tensor.numel() for tensor in model.values()) == 122
            assert sum(int((tensor != 0).sum()) for tensor in model.values()) <= kept
        assert float(row["prune_ratio"]) == 1 - kept / 122
        if row["keep_ratio_target"]:
            assert abs(kept / 122 - float(row["keep_ratio_target"])) < 0.06


def test_masked_weights_are_exactly_zero(finished):
    from safetensors.torch import load_file

    for k in (1, 2, 3):
        stage = finished / f"cascades/unstructured-s0/stages/{k}"
        model, masks = load_file(stage / "model.safetensors"), load_file(stage / "masks.safetensors")
        assert model.keys() == masks.keys()
        assert all((tensor[~masks[name]] == 0).all() for name, tensor in model.items())
        assert any((~mask).any() for mask in masks.values())


def test_stages_of_a_cascade_only_lose(finished):
    from safetensors.torch import load_file

    for method in ("unstructured", "structured"):
        masks = [load_file(finished / f"cascades/{method}-s0/stages/{k}/masks.safetensors") for k in (1, 2, 3)]
        for before, after in pairwise(masks):
            assert all((before[name] | ~after[name]).all() for name in before)


def test_numbers_are_written_at_full_precision(finished, rows):
    for row in rows(finished):
        stage = finished / "cascades" / f"{row['method']}-s0" / "stages" / row["stage"]
        record = json.loads((stage / "record.json").read_text())
        for name in ("nll_val", "nll_test", "nll_test_se", "nll_train", "kl_gap", "kl_gap_se", "prune_ratio"):
            assert float(row[name]) == record[name]
        assert len(row["nll_test"]) > 12


def test_metrics_tell_how_each_stage_was_trained(finished):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for label in LABELS:
        own = [line for line in lines if f"{line['method']}-s{line['seed']}/{line['stage']}" == label]
        *history, summary = own
        assert [line["step"] for line in history] == sorted({line["step"] for line in history})
        assert history[-1]["step"] == (60 if label == "dense-s0/0" else 40)
        assert len(history) == 40
        assert all(math.isfinite(line["loss"]) and line["lr"] == 0.02 and line["nfe"] == 1 for line in history)
        assert summary["attempts"] == 1
        assert "solver_discrepancy" not in summary  # nothing to compare: flow matching solves no ODE
    assert len(lines) == len(LABELS) * 41


# --- the same settings, other settings


def test_the_same_settings_do_nothing_twice(run, run_again, tree, monkeypatch):
    def train(*args, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr("sparseflows.experiment.stages.stage.train", train)
    before = tree(run)
    said = run_again(run)
    assert said.status == 0
    assert "dense-s0/0 " in said.out
    assert tree(run) == before  # results.csv to the byte, and all the rest
    assert len(said.err.splitlines()) == 1


def test_results_are_made_anew_from_the_stages(run, run_again, numbers):
    before = numbers(run)
    (run / "results.csv").write_text("mangled")
    (run / "metrics.jsonl").unlink()
    assert run_again(run).status == 0
    assert numbers(run) == before


def test_other_settings_get_a_folder_of_their_own(spec, tmp_path, changed):
    first = RunFolder.claim(tmp_path, spec, None)
    assert first.path == tmp_path / "tiny"
    other = load_spec(changed({"train.lr": 0.01}))
    second = RunFolder.claim(tmp_path, other, None)
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", second.path.name)
    assert second.path.name.endswith(identity(other, None)[:8])
    assert RunFolder.claim(tmp_path, spec, None).path == first.path
    assert RunFolder.claim(tmp_path, other, None).path == second.path
    assert RunFolder.open(second.path).spec.train.lr == 0.01


def test_a_folder_is_found_again_though_the_plain_name_is_free(spec, tmp_path, changed):
    other = load_spec(changed({"train.lr": 0.01}))
    RunFolder.claim(tmp_path, spec, None)
    mine = RunFolder.claim(tmp_path, other, None).path
    (tmp_path / "tiny").rename(tmp_path / "put away")
    assert RunFolder.claim(tmp_path, other, None).path == mine


def test_other_bytes_in_the_users_table_are_another_experiment(tmp_path, changed, call):
    table = tmp_path / "table.npy"
    np.save(table, np.random.default_rng(0).normal(size=(60, 2)))
    param = changed({"data": {"name": "table", "path": str(table)}, "train.steps": 2, "prune": {}, "flow.hidden": [2]})
    for count, seed in ((1, 0), (2, 1), (2, 0)):  # the first table again: found again
        np.save(table, np.random.default_rng(seed).normal(size=(60, 2)))
        assert call("run", param, "--out", tmp_path / "runs").status == 0
        assert len(list((tmp_path / "runs").iterdir())) == count


def test_force_keeps_what_was_there(run, run_again, tree, numbers):
    before, mine = tree(run), numbers(run)
    said = run_again(run, "--force")
    assert said.status == 0
    assert "[7/7]" in said.err  # all made again
    assert tree(run.with_name("tiny.old-1")) == before
    assert numbers(run) == mine


def test_force_numbers_the_old_folders_and_leaves_other_settings_alone(spec, tmp_path, changed):
    other = load_spec(changed({"train.lr": 0.01}))
    RunFolder.claim(tmp_path, other, None)
    for _ in range(3):
        mine = RunFolder.claim(tmp_path, spec, None, force=True).path
    assert mine.name.startswith("tiny-")
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {"tiny", mine.name, f"{mine.name}.old-1", f"{mine.name}.old-2"}
    assert RunFolder.open(tmp_path / "tiny").spec == other


def test_force_does_not_pull_the_folder_from_under_a_run(folder, spec):
    with folder.lock():
        message = refusal(RunFolder.claim, folder.path.parent, spec, None, force=True)
    assert "another `sparseflows run` is at work" in message
    assert [path.name for path in folder.path.parent.iterdir() if path.is_dir()] == ["tiny"]


@pytest.mark.parametrize("format_", [2, "1", None])
def test_a_folder_of_another_format_is_left_alone(run, run_again, call, tree, tmp_path, format_):
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(document | {"format": format_}))
    before = tree(tmp_path)
    points = tmp_path / "p.npy"
    for said in (
        run_again(run),
        run_again(run, "--force"),
        call("sample", run, "-n", "5", "-o", points),
        call("score", run, points),
    ):
        assert said.status == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert f"(format {format_}; this one writes 1)" in said.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file"])
def test_a_foreign_thing_of_that_name_is_not_touched(spec, tmp_path, tree, kind):
    path = tmp_path / "tiny"
    if kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "results.csv").write_text("mine")
    before = tree(tmp_path)
    mine = RunFolder.claim(tmp_path, spec, None).path
    assert mine.name.startswith("tiny-")
    after = tree(tmp_path)
    assert {name: content for name, content in after.items() if not name.startswith("tiny-")} == before
    assert RunFolder.claim(tmp_path, spec, None, force=True).path == mine
    mine.rename(tmp_path / "elsewhere")
    mine.mkdir()
    message = refusal(RunFolder.claim, tmp_path, spec, None)
    assert message == f"{mine}: taken by something else; give another folder with --out"


def test_a_damaged_run_json_is_named(folder, spec):
    (folder.path / "run.json").write_text("{")
    for attempt in (lambda: RunFolder.open(folder.path), lambda: RunFolder.claim(folder.path.parent, spec, None)):
        assert f"{folder.path / 'run.json'}: damaged" in refusal(attempt)


@pytest.mark.parametrize("content", [b"- 1\n", b"\xff\xfe\x00", b""])
def test_a_damaged_spec_is_named(folder, content):
    (folder.path / "spec.yaml").write_bytes(content)
    assert refusal(RunFolder.open, folder.path).startswith(f"{folder.path / 'spec.yaml'}: damaged")


def test_what_is_no_run_folder_is_refused(tmp_path):
    assert "no such run folder" in refusal(RunFolder.open, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "no such run folder" in refusal(RunFolder.open, tmp_path / "file")
    assert "not a run folder (it has no spec.yaml and run.json)" in refusal(RunFolder.open, tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", '{"shift": [0.0]}'])
def test_damaged_statistics_of_the_data_are_named(folder, content):
    if content is not None:
        (folder.path / "data.json").write_text(content)
    message = refusal(folder.read_data)
    assert f"{folder.path / 'data.json'}: missing or damaged" in message
    assert "run the experiment again" in message


def test_a_changed_digit_in_the_statistics_of_the_data_is_seen(run, call, tmp_path):
    path = run / "data.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"shift": [0.5, 0.25]}))
    said = call("sample", run, "-n", "2", "-o", tmp_path / "x.npy")
    assert (said.status, said.out) == (2, "")
    assert said.err == f"sparseflows: {path}: missing or damaged (not what was written); run the experiment again\n"
    path.write_text(json.dumps({key: value for key, value in document.items() if key != "digest"}))  # an older run's
    assert call("sample", run, "-n", "2", "-o", tmp_path / "x.npy").status == 0


def test_where_nothing_can_be_written(tmp_path, call, param):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        said = call("run", param, "--out", out)
        assert said.status == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert said.err.startswith(f"sparseflows: {out}/tiny: cannot write a folder here (")
        assert said.err.endswith("); give another with --out\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to change the user")
def test_where_the_user_may_not_write_or_look(spec, tmp_path, call, param):
    RunFolder.claim(tmp_path / "readable", spec, None)
    (tmp_path / "closed").mkdir()
    for path in (*tmp_path.parents, tmp_path, tmp_path / "readable"):
        if path != path.parent and path.stat().st_uid == 0:
            path.chmod(path.stat().st_mode | 0o055)
    (tmp_path / "closed").chmod(0o700)
    param.parent.chmod(0o755)
    param.parent.parent.chmod(0o755)
    os.seteuid(65534)
    try:
        said = [call("run", param, "--out", tmp_path / name) for name in ("readable", "closed", "new")]
        score = call("score", tmp_path / "closed" / "tiny", tmp_path / "points.npy")
    finally:
        os.seteuid(0)
    for one in (*said, score):
        assert one.status == 2, one.err
        assert one.err.count("\n") == 1
    assert all("(Permission denied)" in one.err and "--out" in one.err for one in said)


# --- the lock


def test_the_lock_is_held_once(folder):
    twin = RunFolder(folder.path, folder.spec)
    message = "another `sparseflows run` is at work in this folder; wait for it"
    with folder.lock(), pytest.raises(InputError, match=message):
        twin.lock().__enter__()
    with twin.lock():
        pass


def test_a_worker_that_outlives_its_parent_still_bars_others(folder):
    with folder.lock():
        worker = folder.share_lock()
        worker.__enter__()
    with pytest.raises(InputError, match="is at work"):
        folder.lock().__enter__()
    worker.__exit__(None, None, None)
    with folder.lock():
        pass


def test_the_lock_file_may_be_there_already(folder):
    with (folder.path / "run.lock").open("a+") as stream:  # of someone who looks, but does not hold it
        with folder.lock(), pytest.raises(OSError, match="unavailable"):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_locking_removes_what_killed_processes_had_begun(folder):
    begun = [folder.path / ".results.csv-77.tmp", folder.path / "cascades/dense-s0/checkpoints/.stage-0.pt-77.tmp"]
    others = [folder.path / "analysis/.table.txt-77.tmp", folder.path / ".notes-77.tmp", folder.path / "a.tmp"]
    for path in (*begun, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with folder.lock():
        assert [path.exists() for path in (*begun, *others)] == [False, False, True, True, True]


# --- stages


def test_a_stage_is_written_whole_or_not_at_all(folder, monkeypatch, tree):
    folder.write_stage(record_of(1), {"model.safetensors": b"one"}, [])
    before = tree(folder.path)

    def fail(path, content):
        if path.name == "record.json":
            raise RunError("no space left")
        write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_whole", fail)
        with pytest.raises(RunError, match="no space left"):
            folder.write_stage(record_of(2), {"model.safetensors": b"two"}, [])
    after = tree(folder.path)
    added = {name for name in after if name not in before}
    assert all("/.writing-2" in name for name in added)
    assert {name: after[name] for name in before} == before
    assert folder.read_stage("unstructured-s0", 2) is None
    folder.write_stage(record_of(2), {"model.safetensors": b"two"}, [])
    assert folder.read_stage("unstructured-s0", 2) == record_of(2)
    assert not list(folder.path.rglob(".writing*"))


def test_a_stage_that_is_there_is_never_written_over(folder):
    folder.write_stage(record_of(1), {"model.safetensors": b"one"}, [])
    with pytest.raises(RunError, match="could not be written"):
        folder.write_stage(record_of(1, params=3), {"model.safetensors": b"two"}, [])
    assert folder.read_stage("unstructured-s0", 1) == record_of(1)


@pytest.mark.parametrize("name", ["model.safetensors", "masks.safetensors", "record.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "changed"])
def test_damage_is_seen_and_named(folder, name, damage):
    folder.write_stage(record_of(1), {"model.safetensors": b"model", "masks.safetensors": b"masks"}, [])
    path = folder.stage("unstructured-s0", 1) / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "truncated" else b"x" + content[1:])
    with pytest.raises(DamagedStage) as caught:
        folder.read_stage("unstructured-s0", 1)
    assert str(caught.value) == f"{path}: missing or damaged"
    assert caught.value.folder == path.parent
    twin = pickle.loads(pickle.dumps(caught.value))  # as it comes back from a worker process
    assert (str(twin), twin.folder) == (str(caught.value), path.parent)


@pytest.mark.parametrize("document", ["[]", "3", "null", '{"status": "done"}', '["status", "sha256", "metrics"]'])
def test_a_record_that_is_none_is_damaged(folder, document):
    folder.write_stage(record_of(1), {}, [])
    (folder.stage("unstructured-s0", 1) / "record.json").write_text(document)
    with pytest.raises(DamagedStage):
        folder.read_stage("unstructured-s0", 1)
    assert folder.records() == []


def test_damaged_things_are_set_aside_under_free_names(tmp_path, folder):
    for n in (1, 2):
        (tmp_path / "3").mkdir()
        assert folder.set_aside(tmp_path / "3") == tmp_path / f".damaged-{n}-3"
    assert not (tmp_path / "3").exists()


def test_records_come_by_seed_then_method_then_stage(tmp_path, changed):
    spec = load_spec(changed({"seeds": [3, 1], "prune.methods": ["structured", "unstructured"]}))
    folder = RunFolder.claim(tmp_path / "runs", spec, None)
    names = [(s, m, k) for s in (1, 3) for m in ("dense", "unstructured", "structured") for k in (10, 2, 1, 0)]
    for seed, method, stage in names:
        folder.write_stage(record_of(stage, method, seed=seed), {}, [{"step": 1, "loss": 0.1}])
    assert [(r.seed, r.method, r.stage) for r in folder.records()] == [
        (seed, method, stage)
        for seed in (3, 1)
        for method, stages in (("dense", (0,)), ("structured", (1, 2)), ("unstructured", (1, 2)))
        for stage in stages
    ]
    folder.write_results()  # a busy machine writes it less often
    first = json.loads((folder.path / "metrics.jsonl").read_text().splitlines()[0])
    assert first == {"method": "dense", "seed": 3, "stage": 0, "step": 1, "loss": 0.1}


def test_cells_of_results():
    record = record_of(1, reason='a "b", c', nll_test=1 / 3, nll_val=math.nan, prune_ratio=0.0, params=0, kl_gap=1e-20)
    head, row = to_csv([record]).splitlines()
    assert head == ",".join(COLUMNS)
    cells = dict(zip(COLUMNS, row.replace('"a ""b"", c"', "REASON").split(","), strict=True))
    assert cells["reason"] == "REASON"
    assert cells["nll_test"] == "0.3333333333333333"
    assert (cells["nll_val"], cells["prune_ratio"], cells["params"], cells["kl_gap"]) == ("", "0.0", "0", "1e-20")
    assert cells["accuracy_test"] == cells["nfe"] == cells["train_seconds"] == ""


# --- files


def test_write_whole_keeps_the_old_file_until_the_new_one_is_there(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_whole(path, "é")
    assert path.read_bytes() == "é".encode()
    write_whole(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"

    def fail(descriptor):
        assert path.read_bytes() == b"\x00\xff"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparseflows.files.os.fsync", fail)
    with pytest.raises(RunError, match=r"file\.txt: could not be written \(No space left on device\)"):
        write_whole(path, "new")
    assert path.read_bytes() == b"\x00\xff"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_write_whole_says_where_it_failed(tmp_path):
    with pytest.raises(RunError, match="could not be written"):
        write_whole(tmp_path / "no" / "file", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="could not be written"):
        write_whole(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_output_folder_is_made_and_tried(tmp_path):
    path = tmp_path / "a" / "b"
    assert output_folder(path, "give another") == path
    assert output_folder(path, "give another") == path
    assert list(path.iterdir()) == []
    (tmp_path / "file").touch()
    message = refusal(output_folder, tmp_path / "file", "give another")
    assert message.startswith(f"{tmp_path / 'file'}: cannot write here (")
    assert message.endswith("; give another")
