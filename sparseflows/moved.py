"""Modules of version 0.1 under their old names.

Files, pickles and notebooks written for 0.1 import modules that have moved since. Each such name still gives the
module itself, with a `DeprecationWarning` that names its new place. Modules that became packages of the same name
(`sparseflows.specs`, `analysis.compare`, …) export what they held, and need no entry.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_MOVED_WITHIN = {
    "sparseflows": {
        "classification": "evaluation.classification",
        "console": "cli.console",
        "data.bundled": "data.tables.bundled",
        "data.mapped": "data.tables.mapped",
        "data.tabular": "data.tables.tabular",
        "estimator": "integrations.estimator",
        "experiment.params": "specs.yaml",
        "experiment.records": "experiment.folder.records",
        "experiment.tracking": "experiment.monitoring.loggers",
        "experiment.store": "experiment.folder.folder",
        "experiment.use": "experiment.inference",
        "flow.compact": "flow.smaller.compact",
        "flow.ode": "flow.solvers.ode",
        "flow.sparse": "flow.smaller.sparse",
        "flow.sparse_layer": "flow.smaller.sparse",
        "pipelines": "integrations.pipelines",
        "process_group": "distributed.process_group",
        "processes": "distributed.processes",
        "pruning.allocation": "pruning.scoring.allocation",
        "pruning.bounds": "pruning.scoring.bounds",
        "pruning.chains": "pruning.graph.chains",
        "pruning.criteria": "pruning.scoring.criteria",
        "pruning.groups": "pruning.graph.groups",
        "pruning.masks": "pruning.graph.masks",
        "pruning.observe": "pruning.observing.observe",
        "pruning.promises": "pruning.scoring.promises",
        "pruning.removal": "pruning.cutting.removal",
        "pruning.schedule": "specs.keep_ratios",
        "pruning.scores": "pruning.scoring.criteria",
        "pruning.sipp": "pruning.scoring.criteria.sipp",
        "pruning.statistics": "pruning.observing.statistics",
        "pruning.structured": "pruning.cutting.structured",
        "pruning.unstructured": "pruning.cutting.unstructured",
        "torchrun": "distributed.torchrun",
        "training.held_grid": "training.held_steps",
    },
    "analysis": {
        "baselines": "tabular.baselines",
        "commands": "cli",
        "compare_types": "compare.types",
        "coverage": "samples.coverage",
        "frozen": "curvature.held_steps",
        "grids": "fields.grids",
        "hessian": "curvature.stage",
        "lanczos": "curvature.lanczos",
        "losses": "curvature.losses",
        "modes": "samples.modes",
        "operators": "curvature.operators",
        "progress": "runs.progress",
        "records": "runs.records",
        "results": "runs.results",
        "spectrum": "curvature.spectrum",
        "study": "runs.study",
        "trace": "curvature.trace",
    },
}
MOVED = {f"{room}.{old}": f"{room}.{new}" for room, names in _MOVED_WITHIN.items() for old, new in names.items()}


class _OldNames:
    """Finds a module by the name it had; asked last, so that a module that exists is never shadowed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old name; None for every other."""
        return ModuleSpec(fullname, cast("Loader", self)) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself, under its new name; its own spec is remembered, for the import system writes over it."""
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is {new} now", DeprecationWarning, stacklevel=2)
        module = import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back; it has run under its new name."""
        if module.__spec__ is not None:
            module.__spec__ = module.__spec__.loader_state


def keep_old_names() -> None:
    """Let the names of `MOVED` be imported; a second call does nothing."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
