"""The stages of an experiment, in the order of results.csv: the one place that works them out."""

from collections.abc import Iterator
from dataclasses import dataclass

from sparseflows.experiment.folder.records import CASCADE, DENSE, cascade_name
from sparseflows.specs import Spec


@dataclass(frozen=True)
class StageName:
    """A place in a cascade, or in the sequence of another protocol."""

    method: str
    seed: int
    stage: int
    keep_ratio: float | None = None
    protocol: str = CASCADE

    @property
    def cascade(self) -> str:
        """Folder name of its sequence."""
        return cascade_name(self.method, self.seed, self.protocol)

    @property
    def purpose(self) -> str:
        """What the draws of its training are for."""
        own = f"{self.method}/{self.stage}"
        return own if self.protocol == CASCADE else f"{self.protocol}/{own}"

    @property
    def label(self) -> str:
        """The stage as `--stage` takes it."""
        return f"{self.cascade}/{self.stage}"


def dense_stage(seed: int) -> StageName:
    """The stage that trains a seed's dense network, which all its sequences begin with."""
    return StageName(DENSE, seed, 0)


def stages_of(spec: Spec, seed: int, protocol: str, method: str) -> list[StageName]:
    """The stages of one sequence, the dense network not included: the k-th belongs to the k-th keep ratio."""
    ratios = enumerate(spec.prune.keep_ratios, 1)
    return [StageName(method, seed, stage, ratio, protocol) for stage, ratio in ratios]


def sequences(spec: Spec) -> Iterator[list[StageName]]:
    """The sequences of the whole experiment, seed by seed: the dense network alone, then each protocol and method."""
    for seed in spec.seeds:
        yield [dense_stage(seed)]
        for protocol, method in spec.prune.sequences():
            yield stages_of(spec, seed, protocol, method)


def stages(spec: Spec) -> list[StageName]:
    """All stages of the experiment."""
    return [name for sequence in sequences(spec) for name in sequence]
