"""Every block of docs/howto/tracking.md runs, in its order, and does what the page says."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/howto/tracking.md"


@pytest.mark.docs
def test_every_block_runs(tmp_path):
    (tmp_path / "param").symlink_to(ROOT / "param")
    command = tmp_path / "bin/sparseflows"  # the console script, of this checkout
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sparseflows "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path, "OMP_NUM_THREADS": "1"}

    said = []
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python", "sh", "sh"]
    for kind, block in blocks:
        run = ["sh", "-ec", block] if kind == "sh" else [sys.executable, "-c", block]
        done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done)

    folder = tmp_path / "runs/followed"
    stages = ["dense-s0/0", "unstructured-s0/1", "structured-s0/1"]
    assert [line.split()[0] for line in said[1].stdout.splitlines()] == stages
    assert (folder / "tensorboard/run").is_dir()
    assert "steps" not in said[2].stderr  # nothing is trained again
    assert [line.split(":")[0] for line in said[3].stderr.splitlines() if "NLL" in line] == stages
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["method"] == "structured" and "loss" in line]
    with (folder / "curves/structured-s0-1.csv").open(newline="") as stream:
        assert [float(row["value"]) for row in csv.DictReader(stream) if row["name"] == "loss"] == losses
    assert len(losses) == 40
