"""The table of `analysis modes` for the terminal. Pure: entries in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from analysis.cli import layout
from analysis.runs.results import Entry
from analysis.runs.study import Study
from analysis.samples.modes import DEVIATIONS

CLOSENESS = ("density", "coverage", "sliced_wasserstein")
FAR = 1000  # standard deviations of the data, in any column: a sample that far out is lost


def text(study: Study, entries: Sequence[Entry]) -> str:
    """The table for the terminal: reference rows first, a stage a row."""
    done = [entry.result.values for entry in entries if entry.result is not None]
    if not done:
        return f"{layout.title(study)}\n{layout.notes(entries)}"
    drawn = f"{layout.title(study)}; {done[0]['samples']:,} samples a stage, seed {done[0]['samples_seed']}\n"
    if done[0]["modes_total"] is None:
        body = _closeness_text(entries)
    else:
        body = _shares_text(entries)
        if "paper_good_within_2" in done[0]:
            body += "\n" + _shares_text(entries, "paper_")
    reasons = layout.notes(entries) + _lost_text(entries)
    return drawn + body + (f"\n{reasons}" if reasons else "")


def _shares_text(entries: Sequence[Entry], prefix: str = "") -> str:
    one = next(entry.result.values for entry in entries if entry.result is not None)
    total = one["modes_total"]

    def cells(values: dict[str, Any], shares: str, captured: int) -> list[str]:
        within = [
            layout.percent(values[f"{shares}_within_{k}"], values.get(f"{shares}_within_{k}_se")) for k in DEVIATIONS
        ]
        return [*within, f"{captured} of {total}"]

    lines = [["test rows", "", "", *cells(one, f"{prefix}data", one[f"{prefix}data_modes_captured"])]]
    if not prefix:
        lines.insert(0, ["perfect sampler", "", "", *cells(one, "perfect", total)])
    for entry in entries:
        if entry.result is None:
            lines.append([*layout.head(entry), *[layout.NOTHING] * 4])
        else:
            values = entry.result.values
            lines.append([*layout.head(entry), *cells(values, f"{prefix}good", values[f"{prefix}modes_captured"])])
    heading = ["stage", "prune ratio", "params", *(f"within {k} sd" for k in DEVIATIONS), "captured"]
    distance = "published distance" if prefix else "Mahalanobis distance"
    legend = f"% of samples within k sd of the nearest mode ({distance}), ± binomial s.e.\n\n"
    return legend + layout.text_table(heading, lines)


def _lost_text(entries: Sequence[Entry]) -> str:
    lost = [
        f"{entry.subject.name} {entry.result.values['samples_lost']:,}"
        for entry in entries
        if entry.result is not None and entry.result.values["samples_lost"]
    ]
    if not lost:
        return ""
    line = f"lost (run off to infinity or beyond {FAR:,} sd; they count as near no mode): {', '.join(lost)}"
    return textwrap.fill(line, layout.WIDTH, subsequent_indent="  ") + "\n"


def _closeness_text(entries: Sequence[Entry]) -> str:
    one = next(entry.result.values for entry in entries if entry.result is not None)

    def cells(values: dict[str, Any], suffix: str = "") -> list[str]:
        return [layout.number(values[f"{n}{suffix}"], values[f"{n}{suffix}_se"], digits=3) for n in CLOSENESS]

    lines = [["validation rows", "", "", *cells(one, "_data")]]
    for entry in entries:
        numbers = [layout.NOTHING] * 3 if entry.result is None else cells(entry.result.values)
        lines.append([*layout.head(entry), *numbers])
    heading = ["stage", "prune ratio", "params", "density", "coverage", "sliced Wasserstein"]
    legend = (
        f"against test rows, {one['neighbour_rows']:,} a side ({one['wasserstein_rows']:,} for the distance, in "
        f"standard deviations),\nk = {one['neighbours']} neighbours; ± s.e.; the data have no modes\n\n"
    )
    return legend + layout.text_table(heading, lines)
