"""How far a run or a sweep has come, and who works at it: `sparseflows status`."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sparseflows.errors import InputError, RunError
from sparseflows.experiment.folder.folder import RUN, RunFolder
from sparseflows.experiment.folder.locks import Signature, is_held, read_signature
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import StageName, sequences
from sparseflows.experiment.monitoring.meter import duration
from sparseflows.experiment.sweep.folder import SweepFolder

LISTED = 40  # cascades
STATES = ("done", "at work", "begun", "waiting")


@dataclass(frozen=True)
class CascadeStatus:
    """One cascade of a run.

    Attributes:
        name: with its point in front, in a sweep.
        stages: how many it is to have.
        done, failed, damaged: of them.
        reason: of the first failure.
        holder: who works at it: host, pid, stage, step, total.
        seconds: mean training time of a stage that is done.
    """

    name: str
    stages: int
    done: int = 0
    failed: int = 0
    damaged: int = 0
    reason: str | None = None
    holder: Signature | None = None
    seconds: float | None = None

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.holder is not None:
            return "at work"
        there = self.done + self.failed
        return "done" if there == self.stages else "begun" if there else "waiting"


def status_of(path: Path) -> list[CascadeStatus]:
    """Every cascade of a run folder, or of all runs of a sweep's folder.

    Raises:
        InputError: neither of the two.
    """
    if SweepFolder.is_one(path):
        found = []
        for label, point in SweepFolder(path).read_index()["points"].items():
            if (path / label / RUN).is_file():
                found += _of_run(RunFolder.open(path / label), f"{label}/")
            else:
                found += [CascadeStatus(f"{label}/{name}", n) for name, n in point.get("cascades", {}).items()]
        return found
    if not (path / RUN).is_file():
        raise InputError(f"{path}: neither the folder of a run nor of a sweep; give one that `sparseflows run` wrote")
    return _of_run(RunFolder.open(path), "")


def _of_run(run: RunFolder, prefix: str) -> list[CascadeStatus]:
    return [_of_cascade(run, prefix, sequence) for sequence in sequences(run.spec)]


def _of_cascade(run: RunFolder, prefix: str, sequence: list[StageName]) -> CascadeStatus:
    records: list[Record] = []
    damaged = 0
    for name in sequence:
        try:
            record = run.peek(name.cascade, name.stage)
            records += [record] if record else []
        except RunError:
            damaged += 1
    failed = [record for record in records if not record.done]
    seconds = [record.train_seconds for record in records if record.train_seconds]
    return CascadeStatus(
        prefix + sequence[0].cascade,
        len(sequence),
        len(records) - len(failed),
        len(failed),
        damaged,
        failed[0].reason if failed else None,
        read_signature(run.cascade(sequence[0].cascade)),
        fmean(seconds) if seconds else None,
    )


def status_json(path: Path, found: list[CascadeStatus]) -> dict[str, Any]:
    """For a program."""
    sums = {name: sum(getattr(one, name) for one in found) for name in ("stages", "done", "failed", "damaged")}
    return {"folder": str(path)} | sums | {"cascades": [vars(one) | {"state": one.state} for one in found]}


def status_text(path: Path, found: list[CascadeStatus]) -> str:
    """For a person: what is at work, what has failed, and the sums; finished and waiting cascades are counted."""
    total = status_json(path, found)
    lines = []
    at_work = [(one, one.holder) for one in found if one.holder is not None]
    for one, holder in at_work[:LISTED]:
        step = f", step {holder['step']}/{holder['total']}" if holder.get("total") else ""
        place = str(holder.get("stage", "")).rpartition("/")[2]
        where = f"stage {place}{step}" if place else "starting"
        lines.append(f"  {one.name}: {where}, {one.done}/{one.stages} done ({holder.get('host')}, {holder.get('pid')})")
    if len(at_work) > LISTED:
        lines.append(f"  … and {len(at_work) - LISTED} more")
    troubles = [
        f"  {one.name}: " + (f"{one.failed} failed ({one.reason})" if one.failed else f"{one.damaged} damaged")
        for one in found
        if one.failed or one.damaged
    ]
    states = [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    there = total["done"] + total["failed"]
    text = [f"{path}: {there} of {total['stages']} stages there, {total['failed']} failed; cascades: {counts}"]
    seconds = [one.seconds for one in found if one.seconds] or [
        holder["seconds"] * holder["total"] / holder["step"]
        for _, holder in at_work
        if holder.get("step") and "seconds" in holder
    ]
    if at_work and seconds and there < total["stages"]:
        left = fmean(seconds) * (total["stages"] - there) / len(at_work)
        text.append(f"about {duration(left)} of training left with {len(at_work)} at work")
    if at_work:
        text += ["at work:", *lines]
    elif there < total["stages"] and is_held(path):
        text.append("a `sparseflows run` has it in hand, and begins")
    elif there < total["stages"]:
        text.append("nobody is at work; the same `sparseflows run` goes on from here")
    if troubles:
        text += ["failed:", *troubles[:LISTED]]
    return "\n".join(text)
