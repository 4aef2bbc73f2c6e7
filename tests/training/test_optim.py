"""Schedules at their ends, tops and joints; optimisers against a step written out."""

import math

import pytest
import torch
from torch import nn

from sparseflows.errors import InputError
from sparseflows.specs import TrainSpec
from sparseflows.training.optim import SCHEDULES, build_optimiser, learning_rate, moments


def settings(**changes):
    return TrainSpec.model_validate({"steps": 100, "lr": 0.02} | changes)


def rates(spec, total, per_epoch=10):
    return [learning_rate(spec, step, total, per_epoch) for step in range(total)]


def test_the_names_are_those_of_the_settings():
    for name in SCHEDULES:
        extra = {"milestones": [1]} if name == "multi_step" else {}
        assert settings(schedule=name, **extra).schedule == name


def test_constant():
    assert rates(settings(), 100) == [0.02] * 100


@pytest.mark.parametrize("total", [1, 2, 100, 1000])
def test_warm_cosine(total):
    found = rates(settings(schedule="warm_cosine"), total)
    top = max(1, round(0.05 * total))
    assert max(found) == pytest.approx(0.02, rel=1e-6)
    assert found[:top] == pytest.approx([0.02 * (step + 1) / top for step in range(top)])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert found[-1] <= 0.02 * (math.pi / (0.95 * total)) ** 2 / 4 + 1e-12 or total < 3


@pytest.mark.parametrize("total", [1, 2, 100, 1000])
def test_cosine(total):
    found = rates(settings(schedule="cosine"), total)
    assert found[0] == 0.02
    expected = [0.01 * (1 + math.cos(math.pi * step / total)) for step in range(total)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found == sorted(found, reverse=True)
    # One step before the end, which would be 0: 1 − cos is x²/2 for a small angle.
    assert found[-1] <= 0.02 * (math.pi / total) ** 2 / 4 + 1e-12 or total < 3


@pytest.mark.parametrize("total", [10, 100, 1000])
def test_one_cycle(total):
    found = rates(settings(schedule="one_cycle"), total)
    top = int(0.3 * total)
    assert found[0] == pytest.approx(0.02 / 25)
    assert found[top] == pytest.approx(0.02)
    assert max(found) == found[top]
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    at_the_end = learning_rate(settings(schedule="one_cycle"), total, total, 10)
    assert at_the_end == pytest.approx(0.02 * 1e-4)
    # Continuous: no step jumps by more than the steepest slope of half a cosine, π/2 over its length.
    steepest = 0.02 * math.pi / 2 / top
    assert max(abs(b - a) for a, b in zip(found, [*found[1:], at_the_end], strict=True)) < 1.01 * steepest
    # The middle of each half is half way.
    middle = learning_rate(settings(schedule="one_cycle"), top // 2, total, 10)
    assert middle == pytest.approx(0.02 * (1 + 1 / 25) / 2, rel=0.6 / top * 6)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_cycles_stay_within_bounds(total):
    assert all(0.02 * 1e-4 <= rate <= 0.02 for rate in rates(settings(schedule="one_cycle"), total))


def test_multi_step_counts_steps_where_the_length_does():
    found = rates(settings(schedule="multi_step", milestones=[3, 7], gamma=0.5), 10, per_epoch=2)
    assert found == pytest.approx([0.02] * 3 + [0.01] * 4 + [0.005] * 3)


def test_multi_step_counts_epochs_where_the_length_does():
    spec = TrainSpec(epochs=4, lr=0.02, schedule="multi_step", milestones=[1, 3])
    total, per_epoch = spec.steps_for(3 * spec.batch - 1)  # three batches an epoch, the last one short
    assert (total, per_epoch) == (12, 3)
    assert rates(spec, total, per_epoch) == pytest.approx([0.02] * 3 + [0.002] * 6 + [0.0002] * 3)


def test_an_unknown_schedule_is_refused():
    spec = settings().model_copy(update={"schedule": "one_cycl"})
    with pytest.raises(InputError, match="unknown schedule 'one_cycl'; did you mean 'one_cycle'"):
        learning_rate(spec, 0, 10, 1)


def one_step(kind, decay, gradients=(0.4, -2.0, 0.0)):
    """A weight of (1, −3, 2) after two steps at rate 0.1 with the same gradient."""
    weight = nn.Parameter(torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64))
    optimiser = build_optimiser(settings(optimiser=kind, lr=0.1, weight_decay=decay), [weight])
    for _ in range(2):
        weight.grad = torch.tensor(gradients, dtype=torch.float64)
        optimiser.step()
    return weight.tolist()


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_optimisers_against_their_formulas(kind, decay):
    expected = []
    for w, g in zip((1.0, -3.0, 2.0), (0.4, -2.0, 0.0), strict=True):
        m = v = 0.0
        for n in (1, 2):
            total = g + (0 if kind == "adamw" else decay * w)
            if kind == "sgd":
                m = 0.9 * m + total  # momentum
                w = w - 0.1 * m
                continue
            if kind == "adamw":
                w = w - 0.1 * decay * w  # decoupled
            m, v = 0.9 * m + 0.1 * total, 0.999 * v + 0.001 * total**2
            w = w - 0.1 * (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.999**n)) + 1e-8)
        expected.append(w)
    assert one_step(kind, decay) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "cls"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_kinds(kind, cls):
    weight = nn.Parameter(torch.zeros(2))
    optimiser = build_optimiser(settings(optimiser=kind, lr=0.3, weight_decay=0.1), iter([weight]))
    assert isinstance(optimiser, cls)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.1)
    assert group["params"] == [weight]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_moments_that_are_made_beforehand_are_those_that_pytorch_begins_with(kind):
    spec, ends = settings(optimiser=kind, lr=0.3, weight_decay=0.1), []
    for beforehand in (False, True):
        weights = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
        optimiser = build_optimiser(spec, [weights])
        if beforehand:
            made = moments(optimiser, weights)
            assert all(not value.any() for value in made.values())
        for gradient in ((0.4, -2.0, 0.0), (1.0, 0.3, 0.2)):
            weights.grad = torch.tensor(gradient)
            optimiser.step()
        carried = moments(optimiser, weights)
        assert carried is optimiser.state[weights]
        ends.append({"weights": weights.detach(), **carried})
    assert ends[0].keys() == ends[1].keys()
    for name, value in ends[0].items():
        assert value.dtype is ends[1][name].dtype
        torch.testing.assert_close(value, ends[1][name], rtol=0, atol=0)
