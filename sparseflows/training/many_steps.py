"""Steps of flow matching that the C engine takes, many in one call: by the loop each costs more than its arithmetic.

What a step is stands in `loop`. Here it is the same to rounding, on draws that are the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sparseflows.flow.compiled import engine
from sparseflows.flow.compiled.stepping import take_steps
from sparseflows.flow.compiled.structures import Update
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.masks import Withhold
from sparseflows.specs import TrainSpec
from sparseflows.training.averaging import WeightAverage
from sparseflows.training.batches import Batches
from sparseflows.training.flat import FlatParameters
from sparseflows.training.objectives import FlowMatching, Objective
from sparseflows.training.optim import moments

Drawn = tuple[Tensor, float, torch.Generator]  # a step's batch (B, D), its learning rate, and what it draws from


@runtime_checkable
class Holds(Protocol):
    """An `after_step` that, for some steps to come, does nothing but set the same entries of parameters to 0."""

    def __call__(self, network: nn.Module) -> None:
        """A step of the network is done."""
        ...

    def held(self, network: nn.Module) -> tuple[Sequence[tuple[nn.Parameter, Tensor]], float]:
        """Parameters (…), each with a bool tensor (…), True at the entries, and for how many steps it is these."""
        ...

    def skip(self, steps: int) -> None:
        """So many of these steps have been taken without a call, those entries set to 0 after each."""
        ...


SECONDS_A_CALL = 0.1  # about, at most: Ctrl-C waits for its end, and so does the progress bar


@dataclass
class ManySteps:
    """Training steps in the engine. Which of them are taken in one call moves none of their bits.

    Attributes:
        flow, flat, objective, batches, settings, optimiser, average, after_step: the training's.
        pace: seconds that a step took in the last call.
    """

    flow: nn.Module
    flat: FlatParameters
    objective: Objective
    batches: Batches
    settings: TrainSpec
    optimiser: torch.optim.Optimizer
    average: WeightAverage | None
    after_step: Callable[[nn.Module], None] | None
    pace: float = SECONDS_A_CALL

    def may_take(self, most: int) -> int:
        """How many of the next `most` steps should go in one call; 0 where they are not the engine's."""
        steady = self._held()[1]
        return int(min(most, steady, max(1, SECONDS_A_CALL // self.pace))) if steady and self._takes() else 0

    def take(self, steps: Iterable[Drawn]) -> list[tuple[float, float]]:
        """Take the steps, and give their losses and rates; a loss that is not finite is the last, without its step."""
        assert isinstance(self.flow, Flow)
        assert isinstance(self.objective, FlowMatching)
        started = time.perf_counter()
        field, update = next(self.flow.fields()), self._update()
        points, draws, rates = self._points(), [], []
        for batch, rate, generator in steps:
            noise, times = self.objective.draw(batch, generator)
            draws.append((points(batch), noise, times))
            rates.append(rate)
        assert isinstance(field, MLPField)
        assert all(data.shape == noise.shape and data.dtype is update.weights.dtype for data, noise, _ in draws)
        losses = take_steps(field, self.flat.gradients_of(field.tensors()), draws, rates, update)
        self.pace = max(time.perf_counter() - started, 1e-6) / len(draws)  # coarse clocks give 0
        self._write_back(update)
        if isinstance(self.after_step, Holds):
            self.after_step.skip(sum(map(math.isfinite, losses)))
        return list(zip(losses, rates, strict=False))

    def _points(self) -> Callable[[Tensor], Tensor]:
        """From a batch (B, D) to what the field sees of it, contiguous."""
        flow = self.flow
        assert isinstance(flow, Flow)
        if flow.whitening is None and type(flow).whiten is Flow.whiten:
            return Tensor.contiguous
        return lambda batch: flow.whiten(batch)[0].contiguous()

    def _takes(self) -> bool:
        """Is what the loop would do now the engine's work, all of it?"""
        given = self.objective
        if type(given) is not FlowMatching or not given.compiled or given.processes.several:
            return False
        if not isinstance(self.flow, Flow) or not torch.is_grad_enabled():
            return False
        blocks, rows = self.flow.chain(), self.batches
        if len(blocks) != 1 or blocks[0].sqrt_end_time is not None or self.flat.vector.dtype is not rows.dtype:
            return False
        field, few = blocks[0].field, torch.empty(0, rows.dim, dtype=rows.dtype, device=rows.device)
        return (
            isinstance(field, MLPField)
            and field.dim == rows.dim
            and engine.takes(field, few, exact=False)
            and all(self.flat.holds(tensor) for tensor in field.tensors() if tensor.requires_grad)
            and all(isinstance(hook, Withhold) for _, hook in self._hooks())
            and all(self.flat.holds(parameter) for parameter, _ in self._held()[0])
        )

    def _hooks(self) -> list[tuple[Tensor, Any]]:
        """What PyTorch would call with the gradients of parameters."""
        return [
            (parameter, hook)
            for parameter in self.flat.parameters
            for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
            for hook in (hooks or {}).values()
        ]

    def _held(self) -> tuple[Sequence[tuple[nn.Parameter, Tensor]], float]:
        """The entries that are set to 0 after every step, and for how many steps that is all that `after_step` does."""
        if self.after_step is None:
            return (), math.inf
        return self.after_step.held(self.flow) if isinstance(self.after_step, Holds) else ((), 0)

    def _update(self) -> Update:
        carried, group = moments(self.optimiser, self.flat.vector), self.optimiser.param_groups[0]
        adaptive = "exp_avg" in carried
        beta1, beta2 = group["betas"] if adaptive else (group["momentum"], 0.0)
        return Update(
            optimiser=self.settings.optimiser,
            weight_decay=group["weight_decay"],
            momentum=beta1,
            beta2=beta2,
            eps=group.get("eps", 0.0),
            clip=self.settings.clip or 0.0,
            average_decay=self.average.decay if self.average else 0.0,
            weights=self.flat.vector.data,
            gradient=self.flat.gradient,
            mean=carried["exp_avg" if adaptive else "momentum_buffer"],
            square=carried.get("exp_avg_sq"),
            average=self.average.vector if self.average else None,
            withheld=self.flat.spread([(parameter, hook.gone) for parameter, hook in self._hooks()]),
            gone=self.flat.spread(self._held()[0]),
            steps=int(carried["step"]) if adaptive else 0,
            averaged=self.average.updates if self.average else 0,
        )

    def _write_back(self, update: Update) -> None:
        """The counters of what has the live tensors."""
        carried = moments(self.optimiser, self.flat.vector)
        if "step" in carried:
            carried["step"].fill_(update.steps)
        if self.average:
            self.average.updates = update.averaged
