"""The experiment as a whole: what is trained from what, side by side or not, and with a whitening map."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseflows import load
from sparseflows.data.splits import make_splits
from sparseflows.data.whitening import whitening_matrix
from sparseflows.distributed import torchrun
from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.rows import prepare
from sparseflows.experiment.scheduling.run import run_experiment
from sparseflows.experiment.stages import stage as stage_module
from sparseflows.experiment.stages.context import check_device
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs.yaml import load_spec


@pytest.fixture
def trained(monkeypatch):
    """Purpose and start of each training."""
    seen = []
    train = stage_module.train

    def note(flow, *args, purpose, seed, **options):
        seen.append((purpose, seed))
        return train(flow, *args, purpose=purpose, seed=seed, **options)

    monkeypatch.setattr(stage_module, "train", note)
    return seen


def test_the_dense_flow_is_trained_once_a_seed(changed, tmp_path, call, trained, rows):
    param = changed({"seeds": [5, 2], "prune.keep_ratios": [0.5], "train.steps": 4, "prune.retrain": {"steps": 3}})
    assert call("run", param, "--out", tmp_path).status == 0
    per_seed = ["dense/0", "unstructured/1", "structured/1"]
    assert trained == [(purpose, seed) for seed in (5, 2) for purpose in per_seed]
    table = rows(tmp_path / "tiny")
    assert [(row["method"], row["seed"]) for row in table] == [
        (purpose.split("/")[0], str(seed)) for purpose, seed in trained
    ]
    assert len({row["nll_test"] for row in table}) == 6  # seeds matter


def test_a_run_without_pruning_is_one_dense_flow(changed, tmp_path, call, rows):
    said = call("run", changed({"prune": {}, "train.steps": 3}), "--out", tmp_path)
    assert said.status == 0
    (row,) = rows(tmp_path / "tiny")
    assert (row["method"], row["prune_ratio"]) == ("dense", "0.0")
    assert "[1/1] dense-s0/0" in said.err


def test_from_python_it_gives_the_records_of_results_csv(param, finished, tmp_path, capsys, rows):
    spec = load_spec(param)
    splits, digest = prepare(spec)
    run = RunFolder.claim(tmp_path, spec, digest)
    with run.lock():
        records = run_experiment(spec, run, splits, Progress(stream=sys.stderr))
    assert all(isinstance(record, Record) for record in records)
    wanted = [(row["method"], row["stage"], float(row["nll_test"])) for row in rows(finished)]
    assert [(r.method, str(r.stage), r.nll_test) for r in records] == wanted
    assert capsys.readouterr().out == ""


def test_a_device_that_is_not_there(changed, tmp_path, call):
    check_device("cpu")
    if torch.cuda.is_available():
        return
    with pytest.raises(InputError, match="device: cuda: PyTorch finds no GPU here; set device: cpu"):
        check_device("cuda")
    said = call("run", changed({"device": "cuda:1"}), "--out", tmp_path)
    assert said.status == 2
    assert "device: cuda:1: PyTorch finds no GPU here" in said.err


# --- side by side


def start_jobs(param: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """`--jobs 2` in a process of its own, its output in `log`."""
    command = [sys.executable, "-m", "sparseflows", "run", param, "--out", out, "--jobs", "2"]
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream)


def test_two_jobs_compute_what_one_computes(param, finished, tmp_path, numbers, call):
    done = call("run", param, "--out", tmp_path, "--jobs", 2)
    assert done.status == 0
    assert numbers(tmp_path / "tiny") == numbers(finished)
    said = done.err.splitlines()
    assert said[0] == f"tiny: results go to {tmp_path / 'tiny'}"
    assert said[1].startswith("[1/7] dense-s0/0  122 params, PR 0.0 %, NLL ")
    assert len([line for line in said[2:8] if " params, PR " in line]) == 6  # as they come
    assert [line.split("]")[0] for line in said[1:8]] == [f"[{n}/7" for n in range(1, 8)]
    assert done.out.startswith("stage  ")


@pytest.mark.skipif(find_spec("ziglang") is not None, reason="ziglang is a compiler that no path hides")
def test_a_missing_engine_is_said_once_with_the_remedy(param, tmp_path):
    command = [sys.executable, "-m", "sparseflows", "run", param, "--out", tmp_path, "--jobs", "2", "--json"]
    alone = {"PATH": "", "CC": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, env=os.environ | alone, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["stages"]) == 7
    assert [line for line in done.stderr.splitlines() if "compiler" in line] == [
        'no C compiler was found (cc, gcc, clang); pip install "sparseflows[engine]" brings a compiler: small flows '
        "take the plain path, which is slower; the numbers agree to the tolerance"
    ]


def workers_of(pid: int) -> list[int]:
    """The processes that the fork server of `pid` has forked."""
    parents, servers = {}, set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if "multiprocessing.forkserver" in (folder / "cmdline").read_text():
                servers.add(int(folder.name))
        except OSError:
            continue
    servers = {one for one in servers if parents[one] == pid}
    return [one for one, parent in parents.items() if parent in servers]


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_workers_that_are_lost_again_and_again_are_one_line(param, tmp_path, call, monkeypatch):
    calls = []

    def broken(function, tasks, jobs):
        calls.append(len(tasks))
        raise BrokenProcessPool("A worker process managed by the executor was unexpectedly terminated.")

    monkeypatch.setattr("sparseflows.experiment.scheduling.pool.side_by_side", broken)
    said = call("run", param, "--out", tmp_path, "--jobs", "3")
    assert said.status == 1
    assert calls == [2, 2, 2]
    assert said.err.splitlines()[-1].startswith(f"sparseflows: {tmp_path / 'tiny'}: a worker process was killed (")


def test_a_worker_ends_with_its_parent(monkeypatch):
    parents, ended = iter([7, 7, 7, 1]), threading.Event()
    monkeypatch.setattr(torchrun.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(torchrun.os, "_exit", lambda status: ended.set())
    monkeypatch.setattr(torchrun.time, "sleep", lambda seconds: None)
    torchrun.end_with.__wrapped__(7)
    assert ended.wait(10)
    assert next(parents, None) is None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_killed_workers_and_killed_parents(changed, tmp_path):
    # Trainings that are long enough to be caught in, on more than a megabyte of float64: what workers share.
    param = changed({"seeds": [0, 1], "train.steps": 4000, "data.n_train": 70_000, "dtype": "float64", "prune": {}})
    run, log = tmp_path / "tiny", tmp_path / "log"

    def start() -> tuple[subprocess.Popen[bytes], list[int]]:
        """The process and its workers, once both of them have written another checkpoint."""
        before = set(run.rglob("*.pt"))
        process = start_jobs(param, tmp_path, log)
        folders = [run / f"cascades/dense-s{seed}/checkpoints" for seed in (0, 1)]
        wait_for(lambda: all(set(folder.glob("*.pt")) - before for folder in folders))
        return process, workers_of(process.pid)

    process, workers = start()
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: len(log.read_text().splitlines()) > 1)
    assert log.read_text().splitlines()[:2] == [
        f"tiny: results go to {run}",  # and no warning of arrays that cannot be written to
        "a worker was lost; another one goes on from the last checkpoint of its cascade",
    ]
    wait_for(lambda: len(workers_of(process.pid)) == 2 and not set(workers) & set(workers_of(process.pid)))
    process.kill()
    wait_for(lambda: not any(map(is_alive, workers)), 30)
    assert not list(run.rglob("record.json"))

    wait_for(lambda: not refused(run), 30)
    process, workers = start()
    process.kill()
    process.wait()
    held = refused(run)
    wait_for(lambda: not any(map(is_alive, workers)), 30)  # nobody trains on unseen
    assert not refused(run)
    assert held or not any(map(is_alive, workers))


def refused(run: Path) -> bool:
    try:
        with RunFolder.open(run).lock():
            return False
    except InputError:
        return True


# --- whitening


@pytest.fixture(scope="module")
def wine(tmp_path_factory, call):
    """A run on 13 correlated columns that begins with a whitening map."""
    out = tmp_path_factory.mktemp("wine")
    (out / "wine.yaml").write_text(
        "name: wine\ndata: {name: wine, whiten: true}\nflow: {hidden: [8], activation: silu, time: concat}\n"
        "train: {objective: flow_matching, steps: 20, batch: 32, lr: 0.01}\n"
        "prune: {methods: [unstructured, structured], keep_ratios: [0.6]}\n"
    )
    said = call("run", out / "wine.yaml", "--out", out)
    assert said.status == 0, said.err
    return out / "wine"


def test_the_whitening_matrix_whitens():
    rows = make_splits("wine").train
    matrix = whitening_matrix(rows).numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    # Shrunk towards a multiple of the identity, so the covariance is I only roughly.
    covariance = np.cov(rows @ matrix.T, rowvar=False)
    assert abs(covariance - np.eye(13)).max() < 0.3
    assert abs(np.cov(rows, rowvar=False) - np.eye(13)).max() > 0.8


@pytest.mark.parametrize("stage", ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"])
def test_a_whitened_flow_counts_the_determinant(wine, stage):
    flow = load(wine, stage).double()
    assert flow.whitening.shape == (13, 13)
    np.testing.assert_allclose(flow.whitening.numpy(), whitening_matrix(make_splits("wine").train).numpy(), atol=1e-6)
    tight = Solver("dopri5", 1e-9, 1e-9)
    points = torch.from_numpy(make_splits("wine").test[:3])

    def carry(x):
        return flow.to_noise(x[None], solver=tight)[0]

    for point in points:  # by automatic differentiation of the whole map, the whitening included
        jacobian = torch.autograd.functional.jacobian(carry, point)
        z = carry(point).detach()
        log_normal = -0.5 * float(z @ z) - 0.5 * 13 * np.log(2 * np.pi)
        expected = log_normal + float(torch.linalg.slogdet(jacobian).logabsdet)
        with torch.no_grad():
            assert float(flow.log_prob(point[None], solver=tight)) == pytest.approx(expected, abs=1e-6)
    assert abs(float(torch.linalg.slogdet(flow.whitening).logabsdet)) > 1  # so that leaving it out would show


@pytest.mark.parametrize("stage", ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"])
def test_a_whitened_run_is_put_to_use_in_the_datas_own_coordinates(wine, stage, call, tmp_path, rows):
    splits = make_splits("wine")
    own = splits.standardiser.invert(splits.test)
    points, noise, back, samples = (tmp_path / f"{name}.npy" for name in ("points", "noise", "back", "samples"))
    np.save(points, own)
    there = call("map", wine, points, "--to", "noise", "-o", noise, "--stage", stage, "--tol", "1e-8")
    assert there.status == 0, there.err
    assert call("map", wine, noise, "--to", "data", "-o", back, "--stage", stage, "--tol", "1e-8").status == 0
    np.testing.assert_allclose(np.load(back), own, rtol=1e-5)
    said = call("score", wine, points, "--stage", stage, "--json")
    (row,) = [row for row in rows(wine) if f"{row['method']}-s0/{row['stage']}" == stage]
    assert json.loads(said.out)["nll"] == pytest.approx(float(row["nll_test"]), rel=1e-9)
    assert call("sample", wine, "-n", "500", "-o", samples, "--stage", stage).status == 0
    scaled = splits.standardiser.apply(np.load(samples))
    assert abs(scaled.mean(0)).max() < 0.3
    assert abs(np.corrcoef(scaled, rowvar=False) - np.corrcoef(splits.train, rowvar=False)).max() < 0.35


NO_LONGER = "no longer there; was it moved or removed while the run was at work?"


@pytest.mark.parametrize(
    ("gone", "before", "place", "why"),
    [
        ("", "structured-s0/3", "", NO_LONGER),
        ("cascades/dense-s0/stages/0", "unstructured-s0/3", "/cascades/dense-s0/stages/0", NO_LONGER),
        (
            "cascades/unstructured-s0",
            "structured-s0/3",
            "",
            "unstructured-s0/1 and 2 more stages were removed while the run was at work; the same command makes them "
            "again",
        ),
    ],
)
def test_what_is_removed_while_a_run_works_ends_it_in_one_line(
    param, tmp_path, call, monkeypatch, numbers, finished, gone, before, place, why
):
    write, run = RunFolder.write_stage, tmp_path / "tiny"

    def remove_and_write(self, record, tensors, metrics):
        if f"{record.cascade}/{record.stage}" == before:
            shutil.rmtree(run / gone)
        write(self, record, tensors, metrics)

    monkeypatch.setattr(RunFolder, "write_stage", remove_and_write)
    said = call("run", param, "--out", tmp_path)
    monkeypatch.undo()
    assert (said.status, said.out) == (1, "")
    assert said.err.splitlines()[-1] == f"sparseflows: {run}{place}: {why}"
    assert run.exists() == bool(gone)
    assert call("run", param, "--out", tmp_path).status == 0
    assert numbers(run) == numbers(finished)
