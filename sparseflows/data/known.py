"""Every data set by name, with what is known of it before anything is loaded."""

from dataclasses import dataclass
from typing import Literal

from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.data.images.labelled import IDX
from sparseflows.data.tables.bundled import BUNDLED
from sparseflows.data.toy.toy import TOYS

TABLE = "table"


@dataclass(frozen=True)
class KnownSet:
    """A line of `sparseflows data list`; dimension, rows and classes are None where the file decides.

    Rows are those to train on for toy and prepared sets, else all of them. Classes are None without labels, too.
    """

    name: str
    kind: Literal["toy", "bundled", "prepared", "folder", "file"]
    dimension: int | None
    rows: int | None
    description: str
    classes: int | None = None


def known_sets() -> list[KnownSet]:
    """Every name that `make_splits` takes, toy sets first; nothing is loaded. Toy rows: the default draw."""
    toys = [KnownSet(t.name, "toy", 2, t.default_n, t.description, t.components) for t in TOYS.values()]
    tables = [KnownSet(b.name, "bundled", b.columns, b.rows, b.description, b.classes) for b in BUNDLED.values()]
    benchmarks = [KnownSet(b.name, "prepared", b.columns, b.rows[0], b.description) for b in BENCHMARKS.values()]
    return [
        *toys,
        *tables,
        *benchmarks,
        KnownSet(IDX, "folder", None, None, "images and labels of your own in MNIST's format (data.path)"),
        KnownSet(TABLE, "file", None, None, "a file of your own, such as .npy or .csv (data.path)"),
    ]
