"""What belongs together: items by a key, stages by seed or cascade; and a few of many, where not all can be shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, TypeVar

from analysis.runs.analyses import Key
from analysis.runs.records import DENSE

if TYPE_CHECKING:
    from analysis.runs.study import Subject  # with NumPy, which `--help` does not wait for

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def grouped(items: Iterable[V], key: Callable[[V], K]) -> dict[K, list[V]]:
    """Key → its items; keys in the order in which they first come, items in theirs."""
    groups: dict[K, list[V]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_stage(stages: Iterable[Key]) -> list[list[Key]]:
    """The seeds of each stage of a method together: dense first, methods in the order of the file, stages rising."""
    groups = grouped(stages, lambda key: (key[0], key[2]))
    order = list(dict.fromkeys(method for method, _ in groups))
    return [groups[one] for one in sorted(groups, key=lambda one: (one[0] != DENSE, order.index(one[0]), one[1]))]


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
