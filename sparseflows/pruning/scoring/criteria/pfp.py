"""pfp on a whole network: which neurons stay, the reweighting of what was drawn, and what is promised of it.

Liebenwein, Baykal et al. 2020, "Provable filter pruning". The pieces are in `shares`, `neuron_budget`, `sampling` and
`bounds`.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sparseflows.pruning.graph.groups import Keep, by_neuron, hidden_layers, params_counter
from sparseflows.pruning.observing.observe import Sample, observe_readers
from sparseflows.pruning.scoring.bounds import Promise, promise_of
from sparseflows.pruning.scoring.neuron_budget import allocate_neurons
from sparseflows.pruning.scoring.sampling import best_top, draw_neurons, top_neurons
from sparseflows.rng import torch_generator
from sparseflows.specs.methods import Choice


def pfp(neuron_shares: Tensor) -> Tensor:
    """A neuron's largest share over all neurons of the *next* layer, (n_in,).

    Args:
        neuron_shares: of the next layer, (n_out, n_in), as `shares.largest_shares` gives them.
    """
    return neuron_shares.amax(0)


@torch.no_grad()
def choose_by_pfp(
    network: nn.Module, target: int, sample: Sample, choice: Choice, least: Sequence[int], seed: int
) -> tuple[Keep, tuple[Promise, ...]]:
    """The neurons that stay, so that the network would have about `target` params, and what is promised of that.

    Args:
        network: the columns that read neurons which were drawn are reweighted in place.
        target: params to keep; layers share them by the error that is promised (`neuron_budget`).
        sample: its rows are looked at; its fresh rows check the promises.
        choice: `top`, `sampled` or `mixed` (top-then-random).
        least: neurons that each hidden layer keeps at least.
        seed: of the draws.
    """
    layers = hidden_layers(network)
    read_by = observe_readers(network, sample)
    fresh: list[Tensor | None] = [None] * len(layers)
    if sample.fresh is not None:
        fresh = [statistics.inputs for statistics in observe_readers(network, Sample(sample.fresh))]
    scores = [pfp(statistics.neuron_shares) for statistics in read_by]
    patches = [len(statistics.inputs) // statistics.examples for statistics in read_by]
    kernels = [layer.next_link.per_neuron for layer in layers]
    counts = allocate_neurons(scores, params_counter(network), target, patches, kernels)
    generator = torch_generator(seed, "pfp/draws")
    keep: Keep = []
    promises = []
    for layer, values, count, floor, seen, others in zip(layers, scores, counts, least, read_by, fresh, strict=True):
        following = layer.next_link
        wanted = min(max(count, floor), layer.size)
        if choice == "top":
            drawn = top_neurons(values, wanted)
        else:
            certain = best_top(values, wanted, following.n_out) if choice == "mixed" else 0
            drawn = draw_neurons(values, wanted, generator, certain)
        weight = network.get_parameter(following.weight)
        before = weight.double().flatten(1)
        after = before * drawn.factors.repeat_interleave(following.per_neuron)
        promised = partial(drawn.promised, seen.neuron_shares)
        promises.append(promise_of(following.weight, before, after, seen.inputs, promised, others))
        by_neuron(following, weight).mul_(torch.where(drawn.kept, drawn.factors, 1.0).to(weight)[None, :, None])
        keep.append(drawn.kept)
    return keep, tuple(promises)
