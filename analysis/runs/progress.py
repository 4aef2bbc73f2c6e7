"""Progress of an analysis with its time left: a bar on a terminal, a plain line now and then in a log."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from sparseflows.errors import Interrupted
from sparseflows.experiment.monitoring.meter import Meter, duration


class Progress(Meter):
    """What the user sees of an analysis, on standard error; its `title` is ahead of every line.

    `bars` says whether there is a moving bar; by default where the stream is a terminal.
    """

    def __init__(self, title: str, stream: TextIO | None = None, bars: bool | None = None) -> None:
        super().__init__(stream, bars)
        self.title, self.label = title, ""
        self.weights: dict[str, float] | None = None
        self.start(0)

    def start(self, stages: int) -> None:
        """So many stages follow."""
        self.stages, self.finished, self.ended, self.worked, self.spent = stages, 0, 0.0, 0.0, 0.0

    def weigh(self, weights: Mapping[str, float]) -> None:
        """How much work each stage is, by its label; those that are not named take none."""
        self.weights = dict(weights)

    @contextmanager
    def over(self, stages: int) -> Iterator[None]:
        """Work on so many stages; the bar goes with its end.

        Raises:
            Interrupted: Ctrl-C.
        """
        self.start(stages)
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted("interrupted; what is finished is kept, the same command goes on from there") from None
        finally:
            self.close()

    def begin(self, label: str) -> None:
        """A stage begins that has to be computed."""
        self.label = label
        self.begin_part(None)  # a stage that is resumed says first what is done already

    def step(self, step: int, total: int) -> None:
        """So many steps of the stage are done, of so many."""
        what = f"{self.title} of {self.label}"
        self.show(
            step,
            total,
            f"[{self.finished + 1}/{self.stages}] {what}",
            lambda left: f"  {what}: {100 * step // total} %, {left} left in this stage",
        )

    def done(self, label: str, reason: str | None, cached: bool) -> None:
        """A stage has its result, or the reason why not."""
        self.close()
        self.finished, self.ended = self.finished + 1, self.ended + self._weight(label)
        place = f"[{self.finished}/{self.stages}] {label}"
        if reason is not None:
            self.say(f"{place}  no {self.title}: {reason}")
        elif not cached:
            took = time.monotonic() - self.part_started
            self.worked, self.spent = self.worked + self._weight(label), self.spent + took
            rest = (self.stages if self.weights is None else sum(self.weights.values())) - self.ended
            known = self.finished < self.stages and self.worked > 0
            left = f"; about {duration(self.spent / self.worked * max(0.0, rest))} left" if known else ""
            self.say(f"{place}  {self.title} in {duration(took)}{left}")

    def _weight(self, label: str) -> float:
        return 1.0 if self.weights is None else self.weights.get(label, 0.0)
