"""sipp on a whole network: the shares as scores, the reweighting of random choices, and what is promised of it.

Baykal, Liebenwein et al. 2019, "SiPPing neural networks". The pieces are in `shares`, `sampling` and `bounds`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparseflows.pruning.graph.groups import weight_names
from sparseflows.pruning.graph.masks import Masks
from sparseflows.pruning.observing.observe import Sample, observe
from sparseflows.pruning.scoring.bounds import Promise, promise_kept, promise_of, promise_sampled
from sparseflows.pruning.scoring.sampling import arrivals, hybrid, inclusion, reweighting
from sparseflows.rng import torch_generator
from sparseflows.specs.methods import Choice


def sipp(shares: Tensor) -> Tensor:
    """The largest share of its sign group that a weight ever has, (n_out, C).

    Args:
        shares: as `shares.largest_shares` gives them, (n_out, C).
    """
    return shares


class Sipp:
    """The scores of a network's weights, and what has to happen once `prune_weights` has chosen.

    Args:
        network: to be pruned, in place.
        sample: its rows are looked at; its fresh rows check the promises.
        choice: `top` keeps the largest shares, `sampled` draws in proportion and reweights, `mixed` takes for each
            neuron whichever of the two promises less.
        seed: of the draws.

    Attributes:
        scores: name of each weight → its scores.
        promises: of every layer, once `settle` has been called.
    """

    def __init__(self, network: nn.Module, sample: Sample, choice: Choice, seed: int) -> None:
        self.network, self.choice = network, choice
        self.promises: list[Promise] = []
        self._names = weight_names(network)
        self._seen = observe(network, sample, gradients=False)
        self._fresh: list[Tensor | None] = [None] * len(self._names)
        if sample.fresh is not None:
            self._fresh = [s.inputs for s in observe(network, Sample(sample.fresh), gradients=False)]
        generator = torch_generator(seed, "sipp/arrivals")
        self._times = [arrivals(s.shares, generator) for s in self._seen]
        ranked = [s.shares for s in self._seen]
        if choice != "top":
            ranked = [(-t).clamp(min=torch.finfo(torch.float64).min) for t in self._times]
        scored = zip(self._names, ranked, strict=True)
        self.scores = {name: rank.view(network.get_parameter(name).shape) for name, rank in scored}

    def mixed(self, cut: Masks, held: Masks) -> Masks:
        """The mixed choice: of every neuron, as many weights as the cut keeps, drawn or by rank."""
        layers = zip(self._names, self._layers(cut, held), strict=True)
        return Masks({name: kept.view_as(cut[name]) for name, (kept, *_) in layers})

    @torch.no_grad()
    def settle(self, cut: Masks, held: Masks) -> None:
        """Reweight what was drawn, in place, and note what is promised."""
        for number, (name, found) in enumerate(zip(self._names, self._layers(cut, held), strict=True)):
            kept, factors, promised = found
            weight = self.network.get_parameter(name)
            before = weight.double().flatten(1)
            after = before * torch.where(kept, factors, 0.0)
            self.promises.append(
                promise_of(name, before, after, self._seen[number].inputs, promised, self._fresh[number])
            )
            weight.mul_(torch.where(kept, factors, 1.0).view(weight.shape).to(weight))

    def _layers(self, cut: Masks, held: Masks) -> list[tuple[Tensor, Tensor, Callable[[float], Tensor]]]:
        tau = self._tau(sum(int(cut[name].sum()) for name in self._names))
        return [
            self._layer(number, cut[name].flatten(1), held[name].flatten(1), tau)
            for number, name in enumerate(self._names)
        ]

    def _layer(
        self, number: int, kept: Tensor, held: Tensor, tau: float
    ) -> tuple[Tensor, Tensor, Callable[[float], Tensor]]:
        """What stays of one layer and its factors, (n_out, C) both, and its promise as a function of the inflation."""
        weight, shares = self._seen[number].weight, self._seen[number].shares
        # What no cut may take, or came after τ and was kept all the same, was not left to chance.
        certain = kept & (held | (self._times[number] > tau))
        if self.choice == "top":
            return kept, torch.ones_like(shares), lambda wider: promise_kept(weight, shares, kept, wider)
        if self.choice == "sampled":
            factors, chances = reweighting(shares, kept, tau, certain), inclusion(shares, tau, certain)
            return kept, factors, lambda wider: promise_sampled(weight, shares, chances, inflation=wider)
        found = hybrid(weight, shares, kept, tau, certain)
        return found.kept, found.factors, lambda wider: hybrid(weight, shares, kept, tau, certain, wider).promised

    def _tau(self, kept: int) -> float:
        """τ, the arrival after the `kept` first ones of all layers; infinite where all arrived.

        Given the other arrivals, a kept weight is kept exactly when it arrives before this one, so that dividing by
        1 − exp(−τ s) is unbiased for a fixed number of weights too (Cohen and Kaplan 2007, rank conditioning). The last
        arrival kept would leave a bias. `bounds.promise_sampled` is proved for a τ fixed beforehand. With this one,
        read from the draw itself, how often it holds is measured (tests), not proved.
        """
        times = torch.cat([time.flatten() for time in self._times]).sort().values
        return float(times[kept]) if kept < len(times) else float("inf")
