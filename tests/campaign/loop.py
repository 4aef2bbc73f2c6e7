"""Cases one after another until the time is over: chosen by the seed, logged, counted, their faults kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.campaign.kinds.table import KINDS
from tests.campaign.verdicts import FAULTS, OUTCOMES, TRACEBACK, Fault, Found
from tests.campaign.world import World

KEPT = 100  # folders of cases that ended in a fault
TELL_EVERY = 5.0  # seconds


def cases(seed: int, kinds: list[str]) -> Iterator[tuple[str, int]]:
    """(kind, seed) of one case after another, without end."""
    weights = [KINDS[kind].weight for kind in kinds]
    index = 0
    while True:
        random = Random(f"{seed}/{index}")
        yield random.choices(kinds, weights)[0], random.getrandbits(32)
        index += 1


def carry_out(world: World, kind: str, seed: int, folder: Path) -> tuple[Found, float]:
    """One case in a folder of its own, made here and removed again; a fault leaves it behind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    began = time.monotonic()
    try:
        found = KINDS[kind].case(world, Random(f"{kind}/{seed}"), folder)
    except Fault as fault:
        return Found(fault.outcome, fault.detail), time.monotonic() - began
    except Exception:  # a slip of the campaign, or a file that nobody should have left so
        return Found(TRACEBACK, traceback.format_exc()), time.monotonic() - began
    shutil.rmtree(folder)
    return found, time.monotonic() - began


class Tally:
    """What came of the cases, kind by kind."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.kills = self.inputs = 0
        self.seconds: Counter[str] = Counter()

    def add(self, kind: str, found: Found, seconds: float) -> None:
        """Count a case."""
        self.counts[kind, found.outcome] += 1
        self.kills, self.inputs = self.kills + found.kills, self.inputs + found.inputs
        self.seconds[kind] += seconds

    @property
    def cases(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    @property
    def faults(self) -> int:
        """How many of them ended in a fault."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome in FAULTS)

    def text(self) -> str:
        """Kinds against outcomes, and the sums."""
        lines = [f"{'kind':14}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES) + f"{'s a case':>10}"]
        for kind in [kind for kind in KINDS if any(name == kind for name, _ in self.counts)]:
            cells = [self.counts[kind, outcome] for outcome in OUTCOMES]
            lines.append(f"{kind:14}" + "".join(f"{n:14,}" for n in cells) + f"{self.seconds[kind] / sum(cells):10.2f}")
        sums = [sum(self.counts[kind, outcome] for kind in KINDS) for outcome in OUTCOMES]
        lines.append(f"{'all':14}" + "".join(f"{n:14,}" for n in sums))
        lines.append(
            f"{self.cases:,} cases: {self.kills:,} kills, {self.inputs:,} damaged inputs, {self.faults} faults"
        )
        return "\n".join(lines)


def campaign(world: World, seed: int, minutes: float, out: Path, kinds: list[str]) -> Tally:
    """Cases until the time is over, or Ctrl-C.

    Each is a line of `out`/cases.jsonl, the folder of a fault is kept in `out`.
    """
    tally = Tally()
    try:
        _until(tally, world, seed, minutes, out, kinds)
    except KeyboardInterrupt:
        tell("interrupted; so far:\n")
    return tally


def _until(tally: Tally, world: World, seed: int, minutes: float, out: Path, kinds: list[str]) -> None:
    began, told = time.monotonic(), 0.0
    end = began + 60 * minutes
    with (out / "cases.jsonl").open("a") as log:
        for kind, number in cases(seed, kinds):
            now = time.monotonic()
            if now >= end:
                break
            if now - told > TELL_EVERY:
                told = now
                tell(f"{tally.cases:,} cases, {tally.faults} faults; {(end - now) / 60:.1f} minutes left")
            folder = out / "work" / f"{kind}-{number}"
            found, seconds = carry_out(world, kind, number, folder)
            tally.add(kind, found, seconds)
            log.write(json.dumps(line(kind, number, found, seconds)) + "\n")
            log.flush()
            if found.outcome in FAULTS:
                tell(f"{kind}:{number}: {found.outcome}: {found.detail.strip().splitlines()[-1][:300]}\n")
                keep(folder, out, tally.faults)
    tell("")


def line(kind: str, seed: int, found: Found, seconds: float) -> dict[str, Any]:
    """A case as a line of the log."""
    return {"case": f"{kind}:{seed}", **vars(found), "seconds": round(seconds, 3)}


def keep(folder: Path, out: Path, faults: int) -> None:
    """Put the folder of a fault aside, unless there are many already."""
    with contextlib.suppress(OSError):
        if faults <= KEPT:
            (out / "faults").mkdir(exist_ok=True)
            shutil.move(folder, out / "faults" / folder.name)
    shutil.rmtree(folder, ignore_errors=True)


def tell(text: str) -> None:
    """One line on standard error, in place of the one before where that is a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text.rstrip("\n"), file=sys.stderr, flush=True)
