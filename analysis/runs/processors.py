"""How many processors this process may use, and work that is shared among them."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

SEVERAL = 3  # pieces of work from which on it pays to start processes for them


def processors() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(function: Callable[..., Any], pieces: Sequence[Any]) -> Iterable[Any]:
    """`function` of each piece, in their order; where there are several pieces and processors, in processes."""
    if len(pieces) < SEVERAL or processors() == 1:
        return map(function, pieces)
    from sparseflows.experiment.scheduling.pool import side_by_side

    return side_by_side(function, pieces, processors())
