"""Prepared sets appear whole: Ctrl-C, kill -9, a full disk; what is said meanwhile; and `data list`."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.data import published_files as files
from support.data.prepare_command import call, listing, made, refused

from sparseflows.cli import data as cli_data
from sparseflows.cli.data import ByteProgress
from sparseflows.data.benchmarks.prepared import open_prepared, read_manifest
from sparseflows.data.prepare import atomic
from sparseflows.data.prepare import prepare as preparing

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "data.npy"
    path.write_bytes(files.npy(files.power_rows(300)))
    return path


def start(source, folder):
    """The command, at work on a pipe that gives it nothing more."""
    code = (
        "import sys, time; import sparseflows.data.prepare.prepare as p; write = p._write\n"
        "def slow(*args):\n"
        "    made = write(*args); print('written', flush=True); time.sleep(60); return made\n"
        "p._write = slow\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sparseflows.__main__ import main; sys.argv[1:] = ARGS; main()"
    )
    args = ["data", "prepare", "POWER", "--from", str(source), "--to", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", f"ARGS = {args!r}\n{code}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout.readline() == "written\n", process.communicate()
    return process


def test_ctrl_c_leaves_nothing(source, tmp_path):
    before = listing(tmp_path)
    process = start(source, tmp_path / "deep/down/made")
    assert (tmp_path / "deep/down/.made.preparing/new/train.npy").exists()
    refused(tmp_path, source, "another `sparseflows data prepare` is at work", target="deep/down/made")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "sparseflows: interrupted\n")
    assert listing(tmp_path) == before


def test_after_a_kill_the_next_one_clears_up(source, tmp_path):
    process = start(source, tmp_path / "made")
    process.kill()
    process.communicate()
    assert listing(tmp_path)[0] == ".made.preparing"
    assert not (tmp_path / "made").exists()
    made(tmp_path, source)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    open_prepared(tmp_path / "made", "power")


def test_a_kill_between_the_two_renames(source, tmp_path):
    made(tmp_path, source)
    hidden = tmp_path / ".made.preparing"
    hidden.mkdir()
    (tmp_path / "made").rename(hidden / "old")
    bad = tmp_path / "bad.npy"
    bad.write_bytes(b"")
    assert call("data", "prepare", "POWER", "--from", bad, "--to", tmp_path / "made")[0] == 2
    open_prepared(tmp_path / "made", "power")  # it is back
    assert not hidden.exists()


def test_a_rename_that_fails_keeps_the_old_set(source, tmp_path, monkeypatch):
    made(tmp_path, source)
    rename = Path.rename

    def fail(path, target):
        if path.name == atomic.NEW:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    status, out, err = call("data", "prepare", "POWER", "--from", source, "--to", tmp_path / "made", "--force")
    assert (status, out) == (1, "")
    assert re.fullmatch(r"sparseflows: .*could not be put in place.*\n", err)
    open_prepared(tmp_path / "made", "power")
    assert listing(tmp_path)[0] == "data.npy"


def test_a_full_disk(source, tmp_path, monkeypatch):
    before = listing(tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preparing, "write_npy", full)
    status, out, err = call("data", "prepare", "POWER", "--from", source, "--to", tmp_path / "a/made")
    assert (status, out) == (1, "")
    assert re.fullmatch(r"sparseflows: .*could not be written \(No space left on device\)\n", err)
    assert listing(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_files(source, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(tmp_path, source, "cannot", target="closed/made")


def test_a_link_to_a_folder_stays_one(source, tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "made").symlink_to(tmp_path / "big/made")
    made(tmp_path, source)
    assert (tmp_path / "made").is_symlink()
    open_prepared(tmp_path / "big/made", "power")


# --- what is said


def test_what_is_said(source, tmp_path):
    out, err = made(tmp_path, source)
    assert re.fullmatch(r"power: 243 train, 27 validation, 30 test rows of 6 columns in \S*made \(\d+\.\d s\)\n", out)
    assert [line.split(":")[0] for line in err.splitlines()] == ["note", "note"]
    out, _ = made(tmp_path, source, "--json", target="other")
    document = json.loads(out)
    manifest = vars(read_manifest(tmp_path / "other"))
    assert {key: document[key] for key in manifest} == manifest
    assert document["folder"] == str(tmp_path / "other")


def test_the_given_sha256(source, tmp_path):
    import hashlib

    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    made(tmp_path, source, "--sha256", digest.upper())
    assert read_manifest(tmp_path / "made").source["files"] == [
        {"name": "data.npy", "bytes": source.stat().st_size, "sha256": digest}
    ]


def test_progress_in_a_log(monkeypatch):
    clock = iter(np.arange(0, 1000, 6.0))
    monkeypatch.setattr(cli_data.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    progress = ByteProgress(stream, bars=False)
    progress.begin("reading", 100)
    for _ in range(10):
        progress.advance(10)
    lines = stream.getvalue().splitlines()
    assert lines == ["reading: 30%, about 42 s left", "reading: 60%, about 24 s left", "reading: 90%, about 6 s left"]


def test_progress_on_a_terminal():
    stream = io.StringIO()
    progress = ByteProgress(stream, bars=True)
    progress.begin("reading", 2000)
    progress.advance(1000)
    time.sleep(0.25)
    progress.advance(900)
    progress.close()
    assert "reading:  95%" in stream.getvalue()
    assert "B/s" in stream.getvalue()


# --- data list


def test_list(source, tmp_path):
    made(tmp_path, source, target="data/power")
    status, out, err = call("data", "list", "--in", tmp_path / "data", "--verify")
    assert (status, err) == (0, "")
    table, to_get, checked = out.split("\n\n")
    assert checked == "Every file is as it was prepared: power\n"
    assert max(len(line) for line in table.splitlines()[-5:]) <= 100
    assert re.search(r"(?m)^power +sample +6 +300 ", table)
    assert re.search(r"(?m)^hepmass +to get +21 +525123 ", table)
    assert table.count("\npower ") == 1
    assert "prepare POWER" not in to_get
    for name in ("GAS", "HEPMASS", "MINIBOONE", "BSDS300"):
        assert f"sparseflows data prepare {name} --from PATH --to {tmp_path}/data/{name.lower()}\n" in to_get
    assert "https://zenodo.org/records/1161203" in to_get
    assert "CC BY 4.0" in to_get
    one = next(
        x for x in json.loads(call("data", "list", "--in", tmp_path / "data", "--json")[1]) if x["name"] == "power"
    )
    assert one["prepared"]
    assert one["sample"]
    assert one["parts"] == {"train": 243, "validation": 27, "test": 30}


def test_list_of_damaged_sets(source, tmp_path):
    made(tmp_path, source, target="data/power")
    train = tmp_path / "data/power/train.npy"
    content = bytearray(train.read_bytes())
    content[-1] ^= 1
    train.write_bytes(content)
    assert call("data", "list", "--in", tmp_path / "data")[0] == 0
    status, out, err = call("data", "list", "--in", tmp_path / "data", "--verify")
    assert status == 2
    assert "SHA-256 differs" in err
    assert re.search(r"(?m)^power +damaged ", out)
    train.write_bytes(content[:-8])
    status, _, err = call("data", "list", "--in", tmp_path / "data")
    assert status == 2
    assert "cut off" in err
    assert err.count("\n") == 1


def test_list_beside_an_unpacked_archive(source, tmp_path):
    """Its folders are named as the prepared ones would be."""
    (tmp_path / "data/power").mkdir(parents=True)
    source.rename(tmp_path / "data/power/data.npy")
    status, out, err = call("data", "list", "--in", tmp_path / "data")
    assert (status, err) == (0, "")
    assert re.search(r"(?m)^power +to get ", out)
    folder = re.search(r"prepare POWER --from PATH --to (\S+)", out)[1]
    made(tmp_path, tmp_path / "data", target=folder)
    assert re.search(r"(?m)^power +sample ", call("data", "list", "--in", tmp_path / "data-prepared")[1])
