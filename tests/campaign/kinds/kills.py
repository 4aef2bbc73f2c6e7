"""Runs that are killed: at random moments, at chosen changes of files, with their workers; then they are run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from tests.campaign.commands import HANG, Command, Ended, command, say, slowdown
from tests.campaign.disturbances import die_at
from tests.campaign.numbers import require_clean, require_numbers, whole_stages
from tests.campaign.verdicts import HANG as HUNG
from tests.campaign.verdicts import Fault, Found, judge, require
from tests.campaign.world import Experiment, World

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
IMPORTS = 60.0  # seconds, of three processes on a busy machine
ORPHANS = 10.0  # seconds that workers may take to see that their parent is gone
AT_WORK = "is at work in this folder"
ROOT = Path(__file__).resolve().parents[3]


def at_a_moment(world: World, random: Random, folder: Path) -> Found:
    """A signal after a random time, up to four times in a row."""
    experiment = one_of(world, random)
    run, seen, kills = folder / "out" / experiment.run.name, {}, 0
    for _ in range(random.randint(1, 4)):
        number, delay = random.choice(SIGNALS), random.uniform(0.0, experiment.seconds)
        process = Command(command("run", experiment.param, "--out", run.parent), folder)
        if not process.wait(delay):
            process.send(number)
            kills += 1
        ended_by_signal(process.end(), number)
        seen = nothing_lost(run, seen)
    return again(experiment, folder, run, seen, kills)


def at_a_change(world: World, random: Random, folder: Path) -> Found:
    """A signal at the n-th change of a file, up to four times in a row: these are repeated exactly."""
    experiment = one_of(world, random)
    run, seen, kills = folder / "out" / experiment.run.name, {}, 0
    for _ in range(random.randint(1, 4)):
        number, operation = random.choice(SIGNALS), random.randint(1, experiment.changes)
        before = die_at(operation, number, run.parent)
        ended = say(folder, "run", experiment.param, "--out", run.parent, before=before)
        kills += ended.status != 0
        ended_by_signal(ended, number)
        seen = nothing_lost(run, seen)
    return again(experiment, folder, run, seen, kills)


def of_workers(world: World, random: Random, folder: Path) -> Found:
    """`--jobs 2` in a process of its own; a worker of it is killed, or it itself, or it is interrupted."""
    experiment = one_of(world, random)
    run, kills = folder / "out" / experiment.run.name, 0
    arguments = ["run", str(experiment.param), "--out", str(run.parent), "--jobs", "2"]
    with (folder / "err").open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "sparseflows", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=err
        )
        wait, whom = random.uniform(0.5, 9.0), random.choice(("worker", "worker", "itself", "interrupted"))
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < wait:
            time.sleep(0.02)
        if process.poll() is None:
            kills = _strike(process.pid, whom, random)
        try:
            status = process.wait((IMPORTS + HANG) * slowdown())
        except subprocess.TimeoutExpired:
            process.kill()
            raise Fault(HUNG, f"--jobs 2, {whom} killed after {wait:.1f} s") from None
        err.seek(0)
        said = err.read()
    ended = Ended(status, "", said, time.monotonic() - began)
    if whom == "interrupted" and "Traceback" in said and not (run / "run.json").exists():
        status = INTERRUPTED  # Python itself was interrupted while it imported
    else:
        judge(ended, (INTERRUPTED, -signal.SIGKILL, -signal.SIGINT))
    return again(experiment, folder, run, whole_stages(run), kills)


def one_of(world: World, random: Random) -> Experiment:
    return random.choice((world.tiny, world.tiny, world.likelihood))


def ended_by_signal(ended: Ended, number: int) -> None:
    if number == signal.SIGKILL:
        judge(ended, (-signal.SIGKILL,))
        return
    judge(ended, (INTERRUPTED,))
    if ended.status == INTERRUPTED and ended.err:
        require("interrupted" in ended.last, f"interrupted without a word of how to go on: {ended.last}")


def nothing_lost(run: Path, seen: dict[str, str]) -> dict[str, str]:
    now = whole_stages(run)
    lost = [name for name, known in seen.items() if now.get(name) != known]
    require(not lost, f"lost or made again: {', '.join(lost)}")
    return now


def again(experiment: Experiment, folder: Path, run: Path, seen: dict[str, str], kills: int = 0) -> Found:
    """The same command once more: it must finish, and all must be as in the undisturbed run."""
    ended, until = say(folder, "run", experiment.param, "--out", run.parent), time.monotonic() + ORPHANS
    while AT_WORK in ended.err and time.monotonic() < until:  # workers whose parent was killed have not seen it yet
        time.sleep(0.2)
        ended = say(folder, "run", experiment.param, "--out", run.parent)
    outcome = judge(ended)
    require(ended.status == 0, f"it does not finish any more: {ended.last}")
    nothing_lost(run, seen)
    require_numbers(run, experiment.numbers)
    require_clean(run)
    require(not list(run.rglob(".damaged*")), "something was taken for damaged")
    return Found(outcome, kills=kills)


def _strike(pid: int, whom: str, random: Random) -> int:
    if whom == "worker":
        servers = [one for one in _children(pid) if "multiprocessing.forkserver" in _command_line(one)]
        workers = [worker for server in servers for worker in _children(server)]
        if not workers:
            return 0
        os.kill(random.choice(workers), signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL if whom == "itself" else signal.SIGINT)
    return 1


def _children(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sorted({int(one) for task in tasks for one in (task / "children").read_text().split()})
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
