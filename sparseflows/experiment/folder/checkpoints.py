"""Checkpoints of a training in progress: the last two are kept, each with its digest in its name."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparseflows.distributed.processes import Processes
from sparseflows.files import make_folder, write_whole

Checkpoint = dict[str, Any]
LAYOUT = 2  # of what a training saves: its parameters, and their moments, as one vector
_NAME = re.compile(r"stage-(\d+)-attempt-(\d+)-step-(\d+)-([0-9a-f]{12})\.pt")


class Checkpoints:
    """The checkpoints of one stage of one cascade.

    Args:
        folder: of the cascade's checkpoints.
        stage: whose they are.
        set_aside: what to do with a damaged file; gives its new path.
        tell: one line for the user.
    """

    def __init__(
        self, folder: Path, stage: int, set_aside: Callable[[Path], Path], tell: Callable[[str], None]
    ) -> None:
        self.folder, self.stage, self._set_aside, self._tell = folder, stage, set_aside, tell

    def save(self, checkpoint: Checkpoint, attempt: int) -> None:
        """Write one, then drop all but the newest two."""
        buffer = io.BytesIO()
        torch.save({**checkpoint, "attempt": attempt, "layout": LAYOUT}, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:12]
        make_folder(self.folder)
        write_whole(
            self.folder / f"stage-{self.stage}-attempt-{attempt}-step-{checkpoint['step']}-{digest}.pt",
            content,
        )
        for path in self._newest_first()[2:]:
            path.unlink(missing_ok=True)

    def load_newest(self) -> Checkpoint | None:
        """The newest whole one; a damaged one is named, set aside, and the one before it is taken."""
        paths = self._newest_first()
        for index, path in enumerate(paths, 1):
            content = path.read_bytes()
            match = _NAME.fullmatch(path.name)
            if match and hashlib.sha256(content).hexdigest()[:12] == match[4]:
                found = dict(torch.load(io.BytesIO(content), weights_only=True))
                if found.get("layout") == LAYOUT:
                    return found
                self._tell(f"{path.name}: written by another version; this stage is trained from its start")
                return None
            aside = self._set_aside(path)
            before = "the one before" if index < len(paths) else "the start of the stage"
            self._tell(f"{path}: truncated or damaged; set aside as {aside.name}, going on from {before}")
        return None

    def clear(self) -> None:
        """The stage is whole: its checkpoints are not needed any more."""
        for path in self._newest_first():
            path.unlink(missing_ok=True)

    def _newest_first(self) -> list[Path]:
        found = []
        for path in self.folder.glob(f"stage-{self.stage}-attempt-*.pt"):
            match = _NAME.fullmatch(path.name)
            if match:
                found.append(((int(match[2]), int(match[3])), path))
        return [path for _, path in sorted(found, reverse=True)]


class SharedCheckpoints(Checkpoints):
    """Checkpoints that the first of several processes reads and writes.

    Args:
        own: the first's.
        processes: all of them.
        device: where this process wants what is loaded.
    """

    def __init__(self, own: Checkpoints, processes: Processes, device: torch.device) -> None:
        self._own, self._processes, self._device = own, processes, device

    def save(self, checkpoint: Checkpoint, attempt: int) -> None:
        """See `Checkpoints`; all processes call it."""
        self._processes.first(lambda: self._own.save(checkpoint, attempt))

    def load_newest(self) -> Checkpoint | None:
        """See `Checkpoints`; all processes call it, and get the same."""
        content = self._processes.first(self._load)
        if content is None:
            return None
        return dict(torch.load(io.BytesIO(content), map_location=self._device, weights_only=True))

    def clear(self) -> None:
        """See `Checkpoints`; all processes call it."""
        self._processes.first(self._own.clear)

    def _load(self) -> bytes | None:
        found = self._own.load_newest()
        if found is None:
            return None
        buffer = io.BytesIO()
        torch.save(found, buffer)  # as bytes: a pickled tensor would go to the first process's GPU
        return buffer.getvalue()
