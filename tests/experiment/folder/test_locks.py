"""One cascade, one worker: within a process, between processes, after a kill, and beside another machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from sparseflows import files
from sparseflows.errors import DiskError, InputError
from sparseflows.experiment.folder import locks
from sparseflows.experiment.folder.locks import (
    LOCK,
    NAME,
    hold_cascade,
    hold_folder,
    is_held,
    read_signature,
    share_folder,
)
from sparseflows.files import FileLock


@pytest.fixture(autouse=True, params=["flock", "sqlite"])
def quick(monkeypatch, request):
    """Every test with the system's locks, and with those of a system that has no fcntl."""
    if request.param == "sqlite":
        monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(locks, "SIGN_EVERY", 0.05)
    monkeypatch.setattr(locks, "SILENT_AFTER", 0.4)
    monkeypatch.setattr(locks, "LOOK_EVERY", 0.005)


def test_held_once_and_removed_at_the_end(tmp_path):
    folder = tmp_path / "a"
    with hold_cascade(folder) as held:
        assert held
        with hold_cascade(folder, wait=False) as again:
            assert not again
        assert (folder / NAME).exists()
    assert not (folder / NAME).exists()
    with hold_cascade(folder, wait=False) as held:
        assert held


def test_the_signature_says_who_and_how_far(tmp_path):
    place = {"stage": "dense-s0/0", "step": 1, "total": 9}
    assert read_signature(tmp_path) is None
    with hold_cascade(tmp_path, lambda: place):
        time.sleep(0.1)
        found = read_signature(tmp_path)
        assert found["pid"] == os.getpid()
        assert {key: found[key] for key in place} == place
        place["step"] = 7
        time.sleep(0.2)
        assert read_signature(tmp_path)["step"] == 7
    assert read_signature(tmp_path) is None


def test_one_at_a_time_of_many(tmp_path):
    """What each does under the lock, a read, a pause and a write, would lose counts without it."""
    counter = tmp_path / "n"
    counter.write_text("0")

    def add():
        for _ in range(10):
            with hold_cascade(tmp_path / "c"):
                n = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(n + 1))

    threads = [threading.Thread(target=add) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "50"


def _hold_for_ever(folder, ready):
    with hold_cascade(folder):
        ready.send(None)
        time.sleep(60)


def test_a_killed_holder_holds_no_more(tmp_path):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold_for_ever, args=(tmp_path, there))
    process.start()
    assert here.poll(20)
    with hold_cascade(tmp_path, wait=False) as held:
        assert not held
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / NAME).exists()  # nobody removed it
    assert read_signature(tmp_path) is None
    started = time.monotonic()
    with hold_cascade(tmp_path, wait=False) as held:
        assert held
    assert time.monotonic() - started < locks.SILENT_AFTER  # its signature is of this machine: no need to watch it


def test_another_machine_that_signs_is_alive_though_its_lock_is_unknown_here(tmp_path):
    path, ended = tmp_path / NAME, threading.Event()

    def sign():
        count = 0
        while not ended.wait(0.02):
            path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "count": count}))
            count += 1

    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "count": -1}))
    thread = threading.Thread(target=sign)
    thread.start()
    with hold_cascade(tmp_path, wait=False) as held:
        assert not held
    assert read_signature(tmp_path)["host"] == "elsewhere"
    ended.set()
    thread.join()
    started = time.monotonic()
    with hold_cascade(tmp_path) as held:  # silent for long enough
        assert held
    assert time.monotonic() - started >= locks.SILENT_AFTER - locks.SIGN_EVERY


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="could not be made"), hold_cascade(tmp_path / "file" / "c"):
        pass


# --- a whole folder


def test_a_folder_is_held_alone_or_joined(tmp_path):
    alone = []
    assert not is_held(tmp_path)
    with hold_folder(tmp_path, lambda: alone.append(1)):
        assert is_held(tmp_path)
        with pytest.raises(InputError, match="is at work"), hold_folder(tmp_path, lambda: alone.append(2)):
            pass
        with hold_folder(tmp_path, lambda: alone.append(3), join=True), share_folder(tmp_path):
            assert is_held(tmp_path)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert alone == [1]


def test_who_waits_gets_it_when_it_is_free(tmp_path):
    first, second, got = FileLock(tmp_path / LOCK), FileLock(tmp_path / LOCK), []
    assert first.take()
    assert not second.take(shared=True)
    thread = threading.Thread(target=lambda: got.append(second.take(wait=True)))
    thread.start()
    time.sleep(0.1)
    assert not got
    first.close()
    thread.join(5)
    assert got == [True]
    second.close()


def test_what_holds_no_lock_is_refused(tmp_path):
    with pytest.raises(DiskError, match="could not be written"), share_folder(tmp_path / "no"):
        pass
    with pytest.raises(InputError, match="--out"), hold_folder(tmp_path / "no", list):
        pass
    assert not is_held(tmp_path / "no")


def test_a_file_that_nobody_has_held_is_free_to_those_who_only_look(tmp_path):
    (tmp_path / LOCK).touch()
    assert not is_held(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    class NoLocks:
        LOCK_SH = LOCK_EX = LOCK_NB = 0

        def flock(self, file, kind):
            raise OSError(37, "No locks available")

    monkeypatch.setattr(files, "fcntl", NoLocks())
    with pytest.raises(DiskError, match=r"run\.lock: cannot be locked \(No locks available\)"):
        FileLock(tmp_path / LOCK).take()
