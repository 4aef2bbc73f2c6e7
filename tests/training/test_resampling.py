"""Rows drawn by their weights: the right number of times on average, and never far from it."""

import pytest
import torch

from sparseflows.rng import torch_generator
from sparseflows.training.batches import InMemory
from sparseflows.training.resampling import draw_copies

DRAWS = 4000


def counts(weights, draw, seed=0):
    return torch.bincount(draw_copies(weights, torch_generator(seed, f"draw/{draw}")), minlength=len(weights))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_every_count_is_the_share_rounded_down_or_up_and_right_on_average(scale):
    weights = torch.tensor([0.1, 3.0, 0.0, 0.45, 1.0, 2.7, 0.75], dtype=torch.float64)
    wanted = weights * len(weights) / weights.sum()
    found = torch.stack([counts(weights * scale, draw) for draw in range(DRAWS)]).double()
    assert (found.sum(1) == len(weights)).all()
    slack = 1e-9  # shares that are whole but for rounding
    assert (found >= (wanted - slack).floor()).all()
    assert (found <= (wanted + slack).ceil()).all()
    # A count has two values, so a mean of DRAWS has a deviation of at most 1/(2 √DRAWS); 5 of them.
    assert (found.mean(0) - wanted).abs().max() < 2.5 / DRAWS**0.5


def test_rows_come_together_whatever_their_order():
    # Laid out as they come, rows 0 and 1 would never be drawn together: of the points, one falls on the two of them.
    weights = torch.tensor([0.5, 0.5, 1.5, 1.5])
    found = torch.stack([counts(weights, draw) for draw in range(500)])
    assert ((found[:, 0] > 0) & (found[:, 1] > 0)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_weight_0_is_never_drawn_not_even_at_the_end(dtype, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, dtype, **__: torch.tensor(1 - 2.0**-53, dtype=dtype))
    for draw in range(20):
        weights = torch.rand_like(torch.empty(999), dtype=dtype)
        weights[::2] = 0
        found = counts(weights, draw)
        assert found[::2].sum() == 0
        assert found.sum() == 999


def test_equal_weights_draw_every_row_once():
    assert (counts(torch.full((1000,), 0.1), 0) == 1).all()


def test_batches_draw_anew_each_epoch_and_resume():
    weights = torch.linspace(0.0, 2.0, 101)
    rows = torch.arange(101.0)[:, None]

    def epoch(number, source):
        return torch.cat([source.batch(3, "p", number, first, 32) for first in range(0, 101, 32)])[:, 0].long()

    source = InMemory(rows, weights)
    epochs = [epoch(number, source) for number in range(400)]
    assert {len(one) for one in epochs} == {len(source)} == {101}
    assert not torch.equal(epochs[0].sort().values, epochs[1].sort().values)
    mean = torch.stack([torch.bincount(one, minlength=101) for one in epochs]).double().mean(0)
    assert (mean - weights).abs().max() < 2.5 / 400**0.5
    again = InMemory(rows, weights)
    assert torch.equal(again.batch(3, "p", 7, 64, 32)[:, 0].long(), epochs[7][64:96])
    # Copies of a row are shuffled apart: unshuffled, a neighbour would be equal in more than a tenth of the places.
    same = torch.stack([(one[1:] == one[:-1]).double().mean() for one in epochs]).mean()
    assert same < 0.02
