"""Files of a run folder that are cut off, flipped, emptied, gone or replaced: read, and then run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.campaign.commands import Command, Ended, say
from tests.campaign.mutations import mutated_bytes
from tests.campaign.numbers import require_numbers
from tests.campaign.verdicts import NOTED, REFUSED, RIGHT, Found, judge, require
from tests.campaign.world import STAGE, World, copied

LOCKS = (".lock", ".sqlite")


def read(world: World, random: Random, folder: Path) -> Found:
    """One file of a finished run is damaged; a command that reads it says the same as before, or refuses."""
    experiment = world.tiny
    run = copied(experiment.run, folder)
    said = damage(random.choice(_files(run)), random)
    name = random.choice([*READINGS])
    outcome = READINGS[name](world, run, folder)
    return Found(outcome, f"{name} after {said}", inputs=1)


def run_again(world: World, random: Random, folder: Path) -> Found:
    """Up to three files of a run, finished or half-way, are damaged; then it is run again, and read."""
    experiment = random.choice((world.tiny, world.tiny, world.likelihood))
    run = copied(random.choice((experiment.run, *experiment.half_way)), folder / "out")
    files = _files(run)
    said = [damage(random.choice(files), random) for _ in range(random.choice((1, 1, 2, 3)))]
    ended = say(folder, "run", experiment.param, "--out", run.parent)
    outcome = judge(ended)
    if ended.status == 0:
        place = _place_of(ended, run)
        require_numbers(place, experiment.numbers)
        if place != run:
            outcome = NOTED  # the folder was no longer known; a new one was made beside it
        if experiment is world.tiny and random.random() < 0.3:
            require(READINGS["score"](world, place, folder) == RIGHT, "score does not give what it gave")
    return Found(outcome, f"{'; '.join(said)}: {ended.last}", inputs=len(said))


def swept(world: World, random: Random, folder: Path) -> Found:
    """A file of a sweep's folder is damaged; it is read, and run again."""
    good = world.folder / "good" / "swept"
    sweep = copied(good, folder / "out")
    said = damage(random.choice([*_files(sweep), sweep / "sweep.json"]), random)
    judge(say(folder, "status", sweep))
    ended = say(folder, "run", world.folder / "swept.yaml", "--out", sweep.parent)
    outcome = judge(ended)
    if ended.status == 0:
        expected = _rows_of(good / "results.csv")
        places = [one for one in sweep.parent.glob("swept*") if (one / "results.csv").is_file()]
        require(any(_rows_of(one / "results.csv") == expected for one in places), "results.csv differs")
    return Found(outcome, f"{said}: {ended.last}", inputs=1)


def damage(path: Path, random: Random) -> str:
    """Damage a file (or what is in its place by now); gives what was done."""
    name = "/".join(path.parts[-3:])
    if not path.is_file():
        return f"{name} left as it is"
    how = random.choice(("bytes", "bytes", "bytes", "bytes", "gone", "folder", "full folder", "other", "link"))
    content = path.read_bytes()
    if how == "bytes":
        changed, how = mutated_bytes(content, random)
        path.write_bytes(changed)
        return f"{how} of {name}"
    others = [one for one in sorted(path.parent.iterdir()) if one.is_file() and one != path]
    path.unlink()
    if how in ("folder", "full folder"):
        path.mkdir()
        if how == "full folder":
            (path / "file").write_text("in the way")
    elif how == "other" and others:
        shutil.copy(random.choice(others), path)
    elif how == "link":
        path.symlink_to(path.name if random.random() < 0.5 else "/dev/null")
    return f"{how} in place of {name}"


def _files(run: Path) -> list[Path]:
    """The files of a run; those at its top, which all commands read, three times as likely."""
    found = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.name.endswith(LOCKS)]
    return [path for path in found for _ in range(3 if path.parent == run else 1)]


def _place_of(ended: Ended, run: Path) -> Path:
    """Where the run says that its results go to."""
    lines = [line for line in ended.err.splitlines() if "results go to " in line]
    return Path(lines[0].partition("results go to ")[2]) if lines else run


