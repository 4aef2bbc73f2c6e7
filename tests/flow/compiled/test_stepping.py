"""Steps in the engine against the formulas of Adam, SGD and the averaged weights, written out; float64."""

from __future__ import annotations

import math

import pytest
import torch
from support.plain_solve import drawn, drawn_field

from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.stepping import take_steps
from sparseflows.flow.compiled.structures import Update, UpdateStructure

pytestmark = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")

SIZES, RATES = (37, 5, 1, 37, 16, 17), (0.03, 0.02, 0.05, 0.01, 0.04, 0.02)
DECAY, BETA1, BETA2, EPS, CLIP, AVERAGE = 0.1, 0.9, 0.99, 1e-8, 0.8, 0.7


def draws(sizes=SIZES):
    """Data, noise and times of steps with so many rows."""
    return [
        (drawn(n, 3, seed=n + k), drawn(n, 3, seed=50 + k), drawn(n, 1, seed=90 + k).sigmoid())
        for k, n in enumerate(sizes)
    ]


class Bench:
    """A field whose parameters are views of one vector, and an optimiser in the middle of a training."""

    def __init__(self, optimiser: str) -> None:
        self.field = drawn_field(3, [18, 7], "silu", "concat_squash")
        tensors = self.field.tensors()
        vector, gradient = (
            torch.cat([p.detach().flatten() for p in tensors]),
            torch.zeros(sum(map(torch.numel, tensors))),
        )
        gradient, sizes = gradient.double(), [p.numel() for p in tensors]
        for p, view in zip(tensors, vector.split(sizes), strict=True):
            p.data = view.view(p.shape)
        self.gradients = [g.view(p.shape) for p, g in zip(tensors, gradient.split(sizes), strict=True)]
        size = len(vector)
        self.update = Update(
            optimiser, DECAY, BETA1, BETA2, EPS, CLIP, AVERAGE, vector, gradient, 0.1 * drawn(size, seed=4),
            None if optimiser == "sgd" else 0.1 * drawn(size, seed=5).square(), drawn(size, seed=6),
            (torch.arange(size) % 5 == 0).byte(), (torch.arange(size) % 7 == 0).byte(), steps=11, averaged=2,
        )  # fmt: skip

    def take(self, given):
        return take_steps(self.field, self.gradients, given, RATES[: len(given)], self.update)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_the_formulas(optimiser: str) -> None:
    bench = Bench(optimiser)
    update, field = bench.update, drawn_field(3, [18, 7], "silu", "concat_squash")
    mean, square, average = update.mean.clone(), update.square, update.average.clone()
    square = None if square is None else square.clone()
    w, losses = update.weights.clone(), []
    for n, ((data, noise, t), rate) in enumerate(zip(draws(), RATES, strict=True)):
        with torch.no_grad():
            for p, view in zip(field.tensors(), w.split([p.numel() for p in field.tensors()]), strict=True):
                p.copy_(view.view(p.shape))
        loss = (field(t, (1 - t) * data + t * noise) - (noise - data)).square().sum(1).mean()
        g = torch.cat([part.flatten() for part in torch.autograd.grad(loss, field.tensors())])
        losses.append(loss.item())
        g[::5] = 0
        g *= min(1.0, CLIP / (g.norm().item() + 1e-6))
        if optimiser != "adamw":
            g += DECAY * w
        if optimiser == "sgd":
            mean = BETA1 * mean + g
            w = w - rate * mean
        else:
            mean, square = BETA1 * mean + (1 - BETA1) * g, BETA2 * square + (1 - BETA2) * g**2
            if optimiser == "adamw":
                w = w * (1 - rate * DECAY)
            unbiased = mean / (1 - BETA1 ** (12 + n)), square / (1 - BETA2 ** (12 + n))
            w = w - rate * unbiased[0] / (unbiased[1].sqrt() + EPS)
        w[::7] = 0
        decay = min(AVERAGE, (1 + 3 + n) / (10 + 3 + n))
        average = decay * average + (1 - decay) * w
    assert bench.take(draws()) == pytest.approx(losses, rel=1e-12)
    for found, wanted in ((update.weights, w), (update.mean, mean), (update.average, average)):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    if square is not None:
        torch.testing.assert_close(update.square, square, rtol=1e-12, atol=1e-12)
    assert (update.steps, update.averaged) == (11 + len(SIZES), 2 + len(SIZES))
    assert float(update.weights[::7].abs().max()) == 0
    live = torch.cat([p.detach().flatten() for p in bench.field.tensors()])
    assert torch.equal(live, update.weights)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_a_loss_that_is_not_finite_is_the_last_one(bad: float) -> None:
    bench, wanted = Bench("adamw"), Bench("adamw")
    given = draws()
    given[3][0][36, 1] = bad
    before = wanted.take(given[:3])
    losses = bench.take(given)
    assert losses[:3] == before
    assert len(losses) == 4
    assert not math.isfinite(losses[3])
    for name in ("weights", "mean", "square", "average"):
        assert torch.equal(getattr(bench.update, name), getattr(wanted.update, name))
    assert (bench.update.steps, bench.update.averaged) == (14, 5)


@pytest.mark.parametrize("spoil", [lambda v: v[:-1], lambda v: v.repeat(2)[::2], lambda v: v.float()])
def test_vectors_that_do_not_fit_are_not_handed_over(spoil) -> None:
    update = Bench("adamw").update
    UpdateStructure.of(update)
    update.mean = spoil(update.mean)
    with pytest.raises(AssertionError):
        UpdateStructure.of(update)
