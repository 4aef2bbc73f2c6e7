"""Modules of version 0.1 under their old names.

Files, pickles and notebooks written for 0.1 import modules that have moved since. Each such name still gives the
module itself, with a `DeprecationWarning` that names its new place. Modules that became packages of the same name
(`sparseflows.specs`, `analysis.compare`, …) export what they held, and need no entry.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_ONE_FOLDER_DEEPER = {  # under the name that they had
    "sparseflows.cli": "console",
    "sparseflows.data.tables": "bundled mapped tabular",
    "sparseflows.distributed": "process_group processes torchrun",
    "sparseflows.evaluation": "classification",
    "sparseflows.experiment.folder": "records",
    "sparseflows.flow.smaller": "compact sparse",
    "sparseflows.flow.solvers": "ode",
    "sparseflows.integrations": "estimator pipelines",
    "sparseflows.pruning.cutting": "removal structured unstructured",
    "sparseflows.pruning.graph": "chains groups masks",
    "sparseflows.pruning.observing": "observe statistics",
    "sparseflows.pruning.scoring": "allocation bounds criteria",
    "analysis.curvature": "lanczos losses operators spectrum trace",
    "analysis.runs": "progress records results study",
    "analysis.samples": "coverage modes",
    "analysis.tabular": "baselines",
}
_RENAMED = {
    "sparseflows.experiment.params": "sparseflows.specs.yaml",
    "sparseflows.experiment.tracking": "sparseflows.experiment.monitoring.loggers",
    "sparseflows.experiment.store": "sparseflows.experiment.folder.folder",
    "sparseflows.experiment.use": "sparseflows.experiment.inference",
    "sparseflows.flow.sparse_layer": "sparseflows.flow.smaller.sparse",
    "sparseflows.pruning.promises": "sparseflows.pruning.scoring.bounds",
    "sparseflows.pruning.schedule": "sparseflows.specs.keep_ratios",
    "sparseflows.pruning.scores": "sparseflows.pruning.scoring.criteria",
    "sparseflows.pruning.sipp": "sparseflows.pruning.scoring.criteria.sipp",
    "sparseflows.training.held_grid": "sparseflows.training.held_steps",
    "analysis.commands": "analysis.cli",
    "analysis.compare_types": "analysis.compare.types",
    "analysis.grids": "sparseflows.plot.grids",
    "analysis.frozen": "analysis.curvature.held_steps",
    "analysis.hessian": "analysis.curvature.stage",
}
MOVED = _RENAMED | {
    f"{folder.rpartition('.')[0]}.{name}": f"{folder}.{name}"
    for folder, names in _ONE_FOLDER_DEEPER.items()
    for name in names.split()
}


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