def _rows_of(results: Path) -> list[list[str]]:
    """Cells of a table, training times left out."""
    head, *rows = [line.split(",") for line in results.read_text().splitlines()]
    kept = [k for k, name in enumerate(head) if name != "train_seconds"]
    return [[row[k] for k in kept] for row in rows]


# --- what commands say of a run, to be held against what they say of the good one


def _score(world: World, run: Path, folder: Path) -> str:
    return _told(world, run, folder, ("score", run, world.points, "--stage", STAGE, "--json"), _document)


def _score_in_data(world: World, run: Path, folder: Path) -> str:
    return _told(world, run, folder, ("score", run, world.points, "--coordinates", "data", "--json"), _document)


def _sample(world: World, run: Path, folder: Path) -> str:
    made = folder / "samples.npy"

    def samples(ended: Ended, place: Path) -> Any:
        return np.load(made).tolist() if ended.status == 0 else None

    return _told(world, run, folder, ("sample", run, "--stage", STAGE, "-n", "4", "-o", made), samples)


def _status(world: World, run: Path, folder: Path) -> str:
    def stages(ended: Ended, place: Path) -> Any:
        found = json.loads(ended.out)
        found["folder"] = found["cascades"] = None
        return found

    ended = say(folder, "status", run, "--json")
    outcome = judge(ended)
    if outcome == REFUSED:
        return outcome
    found, expected = stages(ended, run), stages(_good(world, ("status", run, "--json"), run, folder), run)
    if found["damaged"]:
        return NOTED
    there = len([one for one in run.glob("cascades/*/stages/[0-9]*") if one.is_dir()])
    require(found == expected or found["done"] + found["failed"] == there, f"status says {ended.out}")
    return outcome


def _table(world: World, run: Path, folder: Path) -> str:
    def table(ended: Ended, place: Path) -> Any:
        return ended.out.replace(str(place), "RUN")

    return _told(world, run, folder, ("table", run), table)


def _load(world: World, run: Path, folder: Path) -> str:
    """`sparseflows.load` and `load_masks` from Python: the weights, or an InputError."""

    def work() -> int:
        from sparseflows.errors import SparseFlowsError

        try:
            print(_weights(run))
        except SparseFlowsError as error:
            import sys

            print(f"sparseflows: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        return 0

    ended = Command(work, folder).end()
    outcome = judge(ended)
    if outcome != REFUSED:
        good = Command(lambda: print(_weights(world.tiny.run)) or 0, folder).end()
        require(ended.out == good.out, "other weights than those that were trained")
    return outcome


def _weights(run: Path) -> dict[str, Any]:
    import sparseflows

    flow, masks = sparseflows.load(run, "unstructured-s0/1"), sparseflows.load_masks(run, "unstructured-s0/1")
    weights = {name: tensor.tolist() for name, tensor in flow.state_dict().items()}
    return weights | {f"mask of {name}": mask.tolist() for name, mask in masks.items()}


READINGS = {
    "score": _score,
    "score in data": _score_in_data,
    "sample": _sample,
    "status": _status,
    "table": _table,
    "load": _load,
}


def _told(world: World, run: Path, folder: Path, arguments: Sequence[object], what: Any) -> str:
    ended = say(folder, *arguments)
    outcome = judge(ended)
    if outcome == REFUSED:
        return outcome
    found = what(ended, run)
    good = _good(world, arguments, run, folder)
    if found != what(good, world.tiny.run):
        # Another number is right only where the user is told which stages it leaves out.
        require(outcome == NOTED, f"{arguments[0]} gives {_short(found)}")
    return outcome


def _good(world: World, arguments: Sequence[object], run: Path, folder: Path) -> Ended:
    """What the command says of the good run."""
    asked = [world.tiny.run if one == run else one for one in arguments]
    return say(folder, *asked)


def _document(ended: Ended, run: Path) -> Any:
    return json.loads(ended.out)


def _short(found: Any) -> str:
    text = " ".join(str(found).split())
    return text if len(text) < 300 else f"{text[:300]}…"

