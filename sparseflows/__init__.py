"""Train continuous normalizing flows, prune them, and see what pruning did."""

from importlib import import_module
from typing import Any

from sparseflows.moved import keep_old_names

__version__ = "0.1.0"

# Public name → module. They are imported when first used: `sparseflows --help` must not wait for PyTorch.
_PUBLIC = {
    "Flow": "sparseflows.flow.model",
    "Solver": "sparseflows.flow.solvers.ode",
    "build_flow": "sparseflows.flow.build",
    "Masks": "sparseflows.pruning.graph.masks",
    "Sample": "sparseflows.pruning.observing.observe",
    "classification_loss": "sparseflows.pruning.observing.observe",
    "score": "sparseflows.pruning.scoring.criteria.by_name",
    "unpruned": "sparseflows.pruning.methods",
    "prune": "sparseflows.pruning.methods",
    "prune_by_scores": "sparseflows.pruning.methods",
    "prune_by_masks": "sparseflows.pruning.methods",
    "shrink": "sparseflows.pruning.cutting.structured",
    "SparseFlowDensity": "sparseflows.integrations.estimator",
    "pipeline_score_samples": "sparseflows.integrations.pipelines",
    "pipeline_nll": "sparseflows.integrations.pipelines",
    "Spec": "sparseflows.specs",
    "load_spec": "sparseflows.specs.yaml",
    "load_sweep": "sparseflows.experiment.sweep.points",
    "save": "sparseflows.networks.saving",
    "load_file": "sparseflows.networks.saving",
    "load": "sparseflows.experiment.loading",
    "load_network": "sparseflows.experiment.loading",
    "load_masks": "sparseflows.experiment.loading",
}

_ROOMS = ("plot",)  # public as they are: sparseflows.plot.plot_density

__all__ = ["__version__", *_PUBLIC]

keep_old_names()


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _ROOMS:
        return import_module(f"sparseflows.{name}")
    raise AttributeError(f"module 'sparseflows' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
