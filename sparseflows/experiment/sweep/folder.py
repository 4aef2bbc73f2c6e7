"""The folder of a sweep: a run folder for every point, and one table of them all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError
from sparseflows.experiment.folder.folder import OLD, RESULTS, RUN, SWEEP_INDEX, remove_litter
from sparseflows.experiment.folder.locks import hold_folder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.sweep.points import Sweep
from sparseflows.files import folder_at_once, move_aside, write_whole

_NONE = ""


class SweepFolder:
    """`<out>/<name>`: `<point>/` are run folders, sweep.json says what each changes, results.csv holds all stages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def claim(cls, out: Path, sweep: Sweep, *, force: bool = False) -> SweepFolder:
        """The folder of the sweep below `out`: `<name>`, or `<name>-<8 hex digits>` where something else has that name.

        Sweeps that differ in their lists of values only have one folder: points that are there already are not made
        again, new ones are added. With `force` the whole folder is moved to `<name>.old-<n>`.

        Raises:
            InputError: both names are taken, or nothing can be written there.
        """
        wanted = sweep.identity
        paths = [out / sweep.name, out / f"{sweep.name}-{wanted[:8]}"]
        path = next((one for one in paths if cls._identity_of(one) in (wanted, _NONE)), None)
        if path is None:
            raise InputError(f"{paths[1]}: taken by something else; give another folder with --out")
        if force and os.path.exists(path):
            with cls(path).lock():
                move_aside(path, OLD)
        index = json.dumps({"name": sweep.name, "identity": wanted, "points": {}})
        if not cls.is_one(path):
            folder_at_once(path, {SWEEP_INDEX: index})
        if cls._identity_of(path) not in (wanted, _NONE):
            return cls.claim(out, sweep)  # another process was quicker
        return cls(path)

    @classmethod
    def _identity_of(cls, path: Path) -> str:
        """What the sweep in `path` is known by; _NONE where nothing is there, or an index that is damaged."""
        if not cls.is_one(path):
            free = not os.path.exists(path) or (path.is_dir() and not any(path.iterdir()))
            return _NONE if free else "something else"
        try:
            return str(json.loads((path / SWEEP_INDEX).read_text(encoding="utf-8"))["identity"])
        except (OSError, ValueError, TypeError, KeyError):
            return _NONE

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is the folder of a sweep."""
        return os.path.isfile(path / SWEEP_INDEX) and not os.path.exists(path / RUN)

    @contextlib.contextmanager
    def lock(self, join: bool = False) -> Iterator[None]:
        """Hold the folder against other sweeps; see `RunFolder.lock`."""
        with hold_folder(self.path, self._remove_litter, join):
            yield

    def _remove_litter(self) -> None:
        for path in self.path.glob(".*.tmp"):  # files, and folders of points
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        for path in (self.path, *self.path.iterdir()):
            if path.is_dir():
                remove_litter(path)

    def write_index(self, sweep: Sweep, places: Sequence[Path]) -> int:
        """sweep.json: what every point changes, and the stages that each of its cascades is to have.

        Points that an earlier list had stay in it, behind the others; gives their number.
        """
        try:
            before = self.read_index()["points"]
        except InputError:
            before = {}
        points = {
            path.name: {"changes": point.changes, "cascades": Counter(name.cascade for name in stages(point.spec))}
            for point, path in zip(sweep.points, places, strict=True)
        }
        others = {label: found for label, found in before.items() if label not in points}
        document = {"name": sweep.name, "identity": sweep.identity, "keys": list(sweep.keys)}
        write_whole(self.path / SWEEP_INDEX, json.dumps(document | {"points": points | others}, indent=1))
        return len(others)

    def read_index(self) -> dict[str, Any]:
        """What `write_index` wrote; the names of the points are those of their run folders.

        Raises:
            InputError: it is damaged.
        """
        try:
            found = json.loads((self.path / SWEEP_INDEX).read_text(encoding="utf-8"))
            points = {str(label): dict(one) for label, one in found["points"].items()}
            return {"name": found["name"], "keys": found.get("keys", []), "points": points}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"{self.path / SWEEP_INDEX}: damaged; run the sweep again with the same command") from None

    def write_results(self) -> None:
        """results.csv: the point, its swept keys, then the columns of a run's results.csv; of all points there are."""
        index = self.read_index()
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["point", *index["keys"], *(one.name for one in fields(Record))])
        for label, found in index["points"].items():
            swept = [_cell(found.get("changes", {}).get(key)) for key in index["keys"]]
            for row in _rows(self.path / label / RESULTS):
                writer.writerow([label, *swept, *row])
        write_whole(self.path / RESULTS, buffer.getvalue())


def _rows(results: Path) -> list[list[str]]:
    """A run's results.csv without its head; none where it is not there."""
    try:
        with results.open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))[1:]
    except OSError:
        return []


def _cell(value: Any) -> Any:
    if value is None or value != value:  # NaN
        return ""
    return json.dumps(value) if isinstance(value, (list, dict)) else value
