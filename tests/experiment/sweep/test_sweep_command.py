"""`sparseflows run` on a sweep: the same numbers whoever works in whatever order, failures, two at once, bad disks."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml

SWEEP = {"flow.activation": ["silu", "tanh"], "zip": {"train.lr": [0.02, 0.01], "train.batch": [64, 32]}}
TIMES = ("train_seconds",)


@pytest.fixture(scope="module")
def sweep_file(tiny_params, tmp_path_factory):
    document = yaml.safe_load(tiny_params({"prune.keep_ratios": [0.6], "train.steps": 20, "prune.retrain.steps": 10}))
    path = tmp_path_factory.mktemp("param") / "sweep.yaml"
    path.write_text(yaml.safe_dump(document | {"name": "sweep", "seeds": [0, 1], "sweep": SWEEP}, sort_keys=False))
    return path


def rows_of(folder):
    with (folder / "results.csv").open(newline="") as stream:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(stream)]


def tensors_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("stages/[0-9]*/*.safetensors")}


@pytest.fixture(scope="module")
def swept(sweep_file, tmp_path_factory, call):
    """The sweep, by one job. Not to be written to."""
    out = tmp_path_factory.mktemp("swept")
    said = call("run", sweep_file, "--out", out)
    assert said.status == 0, said.err
    return out / "sweep", said


@contextlib.contextmanager
def small_disk(folder, kib):
    """A file system of its own with so much room."""
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_a_sweep_leaves(swept):
    folder, said = swept
    labels = [f"lr-{lr}_batch-{b}_activation-{a}" for lr, b in ((0.02, 64), (0.01, 32)) for a in ("silu", "tanh")]
    assert {p.name for p in folder.iterdir()} == {*labels, "sweep.json", "results.csv", "run.lock"}
    rows = rows_of(folder)
    assert len(rows) == 4 * 2 * 3
    assert [row["point"] for row in rows[::6]] == labels
    assert {(row["train.lr"], row["train.batch"]) for row in rows} == {("0.02", "64"), ("0.01", "32")}
    assert all(row["status"] == "done" for row in rows)
    index = json.loads((folder / "sweep.json").read_text())
    changes = {"train.lr": 0.02, "train.batch": 64, "flow.activation": "tanh"}
    cascades = {f"{method}-s{seed}": 1 for seed in (0, 1) for method in ("dense", "unstructured", "structured")}
    assert index["points"][labels[1]] == {"changes": changes, "cascades": cascades}
    for label in labels:
        assert [line.split()[0] for line in said.out.splitlines()].count(label) == 1
    assert "[24/24]" in said.err
    assert "[25/24]" not in said.err


def test_a_point_is_the_run_it_would_be_alone(swept, call, tmp_path):
    folder, _ = swept
    label = "lr-0.01_batch-32_activation-tanh"
    assert call("run", folder / label / "spec.yaml", "--out", tmp_path).status == 0
    assert tensors_of(tmp_path / label) == tensors_of(folder / label)


@pytest.mark.cluster
def test_the_same_numbers_from_processes_in_any_order(swept, sweep_file, call, tmp_path):
    folder, _ = swept
    document = yaml.safe_load(sweep_file.read_text())
    document["sweep"]["flow.activation"].reverse()
    document["seeds"].reverse()
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    said = call("run", path, "--out", tmp_path, "--jobs", "2", "--json")
    assert said.status == 0, said.err
    found = json.loads(said.out)
    assert found["failed"] == []
    assert len(found["runs"]) == 4
    key = ("point", "seed", "method", "stage")
    by_key = [sorted(rows_of(one), key=lambda row: [row[k] for k in key]) for one in (folder, tmp_path / "sweep")]
    assert by_key[0] == by_key[1]
    assert tensors_of(tmp_path / "sweep") == tensors_of(folder)


def test_again_is_instant_and_a_longer_list_adds_points(swept, sweep_file, call, tmp_path):
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("record.json")}
    said = call("run", sweep_file, "--out", tmp_path)
    assert said.status == 0
    assert said.out.replace(str(folder), str(swept[0])).splitlines()[:-1] == swept[1].out.splitlines()[:-1]
    assert re.fullmatch(r".* of work in .* s", said.out.splitlines()[-1])
    longer = call("run", sweep_file, "--out", tmp_path, "--set", "sweep.flow.activation=[silu, tanh, relu]")
    assert longer.status == 0, longer.err
    assert len([line for line in longer.err.splitlines() if line.startswith("[")]) == 12  # 24 were there
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(rows_of(folder)) == 36
    shorter = call("run", sweep_file, "--out", tmp_path)
    assert "has 2 more points, of earlier lists" in shorter.err
    assert len(rows_of(folder)) == 36
    assert "36 of 36 stages there" in call("status", folder).out


def test_other_settings_are_another_sweep_and_names_that_are_taken_are_left_alone(sweep_file, call, tmp_path):
    quick = ["--set", "sweep.flow={activation: [relu]}", "--set", "sweep.zip={train.lr: [0.01]}", "--set", "seeds=[0]"]
    quick += ["--set", "prune.methods=[structured]", "--out", tmp_path]
    assert call("run", sweep_file, *quick, "--set", "sweep={train.lr: [0.1]}").status == 0
    assert call("run", sweep_file, *quick, "--set", "sweep={train.lr: [0.2]}").status == 0
    assert call("run", sweep_file, *quick, "--set", "sweep={train.lr: [0.1]}", "--set", "train.steps=3").status == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert re.fullmatch("sweep-[0-9a-f]{8}", names[1])
    assert [len(rows_of(tmp_path / name)) for name in names] == [4, 2]


def test_a_damaged_spec_is_written_anew(swept, sweep_file, call, tmp_path):
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    spec = folder / "lr-0.01_batch-32_activation-tanh" / "spec.yaml"
    right = spec.read_text()
    for text in ("", "7", "name: x\nnonsense: 3\n"):
        spec.write_text(text)
        assert call("run", sweep_file, "--out", tmp_path).status == 0
        assert spec.read_text() == right


def test_status_counts_what_has_not_begun(swept, call, tmp_path):
    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    shutil.rmtree(folder / "lr-0.01_batch-32_activation-tanh")
    assert "18 of 24 stages there" in call("status", folder).out


def test_what_cannot_be_done_does_not_stop_the_rest_and_is_listed(sweep_file, call, tmp_path, monkeypatch):
    from sparseflows.errors import InputError
    from sparseflows.experiment.scheduling import tasks

    real = tasks.run_sequence

    def refuse(context, protocol, method):
        if context.spec.flow.activation == "tanh" and method == "structured" and context.seed == 1:
            raise InputError("made to fail")
        real(context, protocol, method)

    monkeypatch.setattr(tasks, "run_sequence", refuse)
    said = call("run", sweep_file, "--out", tmp_path)
    assert said.status == 1
    assert said.out.count("made to fail") == 2
    assert "2 failed:" in said.out
    assert said.err.splitlines()[-1].startswith("sparseflows: ")
    assert len(rows_of(tmp_path / "sweep")) == 22
    monkeypatch.undo()
    assert call("run", sweep_file, "--out", tmp_path).status == 0
    assert len(rows_of(tmp_path / "sweep")) == 24


@pytest.mark.cluster
def test_status(swept, sweep_file, call, tmp_path, start_process):
    folder, _ = swept
    said = call("status", folder)
    assert said.status == 0
    assert said.out == f"{folder}: 24 of 24 stages there, 0 failed; cascades: 24 done\n"
    found = json.loads(call("status", folder, "--json").out)
    assert (found["stages"], found["done"], len(found["cascades"])) == (24, 24, 24)

    part = shutil.copytree(folder, tmp_path / "sweep")
    shutil.rmtree(part / "lr-0.01_batch-32_activation-tanh")
    shutil.rmtree(part / "lr-0.01_batch-32_activation-silu" / "cascades" / "structured-s1" / "stages" / "1")
    said = call("status", part).out
    assert "17 of 24" in said
    assert "nobody is at work" in said

    process = start_process(
        ["run", sweep_file, "--out", tmp_path / "long", "--set", "train.steps=100000"], tmp_path / "log"
    )
    end = time.monotonic() + 60
    while "at work:" not in (said := call("status", tmp_path / "long" / "sweep").out):
        assert time.monotonic() < end, said
        time.sleep(0.2)
    assert "dense-s0" in said
    assert str(process.pid) in said
    process.kill()
    assert "nobody is at work" in call("status", tmp_path / "long" / "sweep").out

    refused = call("status", tmp_path)
    assert refused.status == 2
    assert "neither the folder of a run nor of a sweep" in refused.err


@pytest.mark.cluster
def test_two_at_once_no_stage_twice_no_file_torn(sweep_file, swept, call, tmp_path, start_process):
    two_at_once(4, sweep_file, swept[0], tmp_path, start_process)


@pytest.mark.slow
def test_two_at_once_fifty_times(sweep_file, swept, tmp_path, start_process):
    two_at_once(50, sweep_file, swept[0], tmp_path, start_process)


# Tells each stage that a process trains.
TELL = """
from sparseflows.experiment.stages import stage
train = stage.train
def told(*arguments, **settings):
    with open(log, "a") as stream:
        stream.write(f"TRAINED {settings['seed']} {settings['purpose']} {arguments[2].device} {arguments[3].lr} "
                     f"{type(arguments[0]).__name__} {next(arguments[0].fields()).activation}\\n")
    return train(*arguments, **settings)
