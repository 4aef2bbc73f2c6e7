"""sipp on a whole network: the shares as scores, the reweighting of random choices, and what is promised of it.

Baykal, Liebenwein et al. 2019, "SiPPing neural networks". The pieces are in `shares`, `sampling` and `bounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sparseflows.pruning.bounds import promise_kept, promise_sampled
from sparseflows.pruning.groups import chains
from sparseflows.pruning.masks import Masks
from sparseflows.pruning.observe import Sample, observe
from sparseflows.pruning.promises import Promise, promise_of
from sparseflows.pruning.sampling import arrivals, hybrid, inclusion, reweighting
from sparseflows.rng import torch_generator

Choice = Literal["top", "sampled", "mixed"]


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
        self._names = [link.weight for chain in chains(network) for link in chain]
        self._seen = observe(network, sample, gradients=False)
        self._fresh: list[Tensor | None] = [None] * len(self._names)
        if sample.fresh is not None:
            self._fresh = [s.inputs for s in observe(network, Sample(sample.fresh), gradients=False)]
        shapes = [network.get_parameter(name).shape for name in self._names]
        generator = torch_generator(seed, "sipp/arrivals")
        self._times = [arrivals(s.shares, generator) for s in self._seen]
        lowest = torch.finfo(torch.float64).min
        ranked = [
            s.shares if choice == "top" else (-t).clamp(min=lowest)
            for s, t in zip(self._seen, self._times, strict=True)
        ]
        self.scores = {name: r.view(shape) for name, r, shape in zip(self._names, ranked, shapes, strict=True)}

    @torch.no_grad()
    def settle(self, chosen: Masks) -> Masks:
        """Reweight what was drawn; the mixed choice chooses anew, neuron by neuron. Gives the masks to keep."""
        tau = self._tau(sum(int(chosen[name].sum()) for name in self._names))
        settled = {}
        for number, name in enumerate(self._names):
            weight = self.network.get_parameter(name)
            before = weight.double().flatten(1)
            kept, factors, promised = self._layer(number, before, chosen[name].flatten(1), tau)
            after = before * torch.where(kept, factors, 0.0)
            self.promises.append(
                promise_of(name, before, after, self._seen[number].inputs, promised, self._fresh[number])
            )
            weight.mul_(torch.where(kept, factors, 1.0).view(weight.shape).to(weight))
            settled[name] = kept.view(weight.shape)
        return Masks(settled)

    def _layer(
        self, number: int, weight: Tensor, kept: Tensor, tau: float
    ) -> tuple[Tensor, Tensor, Callable[[float], Tensor]]:
        """Of one layer: what stays, its factors, and its promise as a function of the inflation."""
        shares = self._seen[number].shares
        # A path that is always kept may have come after τ: it was not left to chance.
        certain = kept & (self._times[number] > tau)
        if self.choice == "top":
            return kept, torch.ones_like(shares), lambda wider: promise_kept(weight, shares, kept, wider)
        if self.choice == "sampled":
            factors, chances = reweighting(shares, kept, tau, certain), inclusion(shares, tau, certain)
            return kept, factors, lambda wider: promise_sampled(weight, shares, chances, inflation=wider)
        found = hybrid(weight, shares, kept, tau, certain)
        return (
            found.kept,
            found.factors,
            lambda wider: hybrid(weight, shares, kept, tau, certain, inflation=wider).promised,
        )

    def _tau(self, kept: int) -> float:
        """The arrival after the `kept` first ones (see `sampling.threshold`)."""
        times = torch.cat([time.flatten() for time in self._times]).sort().values
        return float(times[kept]) if kept < len(times) else float("inf")
