"""The text table and the JSON document."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.context import Settings
from benchmarks.measure import Measurement, Spread

FORMAT = 1
PACKAGES = ("sparseflows", "torch", "torchdiffeq", "zuko", "pyhessian", "numpy", "scipy")
HEADER = ("work", "case", "ours", "peer", "ratio", "goal", "")


@dataclass(frozen=True)
class Outcome:
    """How one work went.

    Attributes:
        name: of the work.
        status: done, failed or skipped.
        seconds: that it took in all.
        measurements: its rows.
        reason: where it is not done.
    """

    name: str
    status: Literal["done", "failed", "skipped"]
    seconds: float
    measurements: list[Measurement] = field(default_factory=list)
    reason: str = ""


def document(outcomes: Sequence[Outcome], settings: Settings, notes: Sequence[str]) -> dict[str, Any]:
    """Everything, with every raw repeat; numbers that are not finite become null."""
    found = {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": asdict(settings),
        "machine": machine(),
        "versions": versions(),
        "notes": list(notes),
        "works": [
            {
                "name": one.name,
                "status": one.status,
                "reason": one.reason,
                "seconds": one.seconds,
                "measurements": [measurement.document() for measurement in one.measurements],
            }
            for one in outcomes
        ],
    }
    cleaned: dict[str, Any] = _finite(found)
    return cleaned


def text(outcomes: Sequence[Outcome], settings: Settings, notes: Sequence[str]) -> str:
    """The table, then the notes of every work."""
    rows: list[tuple[str, ...]] = [HEADER]
    for one in outcomes:
        rows += [_row(measurement) for measurement in one.measurements]
        if one.status != "done":
            rows.append((one.name, one.status, "", "", "", "", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths).rstrip())
    where = machine()
    lines += [
        "",
        f"median (smallest–largest); ratio: peer / ours, but ours / peer where it says '÷ peer'; {_mode(settings)}",
    ]
    lines.append(f"{where['processor']}, {where['cores']} cores, load {where['load']}; {_versions_line()}")
    lines += [f"note: {note}" for note in notes]
    for one in outcomes:
        lines += [f"{one.name}: {reason}" for reason in [one.reason] if reason]
        lines += [f"{one.name}, {m.case}: {m.note}" for m in one.measurements if m.note]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where this runs."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(load, 2),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that are measured; None where one is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def amount(value: float, unit: str) -> str:
    """A number as a person reads it: 3 significant digits, ms below a second."""
    if unit == "s" and value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.4g} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def _row(found: Measurement) -> tuple[str, ...]:
    spread = Spread.of(found.ratios)
    ratio = f"{spread.median:.3g} ({spread.low:.3g}–{spread.high:.3g})" if found.ratios else ""
    if found.ratios and found.ratio == "ours / peer":
        ratio += " ÷ peer"
    met = {True: "met", False: "missed", None: ""}[found.met]
    if found.failures:
        met += f", {found.failures} failed"
    cells = (_amounts(found.ours, found.unit), _amounts(found.peer, found.unit), ratio)
    return (found.name, found.case, *cells, str(found.goal or ""), met)


def _amounts(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    spread = Spread.of(values)
    if len(values) == 1:
        return amount(spread.median, unit)
    return f"{amount(spread.median, unit)} ({amount(spread.low, unit)}–{amount(spread.high, unit)})"


def _mode(settings: Settings) -> str:
    kind = "quick" if settings.quick else "full"
    return f"{kind}, {settings.seeds} seeds, {settings.repeats} repeats, {settings.threads} thread(s)"


def _versions_line() -> str:
    return ", ".join(f"{name} {version}" for name, version in versions().items() if version)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or sys.platform


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
