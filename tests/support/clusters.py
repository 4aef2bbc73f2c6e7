"""Dask and Ray clusters of two workers on this machine, every socket of them on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = dict(os.environ) | {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's name for: listen on the loopback interface, not on all of them.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def family(pid: int) -> set[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found, ahead = set(), [pid]
    while ahead:
        one = ahead.pop()
        found.add(one)
        ahead += children.get(one, [])
    return found


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """(address, processes) of a scheduler and two workers of one thread each."""
    port, log = free_port(), (folder / "dask.log").open("w")
    here = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    address, started = f"tcp://127.0.0.1:{port}", []

    def start(what, *options):
        command = [sys.executable, "-m", "distributed.cli." + what, *here, *options]
        started.append(subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, cwd=folder))

    try:
        start("dask_scheduler", "--port", str(port))
        for number in range(2):
            start("dask_worker", address, "--nthreads", "1", "--local-directory", str(folder / f"worker-{number}"))

        from distributed import Client

        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=90)
        yield address, started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)
        log.close()


@contextlib.contextmanager
def ray_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """(address, processes) of a head with two processors."""
    port = free_port()
    sockets = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: paths of sockets have 107 letters at most
    options = ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"]
    options += ["--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={sockets}", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *options]
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)
        try:
            wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text())
            yield f"127.0.0.1:{port}", [head]
        finally:
            below = family(head.pid)
            head.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(20)
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(sockets, ignore_errors=True)
