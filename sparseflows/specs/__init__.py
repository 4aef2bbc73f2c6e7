"""Every setting of a param file: typed, bounded, with its default."""

from sparseflows.specs.choices import (
    ADAPTIVE,
    CASCADE,
    CONTROL,
    FIXED,
    GRADUAL,
    HELD,
    OF_DENSE,
    ONE_SHOT,
    REDUCED,
    REWIND,
    SCRATCH,
)
from sparseflows.specs.data import DataSpec
from sparseflows.specs.evaluate import EvaluateSpec
from sparseflows.specs.flow import FlowSpec
from sparseflows.specs.methods import DRAWN
from sparseflows.specs.network import NetworkSpec
from sparseflows.specs.prune import MethodName, ProtocolName, PruneSpec
from sparseflows.specs.section import Fraction, Positive, Section, Seed, Steps, Tolerance, Width
from sparseflows.specs.solve import SolveSpec
from sparseflows.specs.spec import FORMAT, Spec
from sparseflows.specs.train import TrainSpec

__all__ = [
    "ADAPTIVE",
    "CASCADE",
    "CONTROL",
    "DRAWN",
    "FIXED",
    "FORMAT",
    "GRADUAL",
    "HELD",
    "OF_DENSE",
    "ONE_SHOT",
    "REDUCED",
    "REWIND",
    "SCRATCH",
    "DataSpec",
    "EvaluateSpec",
    "FlowSpec",
    "Fraction",
    "MethodName",
    "NetworkSpec",
    "Positive",
    "ProtocolName",
    "PruneSpec",
    "Section",
    "Seed",
    "SolveSpec",
    "Spec",
    "Steps",
    "Tolerance",
    "TrainSpec",
    "Width",
]
