"""The table that `sparseflows run` ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparseflows.experiment.records import DONE, Record


def results_text(records: Sequence[Record], folder: Path) -> str:
    """One line a stage; `python -m analysis table` averages over seeds and draws the figure."""
    head = f"{'stage':<20} {'params':>9} {'PR':>7} {'test NLL':>16} {'KL gap':>16} {'NFE':>5}"
    lines = [head, "-" * len(head)]
    for record in records:
        name = f"{record.cascade}/{record.stage}"
        if record.status != DONE:
            lines.append(f"{name:<20} failed: {record.reason}")
            continue
        nll, gap = (
            _with_error(record.nll_test, record.nll_test_se),
            _with_error(record.kl_gap, record.kl_gap_se),
        )
        ratio = f"{100 * (record.prune_ratio or 0.0):.1f} %"
        lines.append(f"{name:<20} {record.params:>9,} {ratio:>7} {nll:>16} {gap:>16} {record.nfe or '':>5}")
    lines.append(f"nats, standardised coordinates, ± standard error over the test rows; written to {folder}")
    return "\n".join(lines)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"
