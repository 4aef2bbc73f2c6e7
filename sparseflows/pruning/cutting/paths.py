"""Paths of weights from the inputs to the outputs: which ones a cut must leave so that no layer falls empty."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseflows.pruning.graph.chains import Chain
from sparseflows.pruning.graph.groups import by_neuron
from sparseflows.pruning.scoring.allocation import best_of_layers


def strongest_paths(ways: Sequence[Chain], ranked: Sequence[Tensor]) -> Tensor:
    """Indices (n,), into the concatenated scores, of each chain's path whose weakest weight is strongest.

    Keeping all weights above a threshold keeps some path exactly as long as it keeps this one, so the
    choice changes nothing until the last path would break.

    Args:
        ways: the chains of a network.
        ranked: scores of all weights, chain after chain, each of its weight's shape (n_out, …); −∞ where masked.
    """
    chosen: list[int] = []
    offset, remaining = 0, iter(ranked)
    for chain in ways:
        layers = [next(remaining) for _ in chain]
        best = torch.full((chain[0].n_in,), torch.inf, dtype=layers[0].dtype)
        choices = []
        for link, score in zip(chain, layers, strict=True):
            strongest, place = by_neuron(link, score).max(2)
            best, source = torch.minimum(best, strongest).max(1)
            choices.append(source * link.per_neuron + place.gather(1, source[:, None])[:, 0])
        neuron = int(best.argmax())
        ends = offset + torch.tensor([0, *[s.numel() for s in layers]]).cumsum(0)
        for link, choice, start in reversed(list(zip(chain, choices, ends.tolist(), strict=False))):
            column = int(choice[neuron])
            chosen.append(start + neuron * link.n_in * link.per_neuron + column)
            neuron = column // link.per_neuron
        offset = int(ends[-1])
    return torch.tensor(chosen)


def floors(ways: Sequence[Chain], ranked: Sequence[Tensor], share: float) -> Tensor:
    """Indices (n,) of each layer's best `share` of its weights, and of one way in and one way out for each.

    Without the ways, neurons that lead nowhere would be taken out, and their floored weights with them. The arguments
    are those of `strongest_paths`.
    """
    if share == 0:
        return torch.empty(0, dtype=torch.long)
    living = [int((score > -torch.inf).sum()) for score in ranked]
    counts = [min(round(share * score.numel()), n) for score, n in zip(ranked, living, strict=True)]
    kept = torch.zeros(sum(score.numel() for score in ranked), dtype=torch.bool)
    kept[best_of_layers(ranked, counts)] = True
    remaining = zip(ranked, kept.split([score.numel() for score in ranked]), strict=True)
    for chain in ways:
        _add_ways(chain, [next(remaining) for _ in chain])
    return kept.nonzero()[:, 0]


def _add_ways(chain: Chain, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add to what is kept of layers (scores, kept), in place: backwards the best weight into each neuron that is read,
    then forwards the best out."""
    views, masks = ([by_neuron(link, own[i]) for link, own in zip(chain, layers, strict=True)] for i in (0, 1))
    for index in range(len(chain) - 1, 0, -1):
        read = masks[index].any(2).any(0)
        for neuron in (read & ~masks[index - 1].flatten(1).any(1)).nonzero()[:, 0].tolist():
            masks[index - 1][neuron].view(-1)[int(views[index - 1][neuron].flatten().argmax())] = True
    for index in range(len(chain) - 1):
        speaks = masks[index].flatten(1).any(1)
        for neuron in (speaks & ~masks[index + 1].any(2).any(0)).nonzero()[:, 0].tolist():
            best = int(views[index + 1][:, neuron].flatten().argmax())
            row, column = divmod(best, chain[index + 1].per_neuron)
            masks[index + 1][row, neuron, column] = True
