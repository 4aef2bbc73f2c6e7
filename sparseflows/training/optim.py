"""Settings → optimiser and learning rate. A rate is a function of the step alone: resuming needs no state."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from sparseflows.errors import lookup
from sparseflows.specs import TrainSpec
from sparseflows.training.untraced import SGD, Adam, AdamW

Schedule = Callable[[TrainSpec, int, int, int], float]

WARM_UP = 0.3  # of a one-cycle training, as in Smith and Topin 2018
SHORT_WARM_UP = 0.05  # of warm_cosine
START, END = 1 / 25, 1e-4  # rates at its two ends, relative to the top


def constant(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """1 throughout."""
    return 1.0


def cosine(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / total))


def warm_cosine(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """Up in a straight line over the first 5 % of the steps, then from 1 to 0 along half a cosine."""
    top = max(1.0, SHORT_WARM_UP * total)
    return min((step + 1) / top, 0.5 * (1 + math.cos(math.pi * max(0.0, step - top) / max(1.0, total - top))))


def one_cycle(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """Up from 1/25 over the first 30 % of the steps, down to 1e-4 over the rest, both along half a cosine."""
    top = max(1.0, WARM_UP * total)
    if step < top:
        return START + (1 - START) * 0.5 * (1 - math.cos(math.pi * step / top))
    down = min(1.0, (step - top) / max(1.0, total - top))
    return END + (1 - END) * 0.5 * (1 + math.cos(math.pi * down))


def multi_step(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """gamma^(milestones passed); milestones count epochs where the training's length does, else steps."""
    position = step // per_epoch if settings.epochs is not None else step
    return settings.gamma ** sum(position >= milestone for milestone in settings.milestones)


SCHEDULES: dict[str, Schedule] = {f.__name__: f for f in (constant, cosine, one_cycle, warm_cosine, multi_step)}


def learning_rate(settings: TrainSpec, step: int, total: int, per_epoch: int) -> float:
    """The rate of step `step` (from 0) of `total`."""
    return settings.lr * lookup("schedule", settings.schedule, SCHEDULES)(settings, step, total, per_epoch)


def build_optimiser(settings: TrainSpec, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """adamw, adam or sgd (momentum 0.9). Adam's weight decay is added to the gradient, AdamW's is decoupled."""
    chosen, rate, decay = list(parameters), settings.lr, settings.weight_decay
    if settings.optimiser == "sgd":
        return SGD(chosen, lr=rate, weight_decay=decay, momentum=0.9)
    kind = Adam if settings.optimiser == "adam" else AdamW
    return kind(chosen, lr=rate, betas=(0.9, settings.beta2), weight_decay=decay, fused=True)


def moments(optimiser: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What an optimiser of `build_optimiser` carries from step to step for `parameter`; the tensors are the live ones.

    Before its first step, PyTorch has none yet: then they are made, with the zeros that it begins with.
    """
    state: dict[str, Tensor] = optimiser.state[parameter]
    names = ("momentum_buffer",) if isinstance(optimiser, torch.optim.SGD) else ("exp_avg", "exp_avg_sq")
    for name in names:
        if state.get(name) is None:
            state[name] = torch.zeros_like(parameter.detach())
    if "exp_avg" in names:
        state.setdefault("step", torch.zeros((), dtype=torch.float32, device=parameter.device))
    return state
