"""Checkpoints of a training in progress: the last two are kept, each with its digest in its name."""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparseflows.distributed.processes import ALONE, Processes, by_first
from sparseflows.errors import DiskError
from sparseflows.files import make_folder, write_whole

Checkpoint = dict[str, Any]
LAYOUT = 2  # of what a training saves: its parameters, and their moments, as one vector
_NAME = re.compile(r"stage-(\d+)-attempt-(\d+)-step-(\d+)-([0-9a-f]{12})\.pt")


class Checkpoints:
    """The checkpoints of one stage of one cascade; of several processes the first one reads and writes them.

    Args:
        folder, stage: of the cascade's checkpoints; whose they are.
        set_aside: what to do with a damaged file; gives its new path.
        tell: one line for the user.
        processes: those that train together; each calls every method.
        device: where what is loaded is wanted, whichever device it was saved from; None: where it was.
    """

    def __init__(
        self,
        folder: Path,
        stage: int,
        set_aside: Callable[[Path], Path],
        tell: Callable[[str], None],
        processes: Processes = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.folder, self.stage, self._set_aside, self._tell = folder, stage, set_aside, tell
        self.processes, self._device = processes, device

    @by_first
    def save(self, checkpoint: Checkpoint, attempt: int) -> None:
        """Write one, then drop all but the newest two."""
        content = _bytes({**checkpoint, "attempt": attempt, "layout": LAYOUT})
        make_folder(self.folder, within=self.folder.parent)
        name = f"stage-{self.stage}-attempt-{attempt}-step-{checkpoint['step']}-{_digest(content)}.pt"
        write_whole(self.folder / name, content)
        self._drop(2)

    def load_newest(self) -> Checkpoint | None:
        """The newest whole one; a damaged one is named, set aside, and the one before it is taken."""
        if not self.processes.several:
            return self._load(self._device)
        # As bytes: a pickled tensor would go to the first process's GPU.
        host = torch.device("cpu")
        content = self.processes.first(lambda: None if (found := self._load(host)) is None else _bytes(found))
        return None if content is None else _from_bytes(content, self._device)

    @by_first
    def clear(self) -> None:
        """The stage is whole: its checkpoints are not needed any more."""
        self._drop(0)

    def _load(self, device: torch.device | None) -> Checkpoint | None:
        paths = self._newest_first()
        for index, (path, digest) in enumerate(paths, 1):
            content = path.read_bytes() if path.is_file() else b""
            if _digest(content) == digest:
                found = _from_bytes(content, device)
                if found.get("layout") == LAYOUT:
                    return found
                self._tell(f"{path.name}: written by another version; this stage is trained from its start")
                return None
            aside = self._set_aside(path)
            before = "the one before" if index < len(paths) else "the start of the stage"
            self._tell(f"{path}: truncated or damaged; set aside as {aside.name}, going on from {before}")
        return None

    def _drop(self, kept: int) -> None:
        for path, _ in self._newest_first()[kept:]:
            if path.is_dir():  # nothing that we have written
                self._set_aside(path)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DiskError(f"{path}: could not be removed ({error.strerror})") from error

    def _newest_first(self) -> list[tuple[Path, str]]:
        """Each with its digest."""
        paths = sorted(self.folder.glob(f"stage-{self.stage}-attempt-*.pt"), reverse=True)
        matches = [match for path in paths if (match := _NAME.fullmatch(path.name))]
        matches.sort(key=lambda match: (int(match[2]), int(match[3])), reverse=True)
        return [(self.folder / match[0], match[4]) for match in matches]


def _bytes(checkpoint: Checkpoint) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def _from_bytes(content: bytes, device: torch.device | None = None) -> Checkpoint:
    return dict(torch.load(io.BytesIO(content), map_location=device, weights_only=True))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
