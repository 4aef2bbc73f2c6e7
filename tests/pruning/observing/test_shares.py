"""Largest shares against loops, and at the edges: zeros, one column, one sign, many blocks."""

import pytest
import torch
from support import naive_criteria as naive
from support.arrays import rotating

from sparseflows.errors import InputError
from sparseflows.pruning.observing import shares as module
from sparseflows.pruning.observing.shares import largest_shares

# Sums of at most 12 positive products, divided: a few roundings. The bound asked for is 1e-10.
TIGHT = {"rtol": 1e-13, "atol": 1e-15}


@pytest.mark.parametrize(("seed", "per_neuron"), rotating(range(6), [1, 2, 3]))
def test_against_loops(seed, per_neuron):
    weight, observed = naive.make_layer(seed, n_in=4, per_neuron=per_neuron)
    points = naive.points_of(observed)
    inputs = torch.tensor(points, dtype=torch.float64)
    for width in {1, per_neuron}:
        found = largest_shares(weight, inputs, width)
        expected = torch.tensor(naive.shares(weight, points, width), dtype=torch.float64)
        torch.testing.assert_close(found, expected, **TIGHT)


def test_by_hand():
    # Neuron 0 at x₀: positive weights 1, 3 on positive activations 2, 2 share 1/4, 3/4; −5 stands alone.
    # At x₁ the second activation is negative, so that every weight stands alone; a zero stays out.
    weight = torch.tensor([[1.0, 3.0, -5.0, 0.0]], dtype=torch.float64)
    inputs = torch.tensor([[2.0, 2.0, 1.0, 9.0], [0.0, -1.0, 0.0, 0.0]], dtype=torch.float64)
    assert largest_shares(weight, inputs[:1]).tolist() == [[0.25, 0.75, 1.0, 0.0]]
    assert largest_shares(weight, inputs).tolist() == [[0.25, 1.0, 1.0, 0.0]]
    # Neurons of two columns: (1, 3) is all of its group, (−5, 0) of another.
    assert largest_shares(weight, inputs[:1], 2).tolist() == [[1.0, 1.0]]


def test_shares_do_not_depend_on_scale_or_on_the_blocks(monkeypatch):
    weight, observed = naive.make_layer(3, n_in=6, examples=20)
    inputs = observed.inputs.flatten(0, 1)
    whole = largest_shares(weight, inputs)
    # Powers of two scale without rounding.
    scales = 2.0 ** torch.arange(len(inputs), dtype=torch.float64).remainder(50).unsqueeze(1)
    assert torch.equal(largest_shares(weight * 2.0**300, inputs * scales), whole)
    assert torch.equal(largest_shares(-weight, inputs), whole)
    monkeypatch.setattr(module, "ELEMENTS", 13)  # two inputs at a time
    torch.testing.assert_close(largest_shares(weight, inputs), whole, **TIGHT)


@pytest.mark.parametrize("scale", [1e-300, 1e-320, 1e300])
def test_extreme_numbers_give_shares_between_0_and_1(scale):
    weight, observed = naive.make_layer(1)
    found = largest_shares(weight * scale, observed.inputs.flatten(0, 1))
    assert ((found >= 0) & (found <= 1)).all()
    assert (found > 0).any()


def test_zero_rows_zero_inputs_and_one_column():
    one = torch.tensor([[2.0], [0.0], [-1.0]], dtype=torch.float64)
    assert largest_shares(one, torch.tensor([[3.0]], dtype=torch.float64)).tolist() == [[1.0], [0.0], [1.0]]
    assert largest_shares(one, torch.zeros(4, 1, dtype=torch.float64)).tolist() == [[0.0]] * 3


def test_a_weight_that_asks_for_gradients_and_its_inputs_are_left_alone():
    weight, observed = naive.make_layer(0)
    inputs = observed.inputs.flatten(0, 1)
    before = inputs.clone()
    found = largest_shares(weight.clone().requires_grad_(), inputs)
    assert not found.requires_grad
    assert torch.equal(inputs, before)


@pytest.mark.parametrize(
    ("columns", "points", "per_neuron", "message"),
    [
        (5, 7, 1, r"inputs of shape \(7, 5\) for a weight matrix of shape \(2, 6\)"),
        (6, 0, 1, r"X at least 1"),
        (6, 7, 4, "6 columns has no neurons of 4 columns"),
        (6, 7, 0, "no neurons of 0 columns"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(columns, points, per_neuron, message):
    with pytest.raises(InputError, match=message) as refusal:
        largest_shares(torch.ones(2, 6), torch.ones(points, columns), per_neuron)
    assert "\n" not in str(refusal.value)
