"""Every setting of a param file: typed, bounded, with its default."""

from sparseflows.specs.data import DataSpec
from sparseflows.specs.flow import FlowSpec, NetworkSpec
from sparseflows.specs.prune import PruneSpec
from sparseflows.specs.section import Section
from sparseflows.specs.solve import EvaluateSpec, SolveSpec
from sparseflows.specs.spec import FORMAT, Spec
from sparseflows.specs.train import TrainSpec

__all__ = [
    "FORMAT",
    "DataSpec",
    "EvaluateSpec",
    "FlowSpec",
    "NetworkSpec",
    "PruneSpec",
    "Section",
    "SolveSpec",
    "Spec",
    "TrainSpec",
]
