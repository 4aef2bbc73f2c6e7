"""The folder of a sweep: a run folder for every point, and one table of them all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError
from sparseflows.experiment.records import Record
from sparseflows.experiment.store import RESULTS, RUN, SWEEP_INDEX, RunFolder, hold_folder, move_aside, remove_litter
from sparseflows.experiment.sweep import Point, Sweep
from sparseflows.files import write_whole


class SweepFolder:
    """`<out>/<name>`: `<point>/` are run folders, sweep.json says what each changes, results.csv holds all stages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def claim(cls, out: Path, sweep: Sweep, *, force: bool = False) -> SweepFolder:
        """The folder of the sweep below `out`: `<name>`, or `<name>-sweep` where a run has that name.

        A sweep that has been changed keeps its folder: points that are there already are not made again, new ones
        are added. With `force` the whole folder is moved to `<name>.old-<n>`.

        Raises:
            InputError: both names are taken, or nothing can be written there.
        """
        paths = [out / sweep.name, out / f"{sweep.name}-sweep"]
        path = next((one for one in paths if cls.is_one(one) or not os.path.exists(one)), None)
        if path is None:
            raise InputError(f"{paths[0]}: taken by something else; give another folder with --out")
        if force and os.path.exists(path):
            with cls(path).lock():
                move_aside(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not cls.is_one(path):
                write_whole(path / SWEEP_INDEX, json.dumps({"name": sweep.name, "points": {}}))
        except OSError as error:
            raise InputError(
                f"{path}: cannot write a folder here ({error.strerror}); give another with --out"
            ) from None
        return cls(path)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether `path` is the folder of a sweep."""
        return os.path.isfile(path / SWEEP_INDEX) and not os.path.exists(path / RUN)

    @contextlib.contextmanager
    def lock(self, join: bool = False) -> Iterator[None]:
        """As `RunFolder.lock`."""
        with hold_folder(self.path, self._remove_litter, join):
            yield

    def _remove_litter(self) -> None:
        for pattern in (".coordinator-*", f".{SWEEP_INDEX}-*.tmp", f".{RESULTS}-*.tmp"):
            for path in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in self.path.iterdir():
            if path.is_dir():
                remove_litter(path)

    def place(self, point: Point, data_digest: str | None) -> Path:
        """The run folder of a point."""
        return RunFolder.place(self.path, point.spec, data_digest)

    def write_index(self, sweep: Sweep, places: Sequence[Path]) -> None:
        """sweep.json: the keys, and what every point changes."""
        points = {path.name: point.changes for point, path in zip(sweep.points, places, strict=True)}
        document = {"name": sweep.name, "keys": list(sweep.keys), "points": points}
        write_whole(self.path / SWEEP_INDEX, json.dumps(document, indent=1))

    def read_index(self) -> dict[str, Any]:
        """What `write_index` wrote.

        Raises:
            InputError: it is damaged.
        """
        try:
            found = json.loads((self.path / SWEEP_INDEX).read_text(encoding="utf-8"))
            return {"name": found["name"], "keys": found.get("keys", []), "points": dict(found["points"])}
        except (OSError, ValueError, TypeError, KeyError):
            raise InputError(f"{self.path / SWEEP_INDEX}: damaged; run the sweep again with the same command") from None

    def runs(self) -> Iterator[tuple[str, dict[str, Any], Path]]:
        """(label, changes, run folder) of every point of the index."""
        for label, changes in self.read_index()["points"].items():
            yield label, changes, self.path / label

    def write_results(self, records: Mapping[str, Sequence[Record]]) -> None:
        """results.csv: the point, its swept keys, then the columns of a run's results.csv."""
        index = self.read_index()
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        columns = [one.name for one in fields(Record)]
        writer.writerow(["point", *index["keys"], *columns])
        for label, changes in index["points"].items():
            swept = [_cell(changes.get(key)) for key in index["keys"]]
            for record in records.get(label, ()):
                writer.writerow([label, *swept, *map(_cell, asdict(record).values())])
        write_whole(self.path / RESULTS, buffer.getvalue())


def _cell(value: Any) -> Any:
    if value is None or value != value:  # NaN
        return ""
    return json.dumps(value) if isinstance(value, (list, dict)) else value
