"""The processes that train one network together; a single one needs no group, and callers no ifs.

All of them run the same program on the same data and take the same decisions. What differs is which rows of a batch
they compute (`share`), which chunks of an evaluation (`spread`), and that the first one alone writes (`first`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Share:
    """What one process computes of a batch.

    Attributes:
        rows: its rows of the batch.
        whole: rows of the batch.
        weight: what the mean over its rows counts for in the batch's mean; over all processes they sum to 1.
        processes: that solve these rows together with others.
    """

    rows: slice
    whole: int
    weight: float
    processes: Processes

    def part(self, mean: Tensor) -> Tensor:
        """The share's part () of the batch's mean, for the mean () over its rows: the parts of all processes add up."""
        return mean if self.weight == 1 else mean * self.weight


@dataclass(frozen=True)
class Processes:
    """This process, alone. `process_group.ProcessGroup` is one of several.

    Attributes:
        rank: which one, from 0.
        world: how many.
    """

    rank: int = 0
    world: int = 1

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def share(self, rows: int) -> Share:
        """This process's share of a batch: a contiguous run of the rows, as long as the others' or longer by one.

        A batch with fewer rows than there are processes (the last one of an epoch may be that small) is computed
        whole by each, and the first one's counts: a solve of no rows is not a thing.
        """
        if rows < self.world:
            return Share(slice(0, rows), rows, float(self.rank == 0), ALONE)
        first, last = (rank * rows // self.world for rank in (self.rank, self.rank + 1))
        return Share(slice(first, last), rows, (last - first) / rows, self)

    def device(self, name: str) -> str:
        """The device that this process computes on, of `device` in the param file."""
        return name

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes of a tensor (…) that each has in that shape; differentiable."""
        return tensor

    def add_(self, tensor: Tensor) -> None:
        """Put the sum over all processes into `tensor` (…)."""

    def copy_first_(self, tensor: Tensor) -> None:
        """Put the first process's values into `tensor` (…)."""

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives, or raises, in the first process, which alone does it. The result must pickle."""
        return work()

    def spread(self, work: Callable[[S], T], items: Sequence[S], failed: Callable[[T], bool]) -> Iterator[T]:
        """`work` of all items in their order, each done by one process, up to the first that `failed`."""
        for item in items:
            result = work(item)
            yield result
            if failed(result):
                return


ALONE = Processes()


def by_first(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method of what has `processes`: the first of them carries it out, and tells the others of it."""

    @functools.wraps(method)
    def shared(self: Any, /, *args: P.args, **options: P.kwargs) -> T:
        processes: Processes = self.processes
        return processes.first(lambda: method(self, *args, **options))

    return shared
