"""Flows to prune, and the counting done again the slow way: loops over neurons, nothing shared with the package."""

import torch

from sparseflows.flow.build import build_flow
from sparseflows.specs import FlowSpec

TIMES = ("none", "concat", "concat_squash")
ACTIVATIONS = ("sigmoid", "tanh", "softplus", "relu", "silu")


def make_flow(hidden=(6, 5), dim=2, *, seed=0, whitening=None, **settings):
    """A float64 flow whose every parameter is random, biases and end times too."""
    flow = build_flow(FlowSpec(hidden=list(hidden), **settings), dim, seed=seed, whitening=whitening).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            if name.endswith("sqrt_end_time"):
                parameter.copy_(0.8 + 0.4 * torch.rand((), generator=generator, dtype=torch.float64))
    return flow


def points(dim=2, rows=7, seed=1):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def velocities(flow, rows=7):
    """f(t, z) of every block at a few times: (blocks · times, rows, D)."""
    z = points(flow.dim, rows)
    times = [torch.tensor(t, dtype=torch.float64) for t in (0.0, 0.3, 1.0)]
    with torch.no_grad():
        return torch.stack([field(t, z) for field in flow.fields() for t in times])


def layers_of(flow):
    """For each block, the prefix of every layer's parameters, first to last."""
    found = {}
    for name, _ in flow.named_parameters():
        if name.endswith(".weight"):
            prefix = name.removesuffix(".weight")
            found.setdefault(prefix.split(".")[1], []).append(prefix)
    return list(found.values())


def vectors_of(flow, prefix):
    """Names of what a neuron of the layer owns beside its row."""
    return [n for n, p in flow.named_parameters() if n.startswith(f"{prefix}.") and p.ndim == 1]


def weights_of(flow, masks=None):
    """(name, row, column) -> |w| of every weight, or of those that `masks` keep."""
    found = {}
    for prefixes in layers_of(flow):
        for prefix in prefixes:
            name = f"{prefix}.weight"
            weight = flow.get_parameter(name)
            kept = torch.ones_like(weight).bool().tolist() if masks is None else masks[name].tolist()
            for row, values in enumerate(weight.tolist()):
                for column, value in enumerate(values):
                    if kept[row][column]:
                        found[name, row, column] = abs(value)
    return found


def living(flow, kept):
    """Which neurons live when the weights in `kept` stay: (prefix of their layer, index).

    A neuron lives that sees an input (a coordinate of z, or t) and has a path to an output. Outputs live.
    """
    neurons, names = set(), dict(flow.named_parameters())
    for prefixes in layers_of(flow):
        sizes = [names[f"{prefix}.bias"].shape[0] for prefix in prefixes]
        sees, feeds = set(), set()
        for level, prefix in enumerate(prefixes):
            sources = range(names[f"{prefix}.weight"].shape[1])
            for j in range(sizes[level]):
                seen = [i for i in sources if (f"{prefix}.weight", j, i) in kept]
                if f"{prefix}.time_bias" in names or any(level == 0 or (prefixes[level - 1], i) in sees for i in seen):
                    sees.add((prefix, j))
        for level in reversed(range(len(prefixes))):
            for j in range(sizes[level]):
                if level == len(prefixes) - 1:
                    feeds.add((prefixes[level], j))
                    continue
                above = prefixes[level + 1]
                if any((f"{above}.weight", k, j) in kept and (above, k) in feeds for k in range(sizes[level + 1])):
                    feeds.add((prefixes[level], j))
        outputs = {(prefixes[-1], j) for j in range(sizes[-1])}
        neurons |= (sees & feeds) | outputs
    return neurons


def alive_ends(flow, weight, neurons):
    """Do both ends of a weight live?"""
    name, row, column = weight
    prefix = name.removesuffix(".weight")
    head, index = prefix.rsplit(".", 1)
    return (prefix, row) in neurons and (index == "0" or (f"{head}.{int(index) - 1}", column) in neurons)


def count(flow, kept):
    """Params left when the weights in `kept` stay and all that is dead goes."""
    neurons = living(flow, kept)
    total = sum(alive_ends(flow, weight, neurons) for weight in kept)
    total += sum(len(vectors_of(flow, prefix)) for prefix, _ in neurons)
    return total + sum(p.numel() for n, p in flow.named_parameters() if ".layers." not in n)


def strongest_paths(flow, magnitudes):
    """By trying all paths: the largest weakest weight of a path, by block, and all weights on a path that has it."""
    strengths, found = [], set()
    for prefixes in layers_of(flow):
        paths = []
        stack = [((), column) for column in range(flow.dim)]
        while stack:
            path, source = stack.pop()
            if len(path) == len(prefixes):
                paths.append((min(magnitudes[weight] for weight in path), path))
                continue
            name = f"{prefixes[len(path)]}.weight"
            for row in range(flow.get_parameter(name).shape[0]):
                if (name, row, source) in magnitudes:
                    stack.append(((*path, (name, row, source)), row))
        strengths.append(max(strength for strength, _ in paths))
        found |= {weight for strength, path in paths if strength == strengths[-1] for weight in path}
    return strengths, found


def smallest_count(flow):
    """Params of one path through every block: every layer's neuron and its row of one, all output neurons."""
    total = sum(p.numel() for n, p in flow.named_parameters() if ".layers." not in n)
    for prefixes in layers_of(flow):
        total += sum(1 + len(vectors_of(flow, prefix)) for prefix in prefixes)
        total += (flow.dim - 1) * len(vectors_of(flow, prefixes[-1]))
    return total
