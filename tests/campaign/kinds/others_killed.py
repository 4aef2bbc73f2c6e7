"""Sweeps, preparations of data and files of results that are killed in the middle; then the same command again."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

from tests.campaign.commands import say
from tests.campaign.disturbances import die_at
from tests.campaign.kinds.archives import POWER_TEXT, content_of
from tests.campaign.kinds.damage import place_of, rows_of
from tests.campaign.kinds.kills import INTERRUPTED, SIGNALS, ended_by_signal
from tests.campaign.numbers import whole_stages
from tests.campaign.verdicts import Found, judge, require
from tests.campaign.world import World

MOST_CHANGES = 400  # of files, by the sweep; a preparation makes twenty


def sweep(world: World, random: Random, folder: Path) -> Found:
    """A sweep is killed up to three times, and carried out in the end."""
    out, kills = folder / "out", 0
    for _ in range(random.randint(1, 3)):
        number = random.choice(SIGNALS)
        before = die_at(random.randint(1, MOST_CHANGES), number, out)
        ended = say(folder, "run", world.folder / "swept.yaml", "--out", out, before=before)
        ended_by_signal(ended, number)
        kills += ended.status != 0
        for run in out.glob("swept/*/run.json"):
            whole_stages(run.parent)
    ended = say(folder, "run", world.folder / "swept.yaml", "--out", out)
    outcome = judge(ended)
    require(ended.status == 0, f"it does not finish any more: {ended.last}")
    good = world.folder / "good" / "swept"
    place = place_of(ended, out / "swept")  # another one, where the first had not come to its index
    require(rows_of(place / "results.csv") == rows_of(good / "results.csv"), "results.csv differs")
    require(not list(place.rglob(".*.tmp")), "left behind what it had begun to write")
    return Found(outcome, kills=kills)


def preparation(world: World, random: Random, folder: Path) -> Found:
    """`data prepare` is killed; what it makes is there whole or not at all, and is made the second time."""
    source, to = folder / POWER_TEXT, folder / "made"
    source.write_bytes(content_of("power.txt"))
    arguments = ("data", "prepare", "POWER", "--from", source, "--to", to)
    whole = say(folder, *arguments[:-1], folder / "whole")
    require(whole.status == 0, f"the good file is refused: {whole.last}")
    number = random.choice(SIGNALS)
    killed = say(folder, *arguments, before=die_at(random.randint(1, 24), number, folder))
    judge(killed, (INTERRUPTED, -signal.SIGKILL))
    if to.exists():
        require(_tree(to) == _tree(folder / "whole"), "the prepared set is half-written")
    ended = say(folder, *arguments, "--force")
    require(ended.status == 0, f"it is not made any more: {ended.last}")
    require(_tree(to) == _tree(folder / "whole"), "another prepared set than that of an undisturbed command")
    require(sorted(one.name for one in folder.iterdir()) == sorted((source.name, "made", "whole")), "left behind")
    return Found(judge(whole), kills=int(killed.status != 0))


def samples(world: World, random: Random, folder: Path) -> Found:
    """`sample` is killed while it writes: the file is the old one or the new one."""
    out = folder / "out"
    out.mkdir()
    made, kept = out / "samples.npy", random.random() < 0.5
    if kept:
        made.write_bytes(b"what was there before")
    arguments = ("sample", world.tiny.run, "-n", "50", "-o", made)
    ended = say(folder, *arguments, before=die_at(random.randint(1, 4), signal.SIGKILL, out))
    judge(ended, (-signal.SIGKILL,))
    before = made.read_bytes() if made.exists() else None
    require(judge(say(folder, *arguments)) != "refused", "it is not written any more")
    require(before in (b"what was there before" if kept else None, made.read_bytes()), "half-written")
    return Found(judge(ended, (-signal.SIGKILL,)), kills=int(ended.status != 0))


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
