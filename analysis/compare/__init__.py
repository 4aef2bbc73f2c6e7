"""Criteria and protocols compared, paired by seed."""

from analysis.compare.compare import Key, compare

__all__ = ["Key", "compare"]
