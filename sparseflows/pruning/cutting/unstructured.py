"""Unstructured pruning: single weights go; what they leave without a path goes with them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.pruning.cutting.paths import floors, strongest_paths
from sparseflows.pruning.graph.chains import Chain, Link
from sparseflows.pruning.graph.groups import by_neuron, chains, count_params
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.scoring.allocation import largest_prefix, put_first, rank
from sparseflows.pruning.scoring.criteria.formulas import magnitude

_NEAR = 200  # cuts on either side that are counted where the count need not rise with the cut

Scores = Mapping[str, Tensor]
"""Weight name → one score an entry, of the weight's shape; higher stays."""


def prune_weights(
    network: nn.Module,
    masks: Masks,
    target: int,
    scores: Scores | None = None,
    allocation: str = "global",
    floor: float = 0.0,
    choose: Callable[[Masks, Masks], Masks] | None = None,
    settle: Callable[[Masks, Masks], None] | None = None,
) -> Masks:
    """Mask the weights of `network` that score lowest until `target` params are left.

    Counted are all params. A neuron without a path to the output is masked whole; so is one without a path
    from the input, after its constant output has been folded into the next bias, which leaves the function
    as it was. Time is an input: a neuron that sees t is not constant. The strongest path through each
    chain is kept, so no layer vanishes; where `target` cannot be reached (biases alone may exceed it) the
    nearest count is taken.

    Args:
        network: changed in place: masked entries become 0, biases take up folded constants.
        masks: of the stage before; what they mask stays masked.
        target: params to keep.
        scores: magnitudes by default.
        allocation: `global`, one ranking over all layers, or `uniform`, the same share of each.
        floor: share of each layer's weights that stays whatever their rank, with one way in and one way out for each.
        choose: a last word on every choice: masks of the weights that a cut keeps, and of those that no cut may take
            → masks of the weights to keep. The budget is met by what it gives.
        settle: called once with the same two before anything is zeroed or folded; it may scale weights.

    Returns:
        The new masks.

    Raises:
        InputError: scores that do not fit the network.
    """
    ways = chains(network)
    links = [link for chain in ways for link in chain]
    parameters = dict(network.named_parameters())
    if scores is None:
        scores = {link.weight: magnitude(parameters[link.weight]) for link in links}
    ranked = [_of_living(link, parameters[link.weight], scores, masks) for link in links]
    protected = torch.cat([strongest_paths(ways, ranked), floors(ways, ranked, floor)]).unique()
    order = put_first(rank(ranked, allocation), protected)
    masked = torch.cat([score.flatten() for score in ranked])[order] == -torch.inf
    order = torch.cat([order[~masked], order[masked]])  # a floor or a uniform rank may have mixed them
    alive = int((~masked).sum())

    def cut(entries: Tensor) -> Masks:
        flat = torch.zeros(len(order), dtype=torch.bool)
        flat[entries] = True
        parts = flat.split([score.numel() for score in ranked])
        return Masks({link.weight: part.view_as(s) for link, part, s in zip(links, parts, ranked, strict=True)})

    held = cut(protected)

    def masks_for(entries: Tensor) -> Masks:
        return cut(entries) if choose is None else choose(cut(entries), held)

    def left_by(entries: Tensor) -> Masks:
        return without_dead_neurons(network, masks_for(entries), ways)

    def count(entries: Tensor) -> int:
        return left_by(entries).kept(network)

    n = largest_prefix(len(protected), alive, lambda n: count(order[:n]), target)
    if choose is not None:  # its counts need not rise with the cut
        near = range(max(len(protected), n - _NEAR), min(alive, n + _NEAR) + 1)
        n = min(near, key=lambda n: abs(count(order[:n]) - target))
    chosen, missing = order[:n], target - count(order[:n])
    if missing > 0 and n < alive and choose is None:
        # The next weight would bring a whole neuron back: pass over it to those between neurons that live anyway.
        living = _between_living(ways, left_by(chosen))[order[n:alive]]
        chosen = torch.cat([chosen, order[n:alive][living][:missing]])
        if target - count(chosen) > max(1, count_params(network) // 1000):
            # They do not suffice: take it, and let the weakest go for it.
            above = order[: n + 1]
            left = left_by(above)
            living = torch.cat([left[link.weight].flatten() for link in links])
            removable = above[len(protected) :].flip(0)
            above = _thinned(above, removable[living[removable]], count, target)
            chosen = min(chosen, above, key=lambda entries: abs(count(entries) - target))
    weights = masks_for(chosen)
    if settle is not None:
        settle(cut(chosen), held)
    masks = without_dead_neurons(network, weights, ways)
    weights.apply_(network)
    fold_constants(network, weights, ways)
    masks.apply_(network)
    return masks


def _of_living(link: Link, weight: Tensor, scores: Scores, masks: Masks) -> Tensor:
    if link.weight not in scores:
        raise InputError(f"no scores for '{link.weight}'; give one tensor a weight: {tuple(weight.shape)}")
    score = scores[link.weight].detach().cpu()  # chosen there, wherever the network is
    if score.shape != weight.shape:
        raise InputError(f"the scores of '{link.weight}' have shape {tuple(score.shape)}, not {tuple(weight.shape)}")
    if not bool(torch.isfinite(score).all()):
        raise InputError(f"a score of '{link.weight}' is not finite; every weight needs a number")
    return score.masked_fill(~masks[link.weight].cpu(), -torch.inf) if link.weight in masks else score


def _thinned(entries: Tensor, removable: Tensor, count: Callable[[Tensor], int], target: int) -> Tensor:
    """`entries` without those of `removable`, one after the other, that leave a count of `target` at least."""
    for entry in removable:
        fewer = entries[entries != entry]
        counted = count(fewer)
        if counted >= target:
            entries = fewer
        if counted == target:
            break
    return entries


def without_dead_neurons(network: nn.Module, weights: Masks, ways: Sequence[Chain] | None = None) -> Masks:
    """Masks over all parameters of the chains: `weights`, less all on no path from the inputs to the outputs.

    Args:
        network: whose weights they are.
        weights: which weights are kept.
        ways: the chains of `network`, where they are known already.
    """
    ways = ways or chains(network)
    tensors: dict[str, Tensor] = {}
    for chain in ways:
        joined = [_joined(link, weights) for link in chain]
        reached = _reached(chain, joined)
        needed = [torch.ones(chain[-1].n_out, dtype=torch.bool)]  # the outputs; then backwards
        for mask in reversed(joined[1:]):
            needed.append(mask[needed[-1]].any(0))
        inputs, outputs = torch.ones(chain[0].n_in, dtype=torch.bool), needed[0]
        alive = [inputs, *(r & n for r, n in zip(reached[:-1], reversed(needed[1:]), strict=True)), outputs]
        for link, before, after in zip(chain, alive, alive[1:], strict=False):
            mask = weights[link.weight]
            between = (after[:, None] & before[None, :])[:, :, None]
            tensors[link.weight] = (by_neuron(link, mask) & between).view_as(mask)
            for own in link.vectors:
                tensors[own] = after.clone()
    return Masks(tensors)


def _joined(link: Link, weights: Masks) -> Tensor:
    """(n_out, n_in): is any weight between the two neurons kept?"""
    return by_neuron(link, weights[link.weight]).any(2)


def _between_living(ways: Sequence[Chain], masks: Masks) -> Tensor:
    """For every entry of the concatenated weights: do both of its ends still live under `masks`?"""
    parts = []
    for chain in ways:
        before = torch.ones(chain[0].n_in, dtype=torch.bool)
        for link in chain:
            after = masks[link.vectors[0]] if link.vectors else _joined(link, masks).any(1)
            ends = (after[:, None] & before[None, :])[:, :, None]
            parts.append(ends.expand(-1, -1, link.per_neuron).flatten())
            before = after
    return torch.cat(parts)


def _reached(chain: Chain, joined: Sequence[Tensor]) -> list[Tensor]:
    """For each layer, which of its neurons see an input: a coordinate of z, or t.

    A constant that the next layer cannot take up exactly counts as seen: it stays.
    """
    reached = []
    seen = torch.ones(joined[0].shape[1], dtype=torch.bool)
    for link, following, mask in zip(chain, [*chain[1:], None], joined, strict=True):
        seen = mask[:, seen].any(1)
        if link.sees_time or (following is not None and not following.foldable):
            seen = torch.ones_like(seen)
        reached.append(seen)
    return reached


@torch.no_grad()
def fold_constants(network: nn.Module, weights: Masks, ways: Sequence[Chain] | None = None) -> None:
    """Add what every neuron that sees no input sends on to the biases that read it, and cut it off; in place.

    Args:
        network: its function stays, once `weights` are applied to it.
        weights: which weights are kept.
        ways: the chains of `network`, where they are known already.
    """
    ways = ways or chains(network)
    parameters = dict(network.named_parameters())
    for chain in ways:
        reached = _reached(chain, [_joined(link, weights) for link in chain])
        for link, following, seen in zip(chain, chain[1:], reached, strict=False):
            constant = ~seen
            if not constant.any() or following.bias is None or link.constants is None:
                continue
            read = by_neuron(following, parameters[following.weight])
            parameters[following.bias].add_(read[:, constant].sum(2) @ link.constants()[constant])
            read[:, constant] = 0.0
