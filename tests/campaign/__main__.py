"""The command line of the campaign. Exit status: 0 without a fault, 1 with one, 2 the options were wrong."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

DESCRIPTION = """\
Try the toolkit as a hostile world would: processes killed at any moment, full and failing disks, clocks that jump, runs
that share a folder, every file of a run damaged, param files, tables and archives mutated. Each case must end in the
right number, or be refused in one line, or say what it left out; a traceback, a hang and a wrong number are faults.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; gives the exit status."""
    options = _options(arguments)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job would pass on that it is ignored
    from tests.campaign.commands import preload
    from tests.campaign.kinds.disks import can_mount
    from tests.campaign.kinds.table import KINDS
    from tests.campaign.loop import Tally, campaign, carry_out, line, tell
    from tests.campaign.verdicts import FAULTS
    from tests.campaign.world import make_world

    unknown = sorted({*options.only, *(kind for kind, _ in options.case)} - set(KINDS))
    if unknown:
        print(f"campaign: unknown kind '{unknown[0]}' (known: {', '.join(KINDS)})", file=sys.stderr)
        return 2
    out = Path(options.out or tempfile.mkdtemp(prefix="campaign-")).resolve()
    (out / "world").mkdir(parents=True, exist_ok=True)
    for place in (out, out / "world"):
        place.chmod(0o755)
    preload()
    mounts = can_mount()
    tell("the undisturbed runs that all cases are held against …\n")
    with tempfile.TemporaryDirectory(dir=out / "world") as folder:
        Path(folder).chmod(0o755)
        world = make_world(Path(folder))
        if options.case:
            tally = Tally()
            for kind, seed in options.case:
                found, seconds = carry_out(world, kind, seed, out / "work" / f"{kind}-{seed}")
                tally.add(kind, found, seconds)
                print(json.dumps(line(kind, seed, found, seconds), indent=1))
                if found.outcome in FAULTS:
                    print(f"its folder: {out / 'work' / f'{kind}-{seed}'}", file=sys.stderr)
            return int(tally.faults > 0)
        kinds = [name for name in options.only or KINDS if mounts or not KINDS[name].mounts]
        seed = int(time.time()) if options.seed is None else options.seed
        tell(f"seed {seed}; cases are logged in {out / 'cases.jsonl'}\n")
        tally = campaign(world, seed, options.minutes, out, kinds)
    left_out = [name for name in options.only or KINDS if name not in kinds]
    if left_out:
        print(f"left out, because nothing can be mounted here: {', '.join(left_out)}")
    print(tally.text())
    return int(tally.faults > 0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="how long [5]")
    parser.add_argument("--seed", type=int, metavar="S", help="of the choice of cases [the time]")
    parser.add_argument("--out", metavar="DIR", help="for the log, and the folders of faults [a temporary folder]")
    parser.add_argument("--only", type=_names, default=[], metavar="KIND,…", help="these kinds only")
    parser.add_argument(
        "--case", type=_case, action="append", default=[], metavar="KIND:SEED", help="this case only, as the log has it"
    )
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _case(text: str) -> tuple[str, int]:
    kind, _, seed = text.partition(":")
    if not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give KIND:SEED, as cases.jsonl has it")
    return kind, int(seed)


if __name__ == "__main__":
    sys.exit(main())
