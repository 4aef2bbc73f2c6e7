"""The section `prune`: what goes, how far, and how the flow is retrained."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from sparseflows.specs.choices import (
    ALLOCATIONS,
    CASCADE,
    GRADUAL,
    OF_DENSE,
    ONE_SHOT,
    PROTOCOLS,
    REWIND,
    SCRATCH,
    OneOf,
    meanings,
)
from sparseflows.specs.keep_ratios import expand_keep_ratios
from sparseflows.specs.methods import DRAWN, METHODS, SYNONYMS, methods_in_words
from sparseflows.specs.section import Section


class PruneSpec(Section):
    """What is pruned, how far, by which protocols, and how the flow is retrained."""

    methods: list[Annotated[str, OneOf(METHODS)]] = Field([], description=methods_in_words())
    keep_ratios: Annotated[list[float], BeforeValidator(expand_keep_ratios)] = Field(
        [], description="falling, in (0, 1): the share of the dense flow's params that each stage keeps"
    )
    protocols: Annotated[list[Annotated[str, OneOf(PROTOCOLS)]], Field(min_length=1)] = Field(
        ["cascade"], description=meanings(PROTOCOLS)
    )
    allocation: Annotated[str, OneOf(ALLOCATIONS)] = Field(
        "uniform", description=f"of neurons: {', or '.join(ALLOCATIONS.values())} (pfp has its own)"
    )
    weight_allocation: Annotated[str, OneOf(ALLOCATIONS)] = Field(
        "global", description="of weights, likewise (sipp: global)"
    )
    floor: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="share of each layer's weights or neurons that stays whatever their score"
    )
    compensate: bool = Field(
        False, description="give the biases that read removed neurons those neurons' mean activation on the sample"
    )
    sample: Annotated[int, Field(ge=1, le=100_000)] = Field(
        64, description="(seeded) training rows that the criteria which look at data are given"
    )
    gradual_every: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="gradual: retraining steps from one neuron's going to the next (weights: an equal share)"
    )
    retrain: dict[str, Any] = Field({}, description="keys of `train` that differ when a pruned flow is retrained")

    @model_validator(mode="after")
    def _is_consistent(self) -> PruneSpec:
        if bool(self.methods) != bool(self.keep_ratios):
            raise ValueError("methods and keep_ratios go together: give both, or neither for a dense flow only")
        for key, names in (("methods", self.methods), ("protocols", self.protocols)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: each one once")
        for name, other in SYNONYMS.items():
            if {name, other} <= set(self.methods):
                raise ValueError(f"methods: {name} and {other} are two names of one method; give one of them")
        if {SCRATCH, REWIND} & set(self.protocols) and not {CASCADE, ONE_SHOT} & set(self.protocols):
            raise ValueError(
                "protocols: scratch and rewind train what another one has pruned; add cascade (or one_shot)"
            )
        drawn = next((method for method in self.methods if method in DRAWN), None)
        if GRADUAL in self.protocols and drawn is not None:
            raise ValueError(f"protocols: gradual takes weights out bit by bit; {drawn} draws them all at once")
        return self

    def sequences(self) -> list[tuple[str, str]]:
        """(protocol, method) of all that is pruned or stands beside it, in the order of results.csv."""
        if not self.methods:
            return []
        return [
            (protocol, method)
            for protocol in self.protocols
            for method in (["dense"] if protocol in OF_DENSE else self.methods)
        ]
