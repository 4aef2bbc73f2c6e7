"""Train continuous normalizing flows, prune them, and see what pruning did."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name → module. They are imported when first used: `sparseflows --help` must not wait for PyTorch.
_PUBLIC = {
    "Flow": "sparseflows.flow.model",
    "Solver": "sparseflows.flow.ode",
    "build_flow": "sparseflows.flow.build",
    "Masks": "sparseflows.pruning.masks",
    "Sample": "sparseflows.pruning.observe",
    "classification_loss": "sparseflows.pruning.observe",
    "score": "sparseflows.pruning.criteria",
    "unpruned": "sparseflows.pruning.methods",
    "prune": "sparseflows.pruning.methods",
    "prune_by_scores": "sparseflows.pruning.methods",
    "prune_by_masks": "sparseflows.pruning.methods",
    "shrink": "sparseflows.pruning.structured",
    "SparseFlowDensity": "sparseflows.estimator",
    "pipeline_score_samples": "sparseflows.pipelines",
    "pipeline_nll": "sparseflows.pipelines",
    "Spec": "sparseflows.specs",
    "load_spec": "sparseflows.experiment.params",
    "load_sweep": "sparseflows.experiment.sweep",
    "load": "sparseflows.experiment.loading",
    "load_network": "sparseflows.experiment.loading",
    "load_masks": "sparseflows.experiment.loading",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'sparseflows' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
