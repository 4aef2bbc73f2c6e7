"""What a recipe is: the files that it reads, how each becomes a table, and how the tables become three parts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from sparseflows.data.files.containers import Member, Wanted
from sparseflows.data.files.sources import Meter
from sparseflows.data.files.streaming import Blocks, Moments, blocks, on_disk, refuse_constant
from sparseflows.errors import InputError

GIB = 1 << 30

Span = tuple[np.ndarray, int, int]  # rows of this table, from a start to a stop


@dataclass(frozen=True)
class Table:
    """Rows of a source, larger than memory perhaps: `rows` (N, D) slices to arrays; `raw`: from the public text."""

    rows: np.ndarray
    columns: list[str]
    raw: bool
    name: str


@dataclass(frozen=True)
class Kit:
    """What a recipe works with: a folder for temporary files, a seed, and who wants to know how far it is."""

    scratch: Path
    seed: int
    meter: Meter

    def free_path(self) -> Path:
        """A path in `scratch` where nothing is yet."""
        return next(path for k in count() if not (path := self.scratch / f"table-{k}").exists())

    def on_disk(self, made: Iterable[np.ndarray], name: str) -> np.ndarray:
        """Blocks (B, D) as a table (N, D) in `scratch` (`streaming.on_disk`)."""
        return on_disk(self.free_path(), made, name)


@dataclass(frozen=True)
class Part:
    """One of the three: `blocks()` gives its `rows` rows, as often as it is called."""

    rows: int
    blocks: Blocks


@dataclass(frozen=True)
class Made:
    """A set, made: parts in the order train, validation, test; `mean` and `std` (D,) where it was standardised here."""

    columns: list[str]
    parts: tuple[Part, Part, Part]
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    sample: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """How one set is made.

    Attributes:
        wanted: the files; those of one key are alternatives.
        read: an open file becomes tables by key.
        make: all tables become the set.
        module: that it needs, of the extra `archives`.
    """

    wanted: tuple[Wanted, ...]
    read: Callable[[Member, Kit], dict[str, Table]]
    make: Callable[[dict[str, Table], Kit], Made]
    module: str | None = None


def limit(published: int) -> int:
    """Bytes that a file may unpack to, where the published one has so many: four times these, and 1 GiB at least."""
    return max(4 * published, GIB)


def tenths(rows: np.ndarray, name: str) -> tuple[Span, Span, Span]:
    """The spans of `rows` (N, D): the last tenth is the test part, the last tenth of the rest validates.

    Raises:
        InputError: a part would be without rows.
    """
    total = len(rows)
    rest = total - total // 10
    if rest // 10 < 1 or total // 10 < 1:
        raise InputError(f"{name}: {total} rows are too few to split; at least 12 are wanted")
    cut = rest - rest // 10
    return (rows, 0, cut), (rows, cut, rest), (rows, rest, total)


def standardised(
    table: Table,
    spans: tuple[Span, Span, Span],
    found: Moments,
    kept: list[int] | None = None,
    sample: bool = False,
    notes: Sequence[str] = (),
) -> Made:
    """The set whose parts are `spans`, column by column less the mean and over the deviation.

    `found` are the moments of all D columns of `table`; `kept` the columns that are kept, by default all.

    Raises:
        InputError: a kept column never varies, or cannot be standardised.
    """
    chosen = list(range(len(table.columns))) if kept is None else kept
    names, found = [table.columns[k] for k in chosen], found.of(chosen)
    refuse_constant(found, names, table.name)

    def make(rows: np.ndarray, start: int, stop: int) -> Iterator[np.ndarray]:
        for block in blocks(rows, start, stop):
            yield (block[:, chosen] - found.mean) / found.std

    train, validation, test = (Part(span[2] - span[1], partial(make, *span)) for span in spans)
    return Made(names, (train, validation, test), found.mean, found.std, sample, [*notes])


def unspiked(rows: np.ndarray, name: str) -> list[int]:
    """The columns of `rows` (N, D) whose smallest value occurs no more than 5 times.

    Raises:
        InputError: there are none.
    """
    smallest = np.full(rows.shape[1], np.inf)
    found = np.zeros(rows.shape[1], dtype=np.int64)
    for block in blocks(rows):
        lowest = block.min(axis=0)
        times = (block == lowest).sum(axis=0)
        found = np.where(lowest < smallest, times, np.where(lowest == smallest, found + times, found))
        smallest = np.minimum(smallest, lowest)
    kept = [int(k) for k in np.flatnonzero(found <= 5)]
    if not kept:
        raise InputError(f"{name}: no column without a spike at its smallest value; give the published file")
    return kept
