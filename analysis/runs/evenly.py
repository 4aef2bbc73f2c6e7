"""A few of many stages, for a figure that cannot show them all."""

from __future__ import annotations


def evenly(stages: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0 … stages − 1, spread evenly, the last one among them."""
    count = min(stages, most)
    return sorted({round(stages - 1 - k * (stages - 1) / max(count - 1, 1)) for k in range(count)})
