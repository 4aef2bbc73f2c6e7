"""A few of many stages, for a figure that cannot show them all."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.runs.study import Subject
from sparseflows.experiment.folder.records import DENSE


def evenly(stages: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0 … stages − 1, spread evenly, the last one among them."""
    count = min(stages, most)
    return sorted({round(stages - 1 - k * (stages - 1) / max(count - 1, 1)) for k in range(count)})


def by_cascade(subjects: Iterable[Subject], every: bool = False) -> dict[str, list[Subject]]:
    """Cascade → the dense network of its seed, where it is among `subjects`, and its own stages, rising.

    Of each method in each protocol the first seed alone, unless `every`.
    """
    in_order = sorted(subjects, key=lambda one: one.record.seed)
    dense = {one.record.seed: [one] for one in in_order if one.record.series == DENSE}
    first: dict[str, int] = {}
    found: dict[str, list[Subject]] = {}
    for one in in_order:
        record = one.record
        if record.series != DENSE and (first.setdefault(record.series, record.seed) == record.seed or every):
            found.setdefault(record.cascade, [*dense.get(record.seed, [])]).append(one)
    return {cascade: sorted(own, key=lambda one: one.record.stage) for cascade, own in found.items()}
