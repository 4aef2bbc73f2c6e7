"""Hooks, masks and parametrizations of PyTorch have their say on every path, or the path steps aside.

The truth is a twin: a field of one's own that calls the field as PyTorch does, its divergence by autograd.
"""

import copy

import pytest
import torch
from support.plain_solve import CalledTwin
from support.truths import generator, normal
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.export import export_program, load_program
from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.graph.groups import chains
from sparseflows.training.held_steps import HeldStepsLikelihood
from sparseflows.training.objectives import FlowMatching

# Twins take the same steps, so they differ by rounding alone, a thousandfold below what a forgotten hook makes.
ADAPTIVE, FIXED = Solver("dopri5", 1e-4, 1e-4), Solver("rk4", steps=5)
AGREE = {"rtol": 0, "atol": 1e-9}


def made_flow(time="concat"):
    flow = Flow(MLPField(2, [12, 10], "tanh", time), solver=FIXED).double()
    seeded_initialise(flow, 0, gain=2.0)
    return flow.eval()


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class OwnLayer(Layer):
    def forward(self, t, h):
        return super().forward(t, h) * 0.7


def swap_class(layer):
    layer.__class__ = OwnLayer


def own_forward(layer):
    whole = layer.forward
    layer.forward = lambda t, h: whole(t, h) + 0.1 * t


WEIGHTS = {
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
    "weight norm": lambda layer: parametrizations.weight_norm(layer, "weight"),
    "spectral norm": lambda layer: parametrizations.spectral_norm(layer, "weight"),
    "halved": lambda layer: parametrize.register_parametrization(layer, "bias", Halved()),
    "older weight norm": lambda layer: weight_norm(layer, "weight"),
    "older spectral norm": lambda layer: spectral_norm(layer, "weight"),
}
OUTPUTS = {
    "hook": lambda layer: layer.register_forward_hook(lambda module, given, out: 1.2 * out),
    "pre-hook": lambda layer: layer.register_forward_pre_hook(lambda module, given: (given[0], 0.9 * given[1])),
    "own class": swap_class,
    "own forward": own_forward,
}
CHANGES = WEIGHTS | OUTPUTS


@pytest.fixture
def changed(request):
    """A flow whose layer has been changed by name, used once, and given other weights after that."""
    name, index = request.param
    torch.manual_seed(0)  # of PyTorch's own random masks
    flow = made_flow()
    CHANGES[name](flow.chain()[0].field.layers[index])
    with torch.no_grad():
        flow.log_prob(normal(3, 2))
        for parameter in flow.parameters():
            parameter += 0.05 * parameter.sign()
    return flow


every_change = pytest.mark.parametrize(
    "changed", [(name, i % 3) for i, name in enumerate(CHANGES)] + [("pruned", 1), ("hook", 2)], indirect=True
)
some_changes = pytest.mark.parametrize(
    "changed",
    [("pruned", 1), ("weight norm", 2), ("older spectral norm", 0), ("hook", 1), ("own class", 2)],
    indirect=True,
)


@every_change
def test_density_and_samples_are_those_of_the_called_field(changed):
    twin, x = Flow(CalledTwin(changed.chain()[0].field), solver=FIXED), normal(9, 2)
    torch.testing.assert_close(changed.log_prob(x), twin.log_prob(x), **AGREE)
    with torch.no_grad():  # where the engine is asked first
        expected = twin.log_prob(x, solver=ADAPTIVE)
        torch.testing.assert_close(changed.log_prob(x, solver=ADAPTIVE), expected, **AGREE)
        noise = normal(5, 2, seed=1)
        expected = twin.to_data(noise, solver=ADAPTIVE)
        torch.testing.assert_close(changed.to_data(noise, solver=ADAPTIVE), expected, **AGREE)


@some_changes
def test_gradients_are_those_of_the_called_field_twice_over(changed):
    twin, x = Flow(CalledTwin(changed.chain()[0].field), solver=FIXED), normal(9, 2)
    for flow in (changed, changed):  # a second backward pass finds no freed graph
        flow.zero_grad()
        flow.log_prob(x).mean().backward()
    found = [parameter.grad.clone() for parameter in changed.parameters()]
    changed.zero_grad()
    twin.log_prob(x).mean().backward()
    for mine, parameter in zip(found, changed.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, **AGREE)


@every_change
def test_compact_and_sparse_flows_compute_what_the_called_field_does(changed):
    x = normal(9, 2)
    with torch.no_grad():
        expected = changed.log_prob(x)
        for smaller in (changed.compact(), changed.to_sparse(0.2), copy.deepcopy(changed)):
            torch.testing.assert_close(smaller.log_prob(x), expected, **AGREE)


@some_changes
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_held_steps_train_the_called_field(changed, divergence):
    held, near = HeldStepsLikelihood("dopri5", 1e-5, divergence=divergence), {"rtol": 5e-3, "atol": 5e-3}
    loss = held(changed, normal(9, 2), generator(5)).value
    steps = Solver("rk4", steps=20)
    expected = -changed.log_prob(normal(9, 2), solver=steps, divergence=divergence, generator=generator(5)).mean()
    torch.testing.assert_close(loss, expected, **near)
    found, wanted = (torch.autograd.grad(one, list(changed.parameters())) for one in (loss, expected))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, **near)  # two methods on two grids


