"""What came of a case: right, refused, noted; or one of the three faults."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.campaign.commands import UNCAUGHT, Ended

RIGHT, REFUSED, NOTED = "right number", "refused", "noted"
TRACEBACK, HANG, WRONG = "traceback", "hang", "wrong number"
FAULTS = (TRACEBACK, HANG, WRONG)
OUTCOMES = (RIGHT, REFUSED, NOTED, *FAULTS)

SHOWN = 900  # characters of what was said
REFUSAL = re.compile(r"sparseflows: \S[^\n]*")
NOTES = ("note:", "damaged", "set aside", "missing", "out of memory", "another version", "cannot", "could not")


@dataclass(frozen=True)
class Found:
    """The outcome of a case.

    Attributes:
        outcome: one of OUTCOMES.
        detail: what was said, or what differs.
        kills: processes that were killed or interrupted in the middle of their work.
        inputs: mutated files that were given to a command.
    """

    outcome: str
    detail: str = ""
    kills: int = 0
    inputs: int = 0


class Fault(Exception):
    """Ends a case with a fault."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


@contextlib.contextmanager
def after(what: str) -> Iterator[None]:
    """Faults within say what had been done before."""
    try:
        yield
    except Fault as fault:
        raise Fault(fault.outcome, f"{fault.detail} (after {what})") from None


def require(right: bool, what: str) -> None:
    """Raise the fault `wrong number` where something is not as it should be."""
    if not right:
        raise Fault(WRONG, what)


def judge(ended: Ended, interrupted: Sequence[int] = ()) -> str:
    """`right number` (status 0), `noted` or `refused`, as far as the end of a command can tell.

    Args:
        ended: how it ended.
        interrupted: statuses that are right as well, for who was sent a signal.

    Raises:
        Fault: it hung, or ended by an exception, or was refused in other than one line.
    """
    if ended.status is None:
        raise Fault(HANG, f"still at work after {ended.seconds:.0f} s: {shown(ended)}")
    if ended.status == UNCAUGHT or "Traceback (most recent call last)" in ended.err + ended.out:
        raise Fault(TRACEBACK, shown(ended))
    if ended.status in interrupted:
        return RIGHT
    if ended.status == 0:
        return NOTED if any(note in ended.err for note in NOTES) else RIGHT
    if ended.status not in (1, 2):
        raise Fault(TRACEBACK, f"status {ended.status}: {shown(ended)}")
    if not REFUSAL.fullmatch(ended.last):
        raise Fault(TRACEBACK, f"refused without a line of its own: {shown(ended)}")
    if ended.status == 2 and "\n" in ended.err.strip() and not _told_before(ended):
        raise Fault(TRACEBACK, f"refused in more than one line: {shown(ended)}")
    return REFUSED


def _told_before(ended: Ended) -> bool:
    """Whether the lines ahead of the refusal are notes and progress, as of a run that had begun."""
    before = ended.err.strip().splitlines()[:-1]
    return all(re.match(r"note: |\S+: results go to |\[\d+/\d+\] |  ?\S|\S+: \d+ points", line) for line in before)


def shown(ended: Ended) -> str:
    """What a command said on standard error, its end, on one line."""
    text = " | ".join(line.strip() for line in ended.err.splitlines() if line.strip(" ^~"))
    return text if len(text) <= SHOWN else f"… {text[-SHOWN:]}"
