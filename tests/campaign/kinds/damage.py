"""Files of a run folder that are cut off, flipped, emptied, gone or replaced: read, and then run again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.campaign.commands import Command, Ended, say
from tests.campaign.mutations import mutated_bytes
from tests.campaign.numbers import require_numbers
from tests.campaign.verdicts import NOTED, REFUSED, RIGHT, Found, after, judge, require
from tests.campaign.world import STAGE, Experiment, World, copied

LOCKS = (".lock", ".sqlite")


def read(world: World, random: Random, folder: Path) -> Found:
    """One file of a finished run is damaged; a command that reads it says the same as before, or refuses."""
    run = copied(world.tiny.run, folder)
    said = damage(random.choice(_files(run)), random)
    name = random.choice(CHOSEN)
    with after(said):
        outcome = READINGS[name](world, run, folder)
    return Found(outcome, f"{name} after {said}", inputs=1)


def run_again(world: World, random: Random, folder: Path) -> Found:
    """Up to three files of a run, finished or half-way, are damaged; then it is run again, and read."""
    experiment = random.choice((world.tiny, world.tiny, world.likelihood))
    run = copied(random.choice((experiment.run, *experiment.half_way)), folder / "out")
    files = _files(run)
    said = [damage(random.choice(files), random) for _ in range(random.choice((1, 1, 2, 3)))]
    ended = say(folder, "run", experiment.param, "--out", run.parent)
    with after("; ".join(said)):
        outcome = _finished(world, experiment, ended, run, random.random() < 0.3)
    return Found(outcome, f"{'; '.join(said)}: {ended.last}", inputs=len(said))


def _finished(world: World, experiment: Experiment, ended: Ended, run: Path, scored: bool) -> str:
    """The outcome of the run, its numbers held against the good one's."""
    outcome = judge(ended)
    if ended.status == 0:
        place = place_of(ended, run)
        require_numbers(place, experiment.numbers)
        if place != run:
            outcome = NOTED  # the folder was no longer known; a new one was made beside it
        if experiment is world.tiny and scored:
            require(READINGS["score"](world, place, run.parent) == RIGHT, "score does not give what it gave")
    return outcome


def swept(world: World, random: Random, folder: Path) -> Found:
    """A file of a sweep's folder is damaged; it is read, and run again."""
    good = world.folder / "good" / "swept"
    sweep = copied(good, folder / "out")
    said = damage(random.choice([*_files(sweep), sweep / "sweep.json"]), random)
    with after(said):
        judge(say(folder, "status", sweep))
        ended = say(folder, "run", world.folder / "swept.yaml", "--out", sweep.parent)
        outcome = judge(ended)
        if ended.status == 0:
            # A point that is no longer known as a run is made anew beside it, and both are listed.
            expected = {*map(tuple, rows_of(good / "results.csv"))}
            places = [one for one in sweep.parent.glob("swept*") if (one / "results.csv").is_file()]
            require(any({*map(tuple, rows_of(one / "results.csv"))} == expected for one in places), "other rows")
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


def place_of(ended: Ended, run: Path) -> Path:
    """Where the run says that its results go to."""
    lines = [line for line in ended.err.splitlines() if "results go to " in line]
    return Path(lines[0].partition("results go to ")[2]) if lines else run


def rows_of(results: Path) -> list[list[str]]:
    """Cells of a table, without training times and, of a sweep, the names of its points' folders."""
    head, *rows = [line.split(",") for line in results.read_text().splitlines()]
    kept = [k for k, name in enumerate(head) if name not in ("train_seconds", "point")]
    return [[row[k] for k in kept] for row in rows]


# --- what commands say of a run, to be held against what they say of the good one


def _score(world: World, run: Path, folder: Path) -> str:
    return _told(world, run, folder, ("score", run, world.points, "--stage", STAGE, "--json"), _document)


def _score_in_data(world: World, run: Path, folder: Path) -> str:
    return _told(world, run, folder, ("score", run, world.points, "--coordinates", "data", "--json"), _document)


