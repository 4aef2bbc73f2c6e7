"""Sweeps on a Dask and on a Ray cluster that the tests start, every socket of them on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.clusters import ENVIRONMENT, dask_cluster, family, ray_cluster, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def sweep_file(tiny_params, tmp_path_factory):
    document = yaml.safe_load(tiny_params({"prune.keep_ratios": [0.6], "train.steps": 600, "prune.retrain.steps": 600}))
    document |= {"name": "sweep", "seeds": [0, 1], "sweep": {"flow.activation": ["silu", "tanh"]}}
    path = tmp_path_factory.mktemp("param") / "sweep.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def tensors(sweep_file, tmp_path_factory, call):
    """Point, stage and file → bytes, of the sweep in this process."""
    out = tmp_path_factory.mktemp("swept")
    assert call("run", sweep_file, "--out", out).status == 0
    return tensors_of(out / "sweep")


def tensors_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("stages/[0-9]*/*.safetensors")}


def listening(pids) -> set[str]:
    """Addresses, in hexadecimal as /proc has them, on which any of the processes listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(link))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == "0A" and f"socket:[{parts[9]}]" in inodes:
                found.add(parts[1].rpartition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def start_run(sweep_file, out, *options) -> subprocess.Popen[str]:
    # Jobs of a shell's background ignore Ctrl-C, and what they start does, too.
    heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heeds}; from sparseflows.__main__ import main; main()"
    command = [sys.executable, "-c", code, "run", sweep_file, "--out", out, *options]
    return subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def holders(folder: Path) -> set[int]:
    """Processes that hold a cascade of the sweep and have begun to train."""
    found = set()
    for path in folder.rglob("cascade.lock"):
        with contextlib.suppress(OSError, ValueError):
            signed = json.loads(path.read_text())
            if signed.get("step"):
                found.add(signed["pid"])
    return found


def kill_one(folder: Path) -> None:
    """Kill -9 a process in the midst of a training."""
    os.kill(wait_for(lambda: holders(folder)).pop(), signal.SIGKILL)


def check_end(process, folder, tensors):
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert tensors_of(folder) == tensors
    assert "12/12" in err
    assert not [p for pattern in ("*.pt", ".coordinator*", "cascade.lock") for p in folder.rglob(pattern)]
    assert out.startswith("point ")


def test_dask(sweep_file, tensors, tmp_path):
    pytest.importorskip("distributed")
    with dask_cluster(tmp_path) as (address, processes):
        assert listening(set().union(*(family(one.pid) for one in processes))) <= LOOPBACK
        run = start_run(sweep_file, tmp_path / "out", "--backend", "dask", "--address", address)
        check_end(run, tmp_path / "out" / "sweep", tensors)

        run = start_run(sweep_file, tmp_path / "killed", "--backend", "dask", "--address", address)
        kill_one(tmp_path / "killed" / "sweep")
        check_end(run, tmp_path / "killed" / "sweep", tensors)


def test_dask_workers_stop_when_the_command_is_gone(sweep_file, tmp_path, call):
    pytest.importorskip("distributed")
    long = ["--set", "train.steps=1000000", "--set", "seeds=[0]"]
    with dask_cluster(tmp_path) as (address, _):
        run = start_run(sweep_file, tmp_path / "out", "--backend", "dask", "--address", address, *long)
        wait_for(lambda: holders(tmp_path / "out" / "sweep"))
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert err.splitlines()[-1] == ("sparseflows: interrupted; the same command goes on from the last checkpoint")
        wait_for(lambda: "nobody is at work" in call("status", tmp_path / "out" / "sweep").out, 30)


def test_ray(sweep_file, tensors, tmp_path):
    pytest.importorskip("ray")
    with ray_cluster(tmp_path) as (address, (head,)):
        run = start_run(sweep_file, tmp_path / "out", "--backend", "ray", "--address", address)
        wait_for(lambda: holders(tmp_path / "out" / "sweep"))
        assert listening(family(head.pid) | family(run.pid)) <= LOOPBACK
        check_end(run, tmp_path / "out" / "sweep", tensors)

        run = start_run(sweep_file, tmp_path / "killed", "--backend", "ray", "--address", address)
        kill_one(tmp_path / "killed" / "sweep")
        check_end(run, tmp_path / "killed" / "sweep", tensors)
