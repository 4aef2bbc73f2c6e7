"""Figures of flows on a user's axes, and the drawing that the figures of runs share."""

from importlib import import_module
from typing import Any

# Public name → module. They are imported when first used: what only needs the colours must not wait for PyTorch.
_PUBLIC = {
    "plot_flow": "sparseflows.plot.flows",
    "plot_density": "sparseflows.plot.flows",
    "plot_samples": "sparseflows.plot.flows",
    "plot_field": "sparseflows.plot.motion",
    "plot_paths": "sparseflows.plot.motion",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sparseflows.plot' has no attribute '{name}'")
