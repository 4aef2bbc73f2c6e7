"""Param files and tables made from good ones by mutation: refused, or read as a second reader reads them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import Random

import numpy as np

from tests.campaign import readers
from tests.campaign.commands import Command, command, say
from tests.campaign.mutations import mutated_bytes, mutated_text
from tests.campaign.verdicts import REFUSED, Found, judge, require
from tests.campaign.world import COLUMNS, World

ROOT = Path(__file__).resolve().parents[3]
LONGEST = 1.5  # seconds of a run that a mutated param file began
RESOLVED = ("prune.keep_ratios", "data.path")  # keys that may be given in several forms


def param(world: World, random: Random, folder: Path) -> Found:
    """`check` of a mutated param file; what it takes must say what a plain reading of the YAML says."""
    path = folder / "mutated.yaml"
    content = _mutated_param(world, random)
    path.write_bytes(content)
    ended = say(folder, "check", path, "--json")
    outcome = judge(ended)
    if outcome == REFUSED:
        require(ended.status == 2 and not ended.out, f"status {ended.status}: {ended.last}")
        return Found(outcome, ended.last, inputs=1)
    document = json.loads(ended.out)
    if "settings" in document:
        _require_settings(content, document["settings"])
        again = folder / "again.yaml"
        again.write_text(json.dumps(document["settings"]))
        second = say(folder, "check", again, "--json")
        require(second.out == ended.out, f"its resolved settings resolve to others: {second.last}")
    return Found(outcome, inputs=1)


def param_run(world: World, random: Random, folder: Path) -> Found:
    """`run` of a mutated param file, interrupted after a moment: refused, done, or interrupted in one line."""
    path = folder / "mutated.yaml"
    path.write_bytes(_mutated_param(world, random))
    checked = judge(say(folder, "check", path))
    process = Command(command("run", path, "--out", folder / "out"), folder)
    if not process.wait(LONGEST):
        process.send(signal.SIGINT)
    ended = process.end()
    outcome = judge(ended, (130,))
    require(checked != REFUSED or outcome == REFUSED, f"check refuses what run takes: {ended.last}")
    require(
        ended.status != 2 or checked == REFUSED or _needs_data(ended.last),
        f"run refuses what check takes: {ended.last}",
    )
    return Found(outcome, ended.last, inputs=1)


def table_score(world: World, random: Random, folder: Path) -> Found:
    """`score` of a mutated table; what it takes must score as the numbers that a strict reader finds in it."""
    path, content = _mutated_table(world, random, folder)
    run, said = world.likelihood.run, ("--json", "-o")
    ended = say(folder, "score", run, path, *said, folder / "found.npy")
    outcome = judge(ended)
    if outcome == REFUSED:
        return Found(outcome, ended.last, inputs=1)
    _require_told(path, content, rows := _strict(path.suffix, content, infinite=True), ended.err)
    require(rows.shape[1] == COLUMNS, f"took {rows.shape[1]} columns")
    np.save(folder / "strict.npy", rows)
    second = say(folder, "score", run, folder / "strict.npy", *said, folder / "expected.npy")
    require(second.status == 0, f"a strict reader's rows are refused: {second.last}")
    require(ended.out == second.out, "another NLL than of a strict reader's rows")
    same = (folder / "found.npy").read_bytes() == (folder / "expected.npy").read_bytes()
    require(same, "other densities than of a strict reader's rows")
    return Found(outcome, inputs=1)


def table_check(world: World, random: Random, folder: Path) -> Found:
    """`check` of a param file that names a mutated table: the rows and columns of a strict reader, or refused."""
    path, content = _mutated_table(world, random, folder)
    ended = say(folder, "check", world.likelihood.param, "--set", f"data.path={path}", "--json")
    outcome = judge(ended)
    if outcome == REFUSED:
        return Found(outcome, ended.last, inputs=1)
    rows, document = _strict(path.suffix, content), json.loads(ended.out)
    _require_told(path, content, rows, "\n".join(document["notes"]))
    train, copies = len(rows) - 2 * round(0.1 * len(rows)), len(rows) - len(np.unique(rows, axis=0))
    found = document["train_rows"], document["dim"]
    right = abs(found[0] - train) <= copies and found[1] == rows.shape[1]  # copies share a part of the split
    require(right, f"{found} rows and columns, where a strict reader finds {rows.shape}")
    return Found(outcome, inputs=1)


def _require_told(path: Path, content: bytes, rows: np.ndarray, said: str) -> None:
    """Rows that are commented out are lost, so somebody has to say so."""
    lost = readers.rows_commented_out(content) if path.suffix == ".csv" and len(rows) else 0
    require(not lost or "comment" in said, f"{lost} rows that are commented out, and nothing is said")


def _strict(suffix: str, content: bytes, infinite: bool = False) -> np.ndarray:
    try:
        return readers.table(suffix, content, infinite)
    except readers.Unreadable as error:
        require(False, f"took what a strict reader refuses: {error}")
        raise


def _mutated_table(world: World, random: Random, folder: Path) -> tuple[Path, bytes]:
    name = random.choice([*world.tables])
    path, content = folder / f"mutated{Path(name).suffix}", world.tables[name]
    if path.suffix == ".csv":
        content, _ = mutated_text(content.decode(), random)
    else:
        content, _ = mutated_bytes(content, random)
    path.write_bytes(content)
    return path, content


def _mutated_param(world: World, random: Random) -> bytes:
    good = [*sorted((ROOT / "param").rglob("*.yaml")), *sorted(world.folder.glob("*.yaml"))]
    own = [path for path in good if path.parent == world.folder]
    chosen = random.choice(own if random.random() < 0.5 else good)
    return mutated_text(chosen.read_text(encoding="utf-8"), random)[0]


def _needs_data(said: str) -> bool:
    """Whether a refusal is about data that only a run needs, or about the device or the classes of a set."""
    return any(word in said for word in ("no such folder", "no such file", "data", "rows", "device", "table", "column"))


def _require_settings(content: bytes, resolved: dict[str, object]) -> None:
    """Raise a fault where the settings that were taken are not those that stand in the file."""
    try:
        written = readers.settings(content)
    except readers.Unreadable as error:
        require(False, f"took what a plain reader refuses: {error}")
        raise
    for key, text in written.items():
        node: object = resolved
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if key not in RESOLVED and not isinstance(node, list | dict):
            require(readers.says_the_same(text, node), f"{key}: {text[:60]!r} was taken for {node!r}")
