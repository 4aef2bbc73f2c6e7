"""Training on a set of 4 GB that stays on disk: little anonymous memory, and as fast as from memory."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseflows.data.tables.mapped import MappedRows
from sparseflows.flow.build import build_flow
from sparseflows.specs import FlowSpec, TrainSpec
from sparseflows.training.batches import InMemory, OnDisk
from sparseflows.training.loop import train
from sparseflows.training.objectives import FlowMatching

ROOT = Path(__file__).parents[2]
COLUMNS, GIGABYTES = 63, 4
ROWS = GIGABYTES * 2**30 // (4 * COLUMNS)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "rows.npy"
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(ROWS, COLUMNS))
    generator = np.random.default_rng(0)
    for first in range(0, ROWS, 100_000):
        block = rows[first : first + 100_000]
        block[:] = generator.standard_normal(block.shape, dtype=np.float32)
    rows.flush()
    del rows
    yield path
    path.unlink()


def anonymous_mib(process):
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
    return int(found[0]) / 1024 if found else 0.0


@pytest.mark.slow
def test_anonymous_memory_stays_small(file, tmp_path, capsys):
    settings = {
        "data.path": file,
        "train.steps": 2000,
        "train.selections": 1,
        "prune.keep_ratios": "[0.5]",
        "prune.methods": "[structured]",
        "prune.retrain": "{steps: 200}",
        "evaluate.max_rows": 100,
        "train.selection_rows": 100,
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "sparseflows", "run", "param/tabular/table.yaml", "--out", tmp_path, *given]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    most = 0.0
    while run.poll() is None:
        most = max(most, anonymous_mib(run.pid))
        time.sleep(0.02)
    with capsys.disabled():
        print(f"\n{GIGABYTES} GiB on disk: RssAnon at most {most:,.0f} MiB")
    assert run.returncode == 0, run.stderr.read()
    assert 0 < most <= 1536


@pytest.mark.slow
@pytest.mark.parametrize("width", [64, 256])
def test_as_fast_as_from_memory(file, capsys, width):
    torch.set_num_threads(1)
    rows = MappedRows(file)
    memory = InMemory(torch.from_numpy(np.load(file)))
    disk = OnDisk(rows, torch.float32, torch.device("cpu"))
    settings = TrainSpec(objective="flow_matching", steps=3000, batch=1024)  # three buffers

    def seconds(source, seed):
        flow = build_flow(FlowSpec(hidden=[width, width], activation="silu", time="concat_squash"), COLUMNS)
        started = time.perf_counter()
        train(flow, FlowMatching(), source, settings, seed=seed, purpose="x")
        return time.perf_counter() - started

    ratios = [seconds(memory, seed) / seconds(disk, seed) for seed in range(5)]
    with capsys.disabled():
        print(
            f"\n2 × {width} wide: throughput from disk / from memory, median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f})"
        )
    assert statistics.median(ratios) >= 0.8
