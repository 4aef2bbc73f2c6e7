"""What all works share: settings, the data, param files, a trained flow, and whom to tell how far they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.reaching import GapCheck, float32, trained
from sparseflows.data.splits import Splits
from sparseflows.experiment.rows import prepare
from sparseflows.flow.model import Flow
from sparseflows.specs import Spec
from sparseflows.specs.yaml import load_spec

PARAM = Path(__file__).parents[1] / "param"
SPIRAL = PARAM / "toy" / "gaussian_spiral"


class Skipped(Exception):
    """A work that cannot be measured here, and why; the others go on."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        quick: under ten minutes on one core; what takes longer is extrapolated, and said to be.
        seeds: of every training that is repeated.
        repeats: of everything else.
        threads: of PyTorch, for ours and peers.
    """

    quick: bool = False
    seeds: int = 5
    repeats: int = 5
    threads: int = 1


@dataclass
class Context:
    """See the module.

    Attributes:
        settings: of this run.
        tell: is given the share of the current work that is done, 0 to 1.
        notes: what held for the whole run, one line each.
    """

    settings: Settings
    tell: Callable[[float], None] = lambda share: None
    notes: list[str] = field(default_factory=list)

    def part(self, first: float, last: float) -> Callable[[float], None]:
        """`tell` for a part of a work, from share `first` to `last`."""
        return lambda share: self.tell(first + (last - first) * share)

    def remark(self, note: str) -> None:
        """Add to `notes` what is not there yet."""
        if note not in self.notes:
            self.notes.append(note)

    def nll_spec(self, *changes: str) -> Spec:
        """Our likelihood training of the gaussian spiral, with `changes` (KEY=VALUE)."""
        return self.spec("toy/gaussian_spiral/nll.yaml", *changes)

    def spec(self, name: str, *changes: str) -> Spec:
        """A param file, by its path below param/, with `changes`.

        Raises:
            Skipped: it is missing.
        """
        path = PARAM / name
        if not path.exists():
            raise Skipped(f"param/{name} is missing")
        return load_spec(path, (f"threads={self.settings.threads}", *changes))

    @cached_property
    def splits(self) -> Splits:
        """The gaussian spiral, as published: 16,380 training rows."""
        spec = load_spec(SPIRAL / "ffjord.yaml")
        return prepare(spec)[0][spec.seeds[0]]

    @cached_property
    def rows(self) -> Tensor:
        """Its training rows, standardised, float32."""
        return float32(self.splits.train)

    @cached_property
    def gap(self) -> GapCheck:
        """The KL gap on all its test rows."""
        return GapCheck.of(self.splits)

    @cached_property
    def trained_flow(self) -> Flow:
        """A flow trained once a run by `nll_spec`, seed 0 (4×64, sigmoid): fresh fields are too smooth."""
        with torch.enable_grad():  # whoever asks for it first
            flow, _ = trained(self.nll_spec(), self.rows, seed=0)
        return flow.eval()
