"""A few of many stages, for a figure that cannot show them all."""

from __future__ import annotations


def evenly(stages: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0 … stages − 1, spread evenly, the last one among them."""
    if stages <= most:
        return list(range(stages))
    return (
        sorted({round(stages - 1 - k * (stages - 1) / (most - 1)) for k in range(most)}) if most > 1 else [stages - 1]
    )
