"""What is observed of a network, done again one example at a time: autograd by weights and by gates, and captures."""

import copy
import itertools
from dataclasses import dataclass

import torch
from support.naive_pruning import layers_of
from torch import nn
from torch.autograd import forward_ad

from sparseflows.flow.model import Flow, standard_normal_log_prob
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.graph.modules.chains import follow

SOLVER = Solver("rk4", steps=8, norm="batch")


@dataclass
class Layer:
    """One weight layer: the matrix (n_out, C), and of each example its gradient by it, gates' gradients and inputs."""

    name: str
    weight: torch.Tensor
    per_neuron: int
    gradients: list
    gates: list
    points: list  # activations that the matrix multiplied, one after the other


def flow_loss(flow, row):
    """−log p of one row (1, D)."""
    result = flow.transform(row, solver=SOLVER, divergence="exact")
    return -(standard_normal_log_prob(result.points) + result.trace).sum()


def logits_loss(loss):
    """A loss (of z(T) and the number of the example) along the same solve without a divergence."""
    return lambda flow, row, n: loss(flow.transform(row, solver=SOLVER, divergence=None).points, n)


def observed_one_by_one(network, rows, loss=None):
    """Every weight layer of `network`. `loss(network, row, n)` is one example's own; of a flow −log p by default."""
    if isinstance(network, Flow):
        names = [f"{prefix}.weight" for prefixes in layers_of(network) for prefix in prefixes]
        neurons = [1] * len(names)
        loss = loss or (lambda flow, row, n: flow_loss(flow, row))
    else:
        links = follow(network)
        names, neurons = [link.weight for link in links], [link.per_neuron for link in links]
    layers = [
        Layer(name, network.get_parameter(name).detach().flatten(1), per_neuron, [], [], [])
        for name, per_neuron in zip(names, neurons, strict=True)
    ]
    for n in range(len(rows)):
        row = rows[n : n + 1]
        watched, kept = with_captures(network, names)
        if loss is None:
            watched(row)
        else:
            parameters = [watched.get_parameter(name) for name in names]
            for layer, gradient in zip(layers, torch.autograd.grad(loss(watched, row, n), parameters), strict=True):
                layer.gradients.append(gradient.flatten(1))
            gated, gates = with_gates(network, names, neurons)
            for layer, gradient in zip(layers, torch.autograd.grad(loss(gated, row, n), gates), strict=True):
                layer.gates.append(gradient)
        for layer, points in zip(layers, kept, strict=True):
            layer.points += points
    return layers


def with_gates(network, names, neurons):
    """A copy whose weights are W[:, j] · g_j, and the gates g (n_in,), all 1: what gates on the neurons before do.

    A gate in front of a product scales the activation and its tangents alike.
    """
    gated, gates = copy.deepcopy(network), []
    for name, per_neuron in zip(names, neurons, strict=True):
        owner, _, own = name.rpartition(".")
        layer = gated.get_submodule(owner)
        weight = getattr(layer, own).detach()
        gate = torch.ones(weight.flatten(1).shape[1] // per_neuron, dtype=weight.dtype, requires_grad=True)
        delattr(layer, own)
        setattr(layer, own, (weight.flatten(1) * gate.repeat_interleave(per_neuron)).view(weight.shape))
        gates.append(gate)
    return gated, gates


def with_captures(network, names):
    """A copy, and for each weight a list that fills with the activations it multiplies, as they come."""
    network = copy.deepcopy(network)
    found = []
    for name in names:
        kept = []
        found.append(kept)
        layer = network.get_submodule(name.rpartition(".")[0])
        if isinstance(network, Flow):
            keep_inputs_of_field_layer(layer, kept, network.dimension(None))
        else:
            layer.register_forward_pre_hook(lambda own, given, kept=kept: kept.extend(columns(own, given[0])))
    return network, found


def keep_inputs_of_field_layer(layer, kept, dim):
    forward, passes = layer.forward, itertools.count()

    def forward_and_keep(t, h):
        if forward_ad._current_level < 0:
            kept.append(h[0].detach())
        elif next(passes) % dim == 0:  # a tangent after the other: the same point comes D times
            kept.append(forward_ad.unpack_dual(h[0]).primal.detach())
        return forward(t, h)

    layer.forward = forward_and_keep


def columns(layer, given):
    """What the weight matrix of a layer multiplies for one example: the input, or every patch (no padding)."""
    if isinstance(layer, nn.Linear):
        return [given[0].detach()]
    assert layer.padding == (0, 0)
    assert layer.stride == layer.dilation == (1, 1)
    height, width = layer.kernel_size
    rows, cols = given.shape[2] - height + 1, given.shape[3] - width + 1
    return [
        given[0, :, i : i + height, j : j + width].flatten().detach()
        for i, j in itertools.product(range(rows), range(cols))
    ]
