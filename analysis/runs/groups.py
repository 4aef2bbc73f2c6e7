"""What belongs together: items by a key, the stages of a run over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from analysis.runs.analyses import Key
from analysis.runs.records import DENSE

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
