"""What the user sees of a run: its stages, what came of each, and the time left."""

import time
from typing import Any, TextIO

from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.monitoring.meter import Meter, duration


class Progress(Meter):
    """What the user sees of a run, on standard error.

    Args:
        stages: how many stages the whole run has; 0 where this process sees only a part of it.
        stream, bars: see `Meter`.
    """

    def __init__(self, stages: int = 0, stream: TextIO | None = None, bars: bool | None = None) -> None:
        super().__init__(stream, bars)
        self.stages, self.finished, self.worked = stages, 0, 0
        self.started = time.monotonic()
        self.where, self.label = "", ""  # which experiment of a sweep; which stage
        self.at = (0, 0)

    def begin(self, label: str) -> None:
        """A stage begins."""
        self.label, self.at = label, (0, 0)
        self.begin_part(first=None)

    def step(self, step: int, total: int, loss: float) -> None:
        """A training step of the stage is done."""
        self.at = (step, total)
        name, loss_now = self.where + self.label, f"loss {loss:.4g}"
        self.show(
            step,
            total,
            self._place(self.finished + 1) + name,
            lambda left: f"  {name}: step {step}/{total}, {loss_now}, {left} left in this stage",
            loss_now,
            unit="step",
        )
        if step == total:
            self.close()

    def found(self, record: Record) -> None:
        """A stage was there already."""
        self.finished += 1

    def place(self) -> dict[str, Any]:
        """The stage in progress, its step and their number: what a cascade's lock says of its holder."""
        step, total = self.at
        seconds = round(time.monotonic() - self.part_started, 1)
        return {"stage": self.label, "step": step, "total": total, "seconds": seconds}

    def done(self, record: Record) -> None:
        """A stage is finished and written."""
        self.finished, self.worked = self.finished + 1, self.worked + 1
        remaining = self.stages - self.finished
        each = (time.monotonic() - self.started) / self.worked
        left = f"; about {duration(each * remaining)} left" if remaining > 0 else ""
        self.say(f"{self._place(self.finished)}{self.where}{record.cascade}/{record.stage}  {outcome(record)}{left}")

    def failed(self, message: str) -> None:
        """A task cannot be carried out; those of other experiments go on."""
        self.say(f"{self.where.rstrip('/')}: {message}")

    def _place(self, number: int) -> str:
        return f"[{number}/{self.stages}] " if self.stages else ""


def outcome(record: Record) -> str:
    """A stage in half a line."""
    if not record.done:
        return f"failed: {record.reason}"
    parts = [f"{record.params:,} params", f"PR {100 * (record.prune_ratio or 0.0):.1f} %"]
    if record.nll_test is not None:
        parts.append(f"NLL {record.nll_test:.3f}")
    if record.accuracy_test is not None:
        parts.append(f"accuracy {100 * record.accuracy_test:.2f} %")
    if record.kl_gap is not None:
        parts.append(f"KL gap {record.kl_gap:.3f}")
    return ", ".join(parts) + f" ({duration(record.train_seconds or 0.0)})"
