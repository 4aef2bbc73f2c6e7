"""The averaged weights against the recurrence written out."""

import pytest
import torch
from support.truths import normal

from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.training.averaging import WeightAverage


def small_flow(seed=0):
    flow = Flow(MLPField(2, [3], time="concat_squash"), train_end_time=True).double()
    seeded_initialise(flow, seed)
    return flow


def shake(flow, step):
    with torch.no_grad():
        for index, parameter in enumerate(flow.parameters()):
            parameter.add_(normal(*parameter.shape, seed=100 * step + index))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.99])
def test_the_recurrence(decay):
    flow = small_flow()
    average = WeightAverage(flow, decay)
    expected = {name: p.detach().clone() for name, p in flow.named_parameters()}
    for n in range(1, 30):
        shake(flow, n)
        average.update(flow)
        d = min(decay, (1 + n) / (10 + n))
        for name, parameter in flow.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * parameter.detach()
    assert average.updates == 29
    for name, value in expected.items():
        torch.testing.assert_close(average.weights[name], value, rtol=0, atol=1e-13)  # rounding


def test_the_start_is_forgotten_soon():
    # With a plain average of decay 0.999 the start would still weigh 0.97 after 30 steps; here it weighs the product
    # of the decays, (1/10·…)-like and below 1e-6.
    flow = small_flow()
    average = WeightAverage(flow, 0.999)
    target = small_flow(seed=1)
    for _ in range(30):
        average.update(target)
    for name, parameter in target.named_parameters():
        assert (average.weights[name] - parameter.detach()).abs().max() < 1e-6


def test_zeros_stay_zeros_to_the_bit():
    flow = small_flow()
    weight = next(flow.fields()).linear_layers()[0].weight
    with torch.no_grad():
        weight[1] = 0
    average = WeightAverage(flow, 0.9)
    for n in range(20):
        shake(flow, n)
        with torch.no_grad():
            weight[1] = 0
        average.update(flow)
    averaged = average.weights["blocks.0.field.layers.0.weight"]
    assert torch.equal(averaged[1], torch.zeros(2, dtype=torch.float64))
    assert averaged[0].abs().min() > 0


def test_copies_and_states_are_the_average_and_the_flow_is_left_alone():
    flow = small_flow()
    average = WeightAverage(flow, 0.9)
    shake(flow, 1)
    before = [p.detach().clone() for p in flow.parameters()]
    average.update(flow)
    assert all(torch.equal(a, b) for a, b in zip(before, flow.parameters(), strict=True))

    other = small_flow(seed=5)
    average.copy_to(other)
    assert all(torch.equal(average.weights[name], p) for name, p in other.named_parameters())

    again = WeightAverage(small_flow(seed=6), 0.9)
    again.load_state_dict({k: v if isinstance(v, int) else v.clone() for k, v in average.state_dict().items()})
    for n in (2, 3):
        shake(flow, n)
        average.update(flow)
        again.update(flow)
    assert again.updates == average.updates == 3
    assert all(torch.equal(again.weights[name], value) for name, value in average.weights.items())
    assert not any(value.requires_grad for value in average.weights.values())
