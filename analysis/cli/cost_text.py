"""The tables of `analysis cost` for the terminal. Pure: entries in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.cli import layout
from analysis.runs.results import Entry
from analysis.runs.study import Study

WAYS = ("log_prob", "sample")
SPARSE = "_sparse"  # ends the name of a way, where zeros are not multiplied
_LIKELIHOODS = {"nll_test": "test NLL", "kl_gap": "KL gap"}


def text(study: Study, entries: Sequence[Entry]) -> str:
    """Two tables for the terminal: what is counted, what is measured."""
    done = [entry.result.values for entry in entries if entry.result is not None]
    reasons = layout.notes(entries) + _failures(entries)
    if not done:
        return f"{layout.title(study)}\n{reasons}"
    one = done[0]
    likelihoods = [name for name in _LIKELIHOODS if any(values[name] is not None for values in done)]
    heading = ["stage", "prune ratio", "params", "bytes", "sparse", "f", "f + div."]
    counted = layout.text_table(
        [*heading, *(_LIKELIHOODS[name] for name in likelihoods)],
        [[*layout.head(entry), *_counted(entry, likelihoods)] for entry in entries],
    )
    measured = layout.text_table(
        ["stage", "NFE log p", "log p (ms)", "speed-up", "NFE sampling", "sampling (ms)", "speed-up"],
        [[entry.subject.name, *_measured(entry)] for entry in entries],
    )
    return (
        f"{layout.title(study)}\n"
        "bytes of the params in memory (sparse: of the surviving ones, matrices by rows); multiply-adds of one\n"
        "evaluation of f, and of f with its divergence, a row of the batch; test NLL and KL gap in nats, ± s.e.\n\n"
        f"{counted}\n"
        f"{one['rows']:,} rows, one thread, {one['processor']}: median of {one['repeats']} (fastest-slowest);\n"
        "speed-up: the dense flow's seconds over the stage's\n\n"
        f"{measured}{_sparse(entries)}" + (f"\n{reasons}" if reasons else "")
    )


def _counted(entry: Entry, likelihoods: Sequence[str]) -> list[str]:
    if entry.result is None:
        return [layout.NOTHING] * (4 + len(likelihoods))
    values = entry.result.values
    counts = [f"{values[name]:,}" for name in ("bytes", "bytes_sparse", "macs", "macs_divergence")]
    errors = [layout.number(values[name], values[f"{name}_se"], digits=3) for name in likelihoods]
    return [*counts, *errors]


def _measured(entry: Entry) -> list[str]:
    if entry.result is None:
        return [layout.NOTHING] * 6
    values, cells = entry.result.values, []
    for way in WAYS:
        if values[f"{way}_seconds"] is None:
            cells += [layout.NOTHING] * 3
            continue
        cells += [f"{values[f'{way}_nfe']:,}", _spread(values, way), layout.number(values[f"{way}_speedup"])]
    return cells


def _sparse(entries: Sequence[Entry]) -> str:
    """The table of those whose zeros were skipped; empty where there are none."""
    lines = []
    for entry in entries:
        values = {} if entry.result is None else entry.result.values
        if any(values.get(f"{way}{SPARSE}_seconds") is not None for way in WAYS):
            cells = [cell for way in WAYS for cell in _sparse_cells(values, way)]
            lines.append([entry.subject.name, *cells])
    if not lines:
        return ""
    break_even = next(entry.result.values["break_even"] for entry in entries if entry.result is not None)
    heading = ["stage", "log p (ms)", "dense", "masked", "sampling (ms)", "dense", "masked"]
    return (
        f"\nthe same with sparse execution of the matrices that are more than {100 * break_even:.0f} % zeros;\n"
        f"speed-up over the dense flow, and over the stage itself as it is above\n\n{layout.text_table(heading, lines)}"
    )


def _sparse_cells(values: Mapping[str, Any], way: str) -> list[str]:
    name = f"{way}{SPARSE}"
    if values[f"{name}_seconds"] is None:
        return [layout.NOTHING] * 3
    return [_spread(values, name), *(layout.number(values[f"{name}_speedup{end}"]) for end in ("", "_masked"))]


def _spread(values: Mapping[str, Any], way: str) -> str:
    """Milliseconds: median (fastest-slowest)."""
    median, least, most = (1e3 * values[f"{way}_seconds{suffix}"] for suffix in ("", "_min", "_max"))
    digits = 1 if median < 100 else 0
    return f"{median:,.{digits}f} ({least:,.{digits}f}-{most:,.{digits}f})"


def _failures(entries: Sequence[Entry]) -> str:
    found = [
        f"not timed: {entry.subject.name}: {entry.result.values['timing_failure']}\n"
        for entry in entries
        if entry.result is not None and entry.result.values["timing_failure"]
    ]
    return "".join(found)
