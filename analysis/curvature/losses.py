"""The losses whose Hessian is taken: deterministic means over rows, that add up over chunks of the rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.curvature.held_steps import HeldSteps, choose_steps, log_prob_on_steps
from sparseflows.flow.model import Flow
from sparseflows.training.objectives import FlowMatching


@dataclass(frozen=True)
class MeanLoss(ABC):
    """A mean over the N terms of `rows` (N, D), standardised, computed a chunk of terms at a time."""

    rows: Tensor

    @property
    def terms(self) -> int:
        """N."""
        return len(self.rows)

    @abstractmethod
    def total(self, flow: Flow, chosen: slice) -> Tensor:
        """The sum (not the mean) of the chosen terms, a scalar."""


@dataclass(frozen=True)
class NLL(MeanLoss):
    """−log p of `rows` (N, D) in nats, with the exact divergence, on steps that are held."""

    steps: HeldSteps

    @classmethod
    def of(cls, flow: Flow, rows: Tensor, tol: float) -> NLL:
        """On the steps that an adaptive solver takes for all `rows` at `tol`; raises as `choose_steps`."""
        return cls(rows, choose_steps(flow, rows, tol))

    def total(self, flow: Flow, chosen: slice) -> Tensor:
        """−Σ log p, nats."""
        return -log_prob_on_steps(flow, self.rows[chosen], self.steps).sum()


@dataclass(frozen=True)
class FlowMatchingLoss(MeanLoss):
    """The squared error of the velocity (`training.objectives.FlowMatching`), at draws that are held.

    `rows` (N, D) has each row as often as it has draws of `noise` (N, D) and `times` (N, 1).
    """

    noise: Tensor
    times: Tensor

    @classmethod
    def of(cls, rows: Tensor, time_power: float, generator: torch.Generator, draws: int) -> FlowMatchingLoss:
        """With `draws` of noise and time for every row."""
        repeated = rows.repeat(draws, 1)
        noise, times = FlowMatching(time_power).draw(repeated, generator)
        return cls(repeated, noise, times)

    def total(self, flow: Flow, chosen: slice) -> Tensor:
        """The summed squared errors."""
        return FlowMatching.errors(flow, self.rows[chosen], self.noise[chosen], self.times[chosen]).sum()
