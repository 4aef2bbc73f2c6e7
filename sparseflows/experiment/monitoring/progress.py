"""Progress with time left: bars on a terminal, one plain line now and then in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from sparseflows.experiment.folder.records import DONE, Record

LINE_EVERY = 15.0  # seconds between two lines of one stage in a log


def duration(seconds: float) -> str:
    """Seconds as a person says them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """What the user sees of a run, on standard error.

    Args:
        stages: how many stages the whole run has; 0 where this process sees only a part of it.
        stream: where to.
        bars: use a moving bar; by default where the stream is a terminal.
    """

    def __init__(self, stages: int = 0, stream: TextIO | None = None, bars: bool | None = None) -> None:
        self.stages, self.stream = stages, stream or sys.stderr
        self.bars = self.stream.isatty() if bars is None else bars
        self.finished, self.worked = 0, 0
        self.started = time.monotonic()
        self.where = ""  # which experiment of a sweep
        self.label, self.stage_started, self.last_line = "", 0.0, 0.0
        self.first_step, self.at = 0, (0, 0)
        self._bar: Any = None

    def say(self, message: str) -> None:
        """One line."""
        self._close_bar()
        self.stream.write(message + "\n")  # at once: lines of several processes must not run into one another
        self.stream.flush()

    def begin(self, label: str) -> None:
        """A stage begins."""
        self.label, self.stage_started = label, time.monotonic()
        self.last_line, self.first_step, self.at = self.stage_started, -1, (0, 0)

    def step(self, step: int, total: int, loss: float) -> None:
        """A training step of the stage is done."""
        self.at = (step, total)
        if self.first_step < 0:
            self.first_step = step - 1
        if self.bars:
            self._move_bar(step, total, loss)
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY and step < total:
            self.last_line = now
            left = (now - self.stage_started) / (step - self.first_step) * (total - step)
            self.say(
                f"  {self.where}{self.label}: step {step}/{total}, loss {loss:.4g}, {duration(left)} left in this stage"
            )

    def found(self, record: Record) -> None:
        """A stage was there already."""
        self.finished += 1

    def place(self) -> dict[str, Any]:
        """The stage in progress, its step and their number: what a cascade's lock says of its holder."""
        step, total = self.at
        seconds = round(time.monotonic() - self.stage_started, 1)
        return {"stage": self.label, "step": step, "total": total, "seconds": seconds}

    def done(self, record: Record) -> None:
        """A stage is finished and written."""
        self.finished, self.worked = self.finished + 1, self.worked + 1
        remaining = self.stages - self.finished
        each = (time.monotonic() - self.started) / self.worked
        left = f"; about {duration(each * remaining)} left" if remaining > 0 else ""
        self.say(f"{self._place(self.finished)}{self.where}{record.cascade}/{record.stage}  {outcome(record)}{left}")

    def close(self) -> None:
        """Take the bar away."""
        self._close_bar()

    def _place(self, number: int) -> str:
        return f"[{number}/{self.stages}] " if self.stages else ""

    def _move_bar(self, step: int, total: int, loss: float) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=step - 1,
                desc=self._place(self.finished + 1) + self.where + self.label,
                unit="step",
                leave=False,
                file=self.stream,
                dynamic_ncols=True,
                mininterval=0.2,
            )
        self._bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self._bar.update()
        if step == total:
            self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def outcome(record: Record) -> str:
    """A stage in half a line."""
    if record.status != DONE:
        return f"failed: {record.reason}"
    parts = [f"{record.params:,} params", f"PR {100 * (record.prune_ratio or 0.0):.1f} %"]
    if record.nll_test is not None:
        parts.append(f"NLL {record.nll_test:.3f}")
    if record.accuracy_test is not None:
        parts.append(f"accuracy {100 * record.accuracy_test:.2f} %")
    if record.kl_gap is not None:
        parts.append(f"KL gap {record.kl_gap:.3f}")
    return ", ".join(parts) + f" ({duration(record.train_seconds or 0.0)})"
