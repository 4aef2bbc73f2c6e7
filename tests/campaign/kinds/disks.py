"""Disks that fill up, fail, or may not be written to; too little memory; clocks that jump; runs that share a folder."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import time
from pathlib import Path
from random import Random

from tests.campaign.commands import HANG, Command, Ended, command, say
from tests.campaign.disturbances import dated, fail_at, little_memory, nobody, small_files, turned_back
from tests.campaign.kinds.damage import place_of
from tests.campaign.kinds.kills import again, nothing_lost, one_of
from tests.campaign.numbers import require_numbers, whole_stages
from tests.campaign.verdicts import Found, judge, require
from tests.campaign.world import World, copied

CODES = (errno.ENOSPC, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
UNMOUNT_LAZILY = 2


def failing(world: World, random: Random, folder: Path) -> Found:
    """The n-th change of a file fails, or all from there on; or no file may grow beyond a size."""
    experiment = one_of(world, random)
    run = folder / "out" / experiment.run.name
    run.parent.mkdir()
    code = random.choice(CODES)
    if random.random() < 0.25:
        before = small_files(int(10 ** random.uniform(3.6, 4.6)))  # what it says goes into files, too
    else:
        operation, for_good = random.randint(1, experiment.changes), random.random() < 0.6
        before = fail_at(operation, code, for_good, run.parent)
    ended = say(folder, "run", experiment.param, "--out", run.parent, before=before)
    outcome = judge(ended)
    seen = whole_stages(run)
    if ended.status == 0:
        require_numbers(run, experiment.numbers)
    if code in NO_ROOM:  # it may still remove what it had begun
        require(not list(run.parent.glob(".*.tmp")), "left behind a folder that it had begun to make")
    again(experiment, folder, run, seen)
    return Found(outcome, ended.last)


def small_disk(world: World, random: Random, folder: Path) -> Found:
    """A file system of some tens of kilobytes fills up; then it is made larger."""
    experiment = one_of(world, random)
    out = folder / "out"
    out.mkdir()
    mount(out, f"size={4096 * random.randint(1, 40)}")
    try:
        ended = say(folder, "run", experiment.param, "--out", out)
        outcome = judge(ended)
        run = out / experiment.run.name
        seen = whole_stages(run)
        mount(out, "size=64m", again=True)
        again(experiment, folder, run, seen)
    finally:
        unmount(out)
    return Found(outcome, ended.last)


def not_to_be_written(world: World, random: Random, folder: Path) -> Found:
    """A user who may not write there runs, scores, samples; the folder stays as it is."""
    experiment = world.tiny
    run = copied(random.choice((experiment.run, *experiment.half_way)), folder)
    before, user = _tree(run), nobody if os.getuid() == 0 else None
    for path in (folder, run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    whole = f"{run}", f"{world.points}"
    asked = random.choice(
        (("run", experiment.param, "--out", folder), ("score", *whole), ("status", run), ("table", run),
         ("sample", run, "-n", "3", "-o", run / "samples.npy"), ("run", experiment.param, "--out", folder / "new"))
    )  # fmt: skip
    try:
        ended = Command(command(*asked), folder.parent / "said", user).end()
        outcome = judge(ended)
    finally:
        for path in (folder, run, *run.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    require(_tree(run) == before, "the folder has changed")
    again(experiment, folder, run, {})
    return Found(outcome, ended.last)


def memory(world: World, random: Random, folder: Path) -> Found:
    """A run gets only a few MiB of memory."""
    experiment = one_of(world, random)
    run = folder / "out" / experiment.run.name
    before = little_memory(int(2 ** random.uniform(16, 25)))
    ended = say(folder, "run", experiment.param, "--out", run.parent, before=before)
    outcome = judge(ended)
    again(experiment, folder, run, whole_stages(run))
    return Found(outcome, ended.last)


def vanishing(world: World, random: Random, folder: Path) -> Found:
    """The folder of a run, or a part of it, is removed or renamed while the run is at work."""
    experiment = one_of(world, random)
    run = folder / "out" / experiment.run.name
    process = Command(command("run", experiment.param, "--out", run.parent), folder)
    process.wait(random.uniform(0.0, experiment.seconds))
    there = [path for path in (run.parent, run, run / "cascades", *run.glob("cascades/*")) if path.is_dir()]
    if there and not process.wait(0):
        gone = random.choice(there)
        if random.random() < 0.5:
            shutil.rmtree(gone, ignore_errors=True)
        else:
            gone.rename(folder / "elsewhere")
    ended = process.end()
    outcome = judge(ended)
    second = say(folder, "run", experiment.param, "--out", run.parent)
    judge(second)
    require(second.status == 0, f"it does not finish any more: {second.last}")
    # What was removed in part is no run folder any more: the run may have gone to another place.
    require_numbers(place_of(second, run), experiment.numbers)
    return Found(outcome, ended.last)


def clock(world: World, random: Random, folder: Path) -> Found:
    """The clock is turned back in the middle, files are of the future, and a run goes on from there."""
    experiment = one_of(world, random)
    if random.random() < 0.5 and experiment.half_way:
        run = copied(random.choice(experiment.half_way), folder / "out")
        dated(run, random)
    else:
        run = folder / "out" / experiment.run.name
    seen = whole_stages(run)
    before = turned_back(random.choice((1, 3600, 10**7, -(10**8))))
    ended = say(folder, "run", experiment.param, "--out", run.parent, before=before)
    outcome = judge(ended)
    require(ended.status == 0, f"it does not finish: {ended.last}")
    nothing_lost(run, seen)
    require_numbers(run, experiment.numbers)
    return Found(outcome, ended.last)


def together(world: World, random: Random, folder: Path) -> Found:
    """Two or three runs on one folder at once, some with --join; at times one is killed."""
    experiment = one_of(world, random)
    run = folder / "out" / experiment.run.name
    run.parent.mkdir()
    join, killed, processes = random.random() < 0.5, random.random() < 0.3, []
    for _ in range(random.randint(2, 3)):
        options = ["--join"] if join else []
        processes.append(Command(command("run", experiment.param, "--out", run.parent, *options), folder))
        time.sleep(random.choice((0.0, 0.0, random.uniform(0, experiment.seconds))))
    if killed:
        processes[0].send(9)
    ended: list[Ended] = [process.end(HANG) for process in processes]
    outcomes = [judge(one, (-9,) if killed else ()) for one in ended]
    for one in ended:
        refused = one.status == 2 and "another `sparseflows run` is at work" in one.last
        require(one.status in (0, -9) or (refused and not join), f"status {one.status}: {one.last}")
    require(killed or any(one.status == 0 for one in ended), "none of them has finished")
    if not killed:
        require_numbers(run, experiment.numbers)
    again(experiment, folder, run, whole_stages(run))
    return Found(max(outcomes), kills=int(killed))


def can_mount() -> bool:
    """Whether this process may mount file systems that nobody else sees, from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_names, private, recursive = 0x20000, 1 << 18, 1 << 14
    return libc.unshare(new_names) == 0 and libc.mount(b"none", b"/", None, private | recursive, None) == 0


def mount(folder: Path, options: str, *, again: bool = False) -> None:
    """A file system in memory at `folder`; `again`: the same one with other options."""
    libc, remount = ctypes.CDLL(None, use_errno=True), 32
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", remount if again else 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount", str(folder))


def unmount(folder: Path) -> None:
    """What `mount` has mounted."""
    ctypes.CDLL(None).umount2(str(folder).encode(), UNMOUNT_LAZILY)


def _tree(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
