"""Objects handed to other processes of this machine by way of files: arrays in them are mapped, not read.

However many processes there are, their arrays are the same memory, copied page by page where one of them writes.
"""

import mmap
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PICKLED, SIZES, ARRAYS = "pickled", "sizes", "arrays"
ALIGNED = 64  # bytes: where an array may begin


def write_shared(items: Sequence[Any], folder: Path) -> None:
    """Write `items` into the empty `folder`; an array that several of them hold is written once."""
    buffers: list[pickle.PickleBuffer] = []
    (folder / PICKLED).write_bytes(pickle.dumps(list(items), protocol=5, buffer_callback=buffers.append))
    raw = [buffer.raw() for buffer in buffers]
    (folder / SIZES).write_bytes(pickle.dumps([len(one) for one in raw]))
    with (folder / ARRAYS).open("wb") as file:
        for one in raw:
            file.write(one)
            file.write(bytes(-len(one) % ALIGNED))


def read_shared(folder: Path) -> list[Any]:
    """The items that were written there. They may be written to, and nobody else sees it; the files may be removed."""
    mapped = memoryview(b"")
    with (folder / ARRAYS).open("rb") as file:
        if (folder / ARRAYS).stat().st_size:
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    parts, start = [], 0
    for size in pickle.loads((folder / SIZES).read_bytes()):
        parts.append(mapped[start : start + size])
        start += size + -size % ALIGNED
    found: list[Any] = pickle.loads((folder / PICKLED).read_bytes(), buffers=parts)
    return found
