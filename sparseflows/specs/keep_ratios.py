"""Keep-ratio sequences: a list of numbers, with `geometric` and `linear` runs written short."""

import math
from itertools import pairwise
from typing import Any

import numpy as np

MAX_STAGES = 1000


def expand_keep_ratios(value: object) -> list[float]:
    """The full, falling sequence of keep ratios.

    Args:
        value: a list whose items are numbers in (0, 1) or runs `{geometric: [first, last, count]}` and
            `{linear: [first, last, count]}`, both ends included.

    Returns:
        The ratios, each smaller than the one before.

    Raises:
        ValueError: not such a list, a ratio outside (0, 1), or a sequence that does not fall.

    Example:
        >>> expand_keep_ratios([0.9, {"geometric": [0.8, 0.2, 3]}, {"linear": [0.1, 0.05, 2]}])
        [0.9, 0.8, 0.4, 0.2, 0.1, 0.05]
    """
    if not isinstance(value, list):
        raise ValueError("keep_ratios is a list, for example [0.8, 0.5] or [{geometric: [0.8, 0.2, 20]}]")
    ratios = [ratio for item in value for ratio in _expand_item(item)]
    if len(ratios) > MAX_STAGES:
        raise ValueError(f"keep_ratios: at most {MAX_STAGES} stages, not {len(ratios)}")
    for ratio in ratios:
        if not 0 < ratio < 1:
            raise ValueError(f"keep_ratios lie strictly between 0 and 1 (the share that is kept), not {ratio:g}")
    for before, after in pairwise(ratios):
        if after >= before:
            raise ValueError(f"keep_ratios must fall (the share that is kept): {after:g} follows {before:g}")
    return ratios


def _expand_item(item: object) -> list[float]:
    if isinstance(item, int | float) and not isinstance(item, bool):
        try:
            return [float(item)]
        except OverflowError:  # a whole number of more than 308 digits; refused as any other above 1
            return [math.inf if item > 0 else -math.inf]
    if isinstance(item, dict) and len(item) == 1:
        ((kind, run),) = item.items()
        if kind in ("geometric", "linear") and isinstance(run, list) and len(run) == 3:
            return _run(kind, run)
    raise ValueError(
        f"keep_ratios: {repr(item)[:60]} is neither a number nor {{geometric: [first, last, count]}} "
        "nor {linear: [first, last, count]}"
    )


def _run(kind: str, run: list[Any]) -> list[float]:
    first, last, count = run
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in run)
    if not numbers or not isinstance(count, int):
        raise ValueError(f"keep_ratios: {kind} takes [first, last, count], two numbers and a whole number")
    if not 0 < last < first < 1 or not 2 <= count <= MAX_STAGES:
        raise ValueError(
            f"keep_ratios: {kind} {str(run)[:60]} must have 1 > first > last > 0 and 2 ≤ count ≤ {MAX_STAGES}"
        )
    spaced = np.geomspace if kind == "geometric" else np.linspace
    return [round(float(x), 6) for x in spaced(float(first), float(last), count)]
