"""TensorBoard's event files, each made anew: what a folder held before is gone when the new one is there.

Points would double where a training is taken up again. TensorBoard's own remedy, a mark that voids the points from
some step on, is set at step 0 as well: for a kill between the two, and for a TensorBoard that is looking on.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar, text


class EventFile:
    """The one event file of a folder, which is made where it is missing; closed when the `with` block is left."""

    def __init__(self, folder: Path) -> None:
        self._before = list(folder.glob("events.out.tfevents.*")) if folder.is_dir() else []
        folder.mkdir(parents=True, exist_ok=True)
        # Names rise with time, as TensorBoard reads them. PyTorch's FileWriter, the alternative, writes in a thread,
        # which prints a traceback of its own where the disk is full.
        name = f"events.out.tfevents.{time.time_ns():020d}.{socket.gethostname()}.{os.getpid()}"
        self._stream = (folder / name).open("wb")
        self._records = RecordWriter(self._stream)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def scalar(self, tag: str, value: float | None, step: int) -> None:
        """A point of a curve, kept in single precision; no point where there is no finite value."""
        if value is not None and math.isfinite(value):
            self._write(Event(summary=scalar(tag, value), step=step))

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Markdown."""
        self._write(Event(summary=text(tag, markdown), step=step))

    def png(self, tag: str, content: bytes, step: int = 0) -> None:
        """A picture, as the bytes of a PNG file: it is not decoded and encoded again."""
        width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
        self._write(Event(summary=Summary(value=[Summary.Value(tag=tag, image=image)]), step=step))

    def hparams(self, settings: Mapping[str, bool | int | float | str], results: Mapping[str, float]) -> None:
        """A row of the HParams page: `results` are tags of curves in the same folder."""
        for summary in hparams(dict(settings), dict(results)):
            self._write(Event(summary=summary))

    def flush(self) -> None:
        """All points are in the file."""
        self._stream.flush()
        for path in self._before:
            path.unlink(missing_ok=True)
        self._before = []

    def close(self) -> None:
        """The file is whole."""
        try:
            self.flush()
        finally:
            self._stream.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
