"""Parameters as one vector: the same steps as one by one, and nothing shared afterwards."""

import torch
from torch import nn

from sparseflows.training.flat import FlatParameters


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss(module: nn.Module) -> torch.Tensor:
    points = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    return module(points).square().mean()


def test_a_step_on_the_vector_is_a_step_on_each() -> None:
    one, other = network(), network()
    by_each = torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.1)
    flat = FlatParameters(other)
    by_vector = torch.optim.AdamW([flat.vector], lr=0.1, weight_decay=0.1)
    for _ in range(5):
        by_each.zero_grad()
        loss(one).backward()
        nn.utils.clip_grad_norm_(one.parameters(), 0.05)
        by_each.step()
        flat.zero_gradients()
        loss(other).backward()
        flat.clip(0.05)
        by_vector.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_short_gradient_is_left_alone() -> None:
    flat = FlatParameters(network())
    flat.vector.grad.fill_(0.01)
    flat.clip(100.0)
    assert torch.equal(flat.vector.grad, torch.full_like(flat.vector, 0.01))


def test_released_parameters_share_nothing() -> None:
    module = network()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    flat = FlatParameters(module)
    assert len({p.untyped_storage().data_ptr() for p in module.parameters()}) == 1
    flat.release()
    assert len({p.untyped_storage().data_ptr() for p in module.parameters()}) == len(before)
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())


def test_frozen_parameters_stay_out() -> None:
    module = network()
    module[0].weight.requires_grad_(False)
    assert FlatParameters(module).vector.numel() == sum(p.numel() for p in module.parameters()) - 12


def test_gradients_and_entries_of_single_parameters() -> None:
    module = network()
    module[2].weight.requires_grad_(False)
    flat = FlatParameters(module)
    first, frozen = flat.gradients_of([module[0].weight, module[2].weight])
    assert frozen is None
    first.fill_(3.0)
    assert torch.equal(module[0].weight.grad, torch.full((4, 3), 3.0, dtype=torch.float64))
    assert float(flat.vector.grad.sum()) == 36
    assert flat.holds(module[0].bias)
    assert not flat.holds(module[2].weight)
    chosen = torch.tensor([True, False, False, True])
    found = flat.spread([(module[0].bias, chosen), (module[0].bias, ~chosen), (module[2].bias, torch.tensor([0, 1]))])
    assert found.tolist() == [0] * 12 + [1] * 4 + [0, 1]
    assert flat.spread([]) is None
