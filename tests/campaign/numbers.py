"""What must come out the same: the numbers of a run folder, and what commands say of it."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from sparseflows.experiment.folder.records import Record
from tests.campaign.verdicts import require

COLUMNS = [field.name for field in fields(Record)]
LITTER = (".*.tmp", ".writing*", "*.pt")


def numbers(run: Path) -> dict[str, Any]:
    """All that a run computed, time apart: rows, metrics, statistics of the data, the bytes of models and masks."""
    with (run / "results.csv").open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "train_seconds"} for row in csv.DictReader(stream)]
    tensors = sorted(run.glob("cascades/*/stages/[0-9]*/*.safetensors"))
    return {
        "results.csv": rows,
        "metrics.jsonl": (run / "metrics.jsonl").read_text(),
        "data.json": (run / "data.json").read_text(),
        "models": {str(path.relative_to(run)): digest(path) for path in tensors},
    }


def require_numbers(run: Path, expected: dict[str, Any]) -> None:
    """Raise a fault where a finished run is not as the undisturbed one."""
    require((run / "results.csv").is_file(), f"{run.name}: no results.csv after the run")
    found = numbers(run)
    for name, value in expected.items():
        require(found[name] == value, f"{name} is not that of the undisturbed run")


def require_clean(run: Path) -> None:
    """Raise a fault where a finished run has left behind what it had only begun to write."""
    litter = [str(path.relative_to(run)) for pattern in LITTER for path in run.rglob(pattern)]
    require(not litter, f"left behind: {', '.join(litter)}")


def whole_stages(run: Path) -> dict[str, str]:
    """`<cascade>/<k>` → digest of its record, of the stages that are there now.

    Raises:
        Fault: a stage, a table or a setting is half-written.
    """
    if not run.exists():
        return {}
    try:
        json.loads((run / "run.json").read_text())
        if (run / "results.csv").exists():
            text = (run / "results.csv").read_text()
            head, *rows = list(csv.reader(text.splitlines()))
            require(head == COLUMNS and all(len(row) == len(head) for row in rows), "results.csv is half-written")
            require(text.endswith("\n"), "results.csv is half-written")
        if (run / "metrics.jsonl").exists():
            [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found = {}
        for stage in sorted(run.glob("cascades/*/stages/[0-9]*")):
            record = json.loads((stage / "record.json").read_text())
            for name, known in record["sha256"].items():
                require(digest(stage / name) == known, f"{stage.relative_to(run)}/{name} is half-written")
            found[f"{stage.parents[1].name}/{stage.name}"] = digest(stage / "record.json")
        return found
    except (OSError, ValueError, KeyError) as error:
        require(False, f"half-written: {type(error).__name__}: {error}")
        raise


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
