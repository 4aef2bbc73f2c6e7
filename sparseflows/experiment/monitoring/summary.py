"""The table that `sparseflows run` ends with."""

import math
from collections.abc import Sequence
from pathlib import Path

from sparseflows.experiment.folder.records import Record


def results_text(records: Sequence[Record], folder: Path) -> str:
    """One line a stage; `sparseflows table` averages over seeds and draws the figure."""
    names = [f"{record.cascade}/{record.stage}" for record in records]
    wide = max([20, *map(len, names)])
    classifiers = any(record.accuracy_test is not None for record in records)
    first, second = ("accuracy", "test loss") if classifiers else ("test NLL", "KL gap")
    head = f"{'stage':<{wide}} {'params':>9} {'PR':>7} {first:>16} {second:>16} {'NFE':>5}"
    lines = [head, "-" * len(head)]
    for name, record in zip(names, records, strict=True):
        if not record.done:
            lines.append(f"{name:<{wide}} failed: {record.reason}")
            continue
        first, second = _judged(record)
        ratio = f"{100 * (record.prune_ratio or 0.0):.1f} %"
        lines.append(f"{name:<{wide}} {record.params:>9,} {ratio:>7} {first:>16} {second:>16} {record.nfe or '':>5}")
    partial = [name for name, record in zip(names, records, strict=True) if record.rows_left_out]
    if partial:
        most = max(record.rows_left_out for record in records)
        lines.append(f"{', '.join(partial)}: up to {most:,} test rows have no finite log p; the NLL is over the others")
    units = "share of the test rows; loss in nats" if classifiers else "nats, standardised coordinates"
    lines.append(f"{units}, ± standard error over the test rows; written to {folder}")
    failed = sum(not record.done for record in records)
    if failed:
        lines.append(f"{failed} of {len(records)} stages failed")
    return "\n".join(lines)


def _judged(record: Record) -> tuple[str, str]:
    if record.accuracy_test is None:
        return _with_error(record.nll_test, record.nll_test_se), _with_error(record.kl_gap, record.kl_gap_se)
    share, n = record.accuracy_test, record.n_test or 1
    error = math.sqrt(share * (1 - share) / n)
    return f"{100 * share:.2f} ± {100 * error:.2f} %", _with_error(record.loss_test, None)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if error is None or math.isnan(error) else f"{value:.3f} ± {error:.3f}"
