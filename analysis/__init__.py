"""Analysis of run folders: tables, figures, and what pruning did."""

from importlib import import_module
from typing import Any

from sparseflows.moved import keep_old_names

# Public name → module. They are imported when first used: `--help` must not wait for PyTorch or pandas.
_PUBLIC = {"analyse": "analysis.analyses.shape", "frame": "analysis.runs.frame"}

__all__ = [*_PUBLIC]

keep_old_names()


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'analysis' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
