"""Progress of an analysis with its time left: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from sparseflows.experiment.monitoring.progress import LINE_EVERY, duration


class Progress:
    """What the user sees of an analysis, on standard error.

    Args:
        title: name of the analysis, ahead of every line.
        stream: where to.
        bars: use a moving bar; by default where the stream is a terminal.
    """

    def __init__(self, title: str, stream: TextIO | None = None, bars: bool | None = None) -> None:
        self.title, self.stream = title, stream or sys.stderr
        self.bars = self.stream.isatty() if bars is None else bars
        self.stages, self.finished, self.worked = 0, 0, 0
        self.label, self.spent = "", 0.0
        self.stage_started, self.last_line = 0.0, 0.0
        self._bar: Any = None

    def start(self, stages: int) -> None:
        """So many stages follow."""
        self.stages, self.finished, self.worked, self.spent = stages, 0, 0, 0.0

    def begin(self, label: str) -> None:
        """A stage begins that has to be computed."""
        self.label, self.stage_started = label, time.monotonic()
        self.last_line = self.stage_started

    def step(self, step: int, total: int) -> None:
        """So many steps of the stage are done, of so many."""
        now = time.monotonic()
        if self.bars:
            self._move_bar(step, total)
        elif now - self.last_line >= LINE_EVERY and 0 < step < total:
            self.last_line = now
            left = (now - self.stage_started) / step * (total - step)
            self._say(f"  {self.title} of {self.label}: {100 * step // total} %, {duration(left)} left in this stage")

    def done(self, label: str, reason: str | None, cached: bool) -> None:
        """A stage has its result, or the reason why not."""
        self._close_bar()
        self.finished += 1
        place = f"[{self.finished}/{self.stages}] {label}"
        if reason is not None:
            self._say(f"{place}  no {self.title}: {reason}")
        elif not cached:
            took = time.monotonic() - self.stage_started
            self.worked, self.spent = self.worked + 1, self.spent + took
            remaining = self.stages - self.finished
            left = f"; about {duration(self.spent / self.worked * remaining)} left" if remaining else ""
            self._say(f"{place}  {self.title} in {duration(took)}{left}")

    def close(self) -> None:
        """Take the bar away."""
        self._close_bar()

    def _say(self, message: str) -> None:
        self._close_bar()
        print(message, file=self.stream, flush=True)

    def _move_bar(self, step: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                desc=f"[{self.finished + 1}/{self.stages}] {self.title} of {self.label}",
                leave=False,
                file=self.stream,
                dynamic_ncols=True,
                mininterval=0.2,
            )
        self._bar.total = total
        self._bar.update(step - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