@some_changes
def test_flow_matching_trains_the_called_field(changed):
    twin, rows = Flow(CalledTwin(changed.chain()[0].field)), normal(9, 2)
    losses = [FlowMatching()(flow, rows, generator(3)).value for flow in (changed, twin)]
    torch.testing.assert_close(*losses, rtol=0, atol=1e-12)


@pytest.mark.parametrize("changed", [("pruned", 1), ("weight norm", 2)], indirect=True)
def test_exported_fields_hold_the_weights_that_a_call_uses(changed, tmp_path):
    written = load_program(export_program(changed, tmp_path / "field.pt2"))
    t, z = torch.tensor(0.3, dtype=torch.float64), normal(4, 2)
    torch.testing.assert_close(written(t, z), changed.chain()[0].field(t, z), rtol=0, atol=1e-12)


def test_pruning_refuses_weights_that_are_not_the_layers_own():
    flow = made_flow()
    prune.random_unstructured(flow.chain()[0].field.layers[1], "weight", 0.5)
    with pytest.raises(InputError, match=r"prune\.remove"):
        chains(flow)
    assert len(chains(flow.compact())) == 1


def test_one_layer_of_another_precision_is_not_read_as_if_it_were_of_this():
    flow = made_flow()
    flow.chain()[0].field.layers[1].float()
    with pytest.raises(RuntimeError, match="dtype"), torch.no_grad():
        flow.log_prob(normal(3, 2))


def test_weights_that_are_put_in_for_one_call_are_used_by_it():
    flow, x = made_flow(), normal(4, 2)
    name = "blocks.0.field.layers.1.weight"
    other = made_flow()
    with torch.no_grad():
        other.get_parameter(name).mul_(0.5)
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                found = torch.func.functional_call(_LogProb(flow), {"flow." + name: 0.5 * flow.get_parameter(name)}, x)
            torch.testing.assert_close(found, other.log_prob(x), **AGREE)


class _LogProb(nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x):
        return self.flow.log_prob(x)


def test_hooks_for_all_modules_are_honoured():
    flow, x = made_flow(), normal(4, 2)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, given, out: 1.1 * out if isinstance(module, Layer) else None
    )
    try:
        twin = Flow(CalledTwin(flow.chain()[0].field), solver=FIXED)
        with torch.no_grad():
            torch.testing.assert_close(flow.log_prob(x), twin.log_prob(x), **AGREE)
    finally:
        handle.remove()


def test_another_activation_set_later_is_the_one_that_is_used():
    flow, x = made_flow(), normal(4, 2)
    flow.chain()[0].field.activation = "softplus"
    other = Flow(MLPField(2, [12, 10], "softplus", "concat"), solver=FIXED).double()
    other.load_state_dict(flow.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(flow.log_prob(x), other.log_prob(x), **AGREE)
    torch.testing.assert_close(flow.log_prob(x), other.log_prob(x), **AGREE)


def test_a_foreign_module_among_the_layers_is_refused():
    flow = made_flow()
    flow.chain()[0].field.layers.insert(1, nn.Dropout())
    with pytest.raises(InputError, match="Dropout"):
        flow.log_prob(normal(3, 2))


def test_a_field_of_ones_own_with_masks_can_be_copied_after_it_ran():
    class Own(nn.Module):
        dim = 2

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, t, z):
            return torch.tanh(self.layer(z))

    flow = Flow(Own())
    prune.l1_unstructured(flow.chain()[0].field.module.layer, "weight", 2)
    with torch.no_grad():
        before = flow.log_prob(torch.ones(3, 2))
        torch.testing.assert_close(copy.deepcopy(flow).log_prob(torch.ones(3, 2)), before)
    flow.log_prob(torch.ones(3, 2))  # leaves a weight with a graph
    for copied in (copy.deepcopy(flow), flow.compact(), Flow(deep_copy(flow.chain()[0].field))):
        torch.testing.assert_close(copied.log_prob(torch.ones(3, 2)), before)


def test_a_sparse_flow_takes_changed_values_and_refuses_what_it_cannot_carry_out():
    flow, x = made_flow(), normal(4, 2)
    with torch.no_grad():
        weight = flow.get_parameter("blocks.0.field.layers.1.weight")
        weight[weight.abs() < weight.abs().median()] = 0.0
        sparse = flow.to_sparse(0.2)
        sparse.log_prob(x)
        sparse.chain()[0].field.layers[1].values.mul_(0.5)
        weight.mul_(0.5)
        torch.testing.assert_close(sparse.log_prob(x), flow.log_prob(x), **AGREE)
        sparse = flow.to_sparse(0.2)
        sparse.chain()[0].field.layers[0].register_forward_hook(lambda module, given, out: out)
        with pytest.raises(InputError, match="to_sparse"):
            sparse.log_prob(x)