def _sample(world: World, run: Path, folder: Path) -> str:
    made = folder / "samples.npy"
    arguments = ("sample", run, "--stage", STAGE, "-n", "4", "-o", made)
    return _told(world, run, folder, arguments, lambda ended, place: np.load(made).tolist())


def _map(world: World, run: Path, folder: Path) -> str:
    made = folder / "samples.npy"
    arguments = ("map", run, world.points, "--to", "noise", "--stage", STAGE, "-o", made)
    return _told(world, run, folder, arguments, lambda ended, place: np.load(made).tolist())


def _table(world: World, run: Path, folder: Path) -> str:
    return _told(world, run, folder, ("table", run), lambda ended, place: ended.out.replace(str(place), "RUN"))


def _status(world: World, run: Path, folder: Path) -> str:
    """Stages that are damaged may be told; the others must be counted as they are."""
    ended = say(folder, "status", run, "--json")
    outcome = judge(ended)
    if outcome == REFUSED:
        return outcome
    found = json.loads(ended.out)
    there = len([one for one in run.glob("cascades/*/stages/[0-9]*") if one.is_dir()])
    require(found["done"] + found["failed"] + found["damaged"] == there, f"status says {_short(found)}")
    return NOTED if found["damaged"] else outcome


def _load(world: World, run: Path, folder: Path) -> str:
    """`sparseflows.load` and `load_masks` from Python: the weights, or an InputError."""
    return _from_python(_weights, world, run, folder)


def _frame(world: World, run: Path, folder: Path) -> str:
    """`analysis.frame` from Python: results.csv, or an InputError."""
    return _from_python(_results, world, run, folder)


def _from_python(ask: Callable[[Path], str], world: World, run: Path, folder: Path) -> str:
    def work(place: Path) -> int:
        from sparseflows.errors import SparseFlowsError

        try:
            print(ask(place))
        except SparseFlowsError as error:
            print(f"sparseflows: {' '.join(str(error).split())}", file=sys.stderr)
            return error.exit_code
        return 0

    ended = Command(lambda: work(run), folder).end()
    outcome = judge(ended)
    if outcome != REFUSED:
        if ask.__name__ not in world.said:
            world.said[ask.__name__] = Command(lambda: work(world.read), folder).end().out
        require(ended.out == world.said[ask.__name__], f"{ask.__name__}: {_short(ended.out)}")
    return outcome


def _weights(run: Path) -> str:
    import sparseflows

    flow, masks = sparseflows.load(run, "unstructured-s0/1"), sparseflows.load_masks(run, "unstructured-s0/1")
    weights = {name: tensor.tolist() for name, tensor in flow.state_dict().items()}
    return str((weights, {name: mask.tolist() for name, mask in masks.items()}))


def _results(run: Path) -> str:
    import analysis

    return analysis.frame(run).drop(columns=["run", "train_seconds"]).to_csv()


READINGS = {
    "score": _score,
    "score in data": _score_in_data,
    "sample": _sample,
    "status": _status,
    "table": _table,
    "map": _map,
    "load": _load,
    "frame": _frame,
}
# `table` draws figures, which takes ten times as long as all others.
CHOSEN = [name for name in READINGS for _ in range(1 if name == "table" else 4)]


def _told(
    world: World, run: Path, folder: Path, arguments: Sequence[object], what: Callable[[Ended, Path], Any]
) -> str:
    ended = say(folder, *arguments)
    outcome = judge(ended)
    if outcome == REFUSED:
        return outcome
    found, name = what(ended, run), " ".join(str(one) for one in arguments if one not in (run, folder / "samples.npy"))
    if name not in world.said:
        good = say(folder, *(world.read if one == run else one for one in arguments))
        world.said[name] = what(good, world.read)
    # Another number is right only where the user is told which stages it leaves out.
    require(found == world.said[name] or outcome == NOTED, f"{arguments[0]} gives {_short(found)}")
    return outcome


def _document(ended: Ended, run: Path) -> Any:
    return json.loads(ended.out)


def _short(found: Any) -> str:
    text = " ".join(str(found).split())
    return text if len(text) < 300 else f"{text[:300]}…"
