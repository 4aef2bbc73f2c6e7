"""live.jsonl: the lines of the stage in progress, until metrics.jsonl has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Live:
    """Appends to `cascades/<name>/live.jsonl`, in the form of metrics.jsonl. It never raises: progress is not results.

    The file is begun anew with the lines of the checkpoint when a stage is taken up again, and removed when the
    stage is whole. Nothing is synchronised to the disk: what matters is in the checkpoints.

    Args:
        run: the run folder; None writes nothing.
    """

    NAME = "live.jsonl"

    def __init__(self, run: Path | None) -> None:
        self._run = run
        self._path: Path | None = None
        self._place: dict[str, Any] = {}

    def begin(self, cascade: str, place: Mapping[str, Any], history: Iterable[Mapping[str, float]]) -> None:
        """Start the file with `history`; `place` says in every line which stage it is of."""
        self._path, self._place = self._file(cascade), dict(place)
        self._write("w", history)

    def step(self, values: Mapping[str, float]) -> None:
        """One line more."""
        self._write("a", [values])

    def end(self, cascade: str) -> None:
        """The stage is whole."""
        path = self._file(cascade)
        try:
            if path is not None:
                path.unlink(missing_ok=True)
        except OSError:
            pass

    def _file(self, cascade: str) -> Path | None:
        return None if self._run is None else self._run / "cascades" / cascade / self.NAME

    def _write(self, mode: str, lines: Iterable[Mapping[str, float]]) -> None:
        if self._path is None:
            return
        text = "".join(json.dumps(self._place | dict(line)) + "\n" for line in lines)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open(mode, encoding="utf-8") as stream:
                stream.write(text)
        except OSError:
            self._path = None  # a full disk is the checkpoint's to report
