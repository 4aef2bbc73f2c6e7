"""How far a work has come, with the time left: bars on a terminal, one plain line now and then in a log file."""

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

LINE_EVERY = 15.0  # seconds between two lines of one part in a log


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Meter:
    """Shows the parts of a work on standard error, one after the other.

    Args:
        stream: where to.
        bars: use a moving bar; by default where the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, bars: bool | None = None) -> None:
        self.stream = stream or sys.stderr
        self.bars = self.stream.isatty() if bars is None else bars
        self.part_started = self._last_line = 0.0
        self._first: int | None = None
        self._shown = 0
        self._bar: Any = None

    def say(self, message: str) -> None:
        """One line."""
        self.close()
        self.stream.write(message + "\n")  # at once: lines of several processes must not run into one another
        self.stream.flush()

    def begin_part(self, first: int | None = 0) -> None:
        """A part begins, with so many of its steps done; None: one less than `show` is told of first."""
        self.close()
        self.part_started = self._last_line = time.monotonic()
        self._first, self._shown = first, first or 0

    def show(
        self, step: int, total: int, title: str, line: Callable[[str], str], note: str = "", **options: Any
    ) -> None:
        """So many steps of the part are done.

        Args:
            step, total: how many, of how many.
            title: beside the bar.
            line: the time left → a line of a log.
            note: behind the bar.
            options: of the bar (tqdm).
        """
        if self._first is None:
            self._first = self._shown = step - 1
        if self.bars:
            self._move_bar(step, total, title, note, options)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY and 0 < step < total:
            self._last_line = now
            left = (now - self.part_started) / (step - self._first) * (total - step)
            self.say(line(duration(left)))

    def _move_bar(self, step: int, total: int, title: str, note: str, options: dict[str, Any]) -> None:
        if self._bar is None:
            from tqdm import tqdm

            fixed = {"leave": False, "file": self.stream, "dynamic_ncols": True, "mininterval": 0.2}
            self._bar = tqdm(total=total, initial=self._shown, desc=title, **fixed, **options)
        self._bar.total = total
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(step - self._bar.n)
        self._shown = step

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