stage.train = told
"""


def two_at_once(tries, sweep_file, finished, tmp_path, start_process):
    """Two `run` on one folder: one is refused, or they share the work; each try in one of the two ways."""
    wanted, tensors = rows_of(finished), tensors_of(finished)
    for number in range(tries):
        out, logs = tmp_path / str(number), [tmp_path / f"{number}-{i}.log" for i in range(2)]
        join = ["--join"] if number % 2 else []
        started = [start_process(["run", sweep_file, "--out", out, *join], log, TELL) for log in logs]
        statuses = [one.wait(120) for one in started]
        text = "".join(log.read_text() for log in logs)
        if join:
            assert statuses == [0, 0], text
        else:
            assert sorted(statuses) == [0, 2], text
            assert text.count("another `sparseflows run` is at work in this folder; wait for it") == 1
        trained = [line for line in text.splitlines() if line.startswith("TRAINED")]
        assert len(trained) == len(set(trained)) == 24, trained
        assert rows_of(out / "sweep") == wanted
        assert tensors_of(out / "sweep") == tensors
        assert not [
            p for pattern in (".*.tmp", ".writing*", "*.pt", ".damaged*", "cascade.lock") for p in out.rglob(pattern)
        ]


@pytest.mark.cluster
def test_a_full_disk_is_one_line_and_loses_nothing(sweep_file, swept, call, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 200):
        for jobs in ("1", "2"):
            said = call("run", sweep_file, "--out", disk, "--jobs", jobs)
            assert said.status == 1
            *_, last = said.err.splitlines()
            assert last.startswith(f"sparseflows: {disk}")
            assert last.endswith("(No space left on device)")
            assert said.out == ""
        there = {path: path.read_bytes() for path in disk.rglob("record.json") if ".writing" not in str(path)}
        assert there
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert call("run", sweep_file, "--out", disk).status == 0
        assert {path: path.read_bytes() for path in there} == there
        assert rows_of(disk / "sweep") == rows_of(swept[0])


def test_a_disk_that_cannot_be_written_to(sweep_file, call, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 200):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = call("run", sweep_file, "--out", disk)
    assert said.status == 2
    assert said.err == (
        f"sparseflows: {disk / 'sweep'}: cannot write a folder here (Read-only file system); give another with --out\n"
    )


@pytest.mark.cluster
def test_ctrl_c_and_kill_go_on_where_they_were(sweep_file, swept, call, tmp_path, start_process):
    for signal_, jobs in ((signal.SIGINT, "1"), (signal.SIGKILL, "2"), (signal.SIGINT, "2")):
        process = start_process(["run", sweep_file, "--out", tmp_path, "--jobs", jobs], tmp_path / "log")
        end, before = time.monotonic() + 60, len(list(tmp_path.glob("sweep/lr-*/cascades/*/stages/[0-9]*")))
        while len(list(tmp_path.glob("sweep/lr-*/cascades/*/stages/[0-9]*"))) < before + 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(process.pid, signal_)
        assert process.wait(30) in (130, -signal.SIGKILL)
    end = time.monotonic() + 20  # workers of a killed run end within a second, and hold their cascades till then
    while (said := call("run", sweep_file, "--out", tmp_path)).status == 2:
        assert time.monotonic() < end, said.err
        time.sleep(0.2)
    assert said.status == 0, said.err
    assert rows_of(tmp_path / "sweep") == rows_of(swept[0])
    assert tensors_of(tmp_path / "sweep") == tensors_of(swept[0])
    assert not [p for pattern in (".*.tmp", "*.pt", ".coordinator*") for p in tmp_path.rglob(pattern)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "dask"], "--backend dask: give the scheduler's address: --address tcp://HOST:8786"),
        (
            ["--backend", "dask", "--address", "tcp://127.0.0.1:1"],
            "--address tcp://127.0.0.1:1: no Dask scheduler answers there (Connection refused); give what "
            "`dask scheduler` prints, as tcp://HOST:8786",
        ),
        (
            ["--backend", "ray", "--address", "127.0.0.1:1"],
            "--address 127.0.0.1:1: no Ray cluster answers there (Connection refused); give the HOST:PORT that "
            "`ray start --head` prints, or auto",
        ),
        (["--address", "x"], "--address goes with --backend dask or ray; the local one works on this machine"),
        (
            ["--gpus-per-task", "0.5", "--backend", "ray"],
            "--gpus-per-task goes with device: cuda; the settings say device: cpu",
        ),
        (
            ["--backend", "dask", "--jobs", "2"],
            "--jobs goes with the local backend; --backend dask takes all workers of the cluster",
        ),
        (["--force", "--join"], "--join takes part in what is there, --force starts over: give one of them"),
    ],
)
def test_options_that_are_refused(sweep_file, call, tmp_path, options, said):
    for param in (sweep_file, [sweep_file, "--set", "sweep.train.lr=[0.1]"]):
        arguments = param if isinstance(param, list) else [param]
        found = call("run", *arguments[:1], "--out", tmp_path / "out", *options)
        assert (found.status, found.out, found.err) == (2, "", f"sparseflows: {said}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed(sweep_file, call, tmp_path, monkeypatch, backend, module):
    from sparseflows.experiment.scheduling import workers

    find = workers.find_spec
    monkeypatch.setattr(workers, "find_spec", lambda name: None if name == module else find(name))
    said = call("run", sweep_file, "--out", tmp_path / "out", "--backend", backend, "--address", "127.0.0.1:1")
    assert said.status == 2
    assert (
        said.err
        == f"sparseflows: --backend {backend}: {module} is not installed: pip install 'sparseflows[{backend}]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_sweeps_folder_given_for_a_runs(swept, call, tmp_path):
    said = call("sample", swept[0], "-n", "3", "-o", tmp_path / "x.npy")
    assert said.status == 2
    assert said.err == f"sparseflows: {swept[0]}: the folder of a sweep; give one of the runs in it\n"


def test_analyses_take_a_sweep_for_its_runs(swept, tmp_path):
    from analysis.cli.app import app
    from sparseflows.cli.console import run_app

    folder = shutil.copytree(swept[0], tmp_path / "sweep")
    assert run_app(app, "analysis", ["table", str(folder)]) == 0
    text = (folder / "analysis" / "table.txt").read_text()
    assert text.count("run lr-") == 4
