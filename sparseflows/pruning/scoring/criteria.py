"""The criteria by name: what each scores, what it must see for that, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.pruning.graph.groups import chains, hidden_layers
from sparseflows.pruning.observing.observe import Sample, observe
from sparseflows.pruning.observing.statistics import Statistics
from sparseflows.pruning.scoring import scores as rules
from sparseflows.rng import torch_generator

Needs = Literal["nothing", "rows", "loss"]


@dataclass(frozen=True)
class Scored:
    """What a rule is given: the layer's own matrix (n_out, C) and statistics, and those of the layer that reads it."""

    weight: Tensor
    own: Statistics | None
    following: Statistics | None
    generator: torch.Generator


@dataclass(frozen=True)
class Criterion:
    """One way to say what matters.

    Attributes:
        kind: single weights, or whole units (neurons, channels).
        needs: nothing but the weights; rows of data; or the gradient of a loss over such rows.
        rule: see `scores`.
        source: where it comes from.
    """

    kind: Literal["weights", "units"]
    needs: Needs
    rule: Callable[[Scored], Tensor]
    source: str


def _seen(statistics: Statistics | None) -> Statistics:
    assert statistics is not None  # `score` has refused the call otherwise
    return statistics


def _gradient(value: Tensor | None) -> Tensor:
    assert value is not None
    return value


def _snip(given: Scored) -> Tensor:
    return rules.snip(given.weight, _gradient(_seen(given.own).mean_gradient))


def _fisher_weights(given: Scored) -> Tensor:
    own = _seen(given.own)
    return rules.fisher_weights(given.weight, _gradient(own.squared_gradients), own.examples)


def _contributions(given: Scored) -> Tensor:
    return _gradient(_seen(given.following).contributions)


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion("weights", "nothing", lambda x: rules.magnitude(x.weight), "weight thresholding"),
    "snip": Criterion("weights", "loss", _snip, "Lee et al. 2019"),
    "sipp": Criterion("weights", "rows", lambda x: rules.sipp(_seen(x.own).shares), "Baykal, Liebenwein et al. 2019"),
    "fisher_weights": Criterion("weights", "loss", _fisher_weights, "diagonal empirical Fisher"),
    "random_weights": Criterion(
        "weights", "nothing", lambda x: rules.random(x.weight.shape, x.generator), "the baseline every claim needs"
    ),
    "neuron_l1": Criterion("units", "nothing", lambda x: rules.neuron_l1(x.weight), "Li et al. 2017"),
    "neuron_l2": Criterion("units", "nothing", lambda x: rules.neuron_l2(x.weight), "He et al. 2018"),
    "pfp": Criterion(
        "units", "rows", lambda x: rules.pfp(_seen(x.following).unit_shares), "Liebenwein, Baykal et al. 2020"
    ),
    "fisher_neurons": Criterion(
        "units", "loss", lambda x: rules.fisher_neurons(_contributions(x)), "Theis et al. 2018; Crowley et al. 2018"
    ),
    "taylor": Criterion("units", "loss", lambda x: rules.taylor(_contributions(x)), "Molchanov et al. 2017"),
    "random_neurons": Criterion(
        "units", "nothing", lambda x: rules.random(x.weight.shape[:1], x.generator), "the baseline every claim needs"
    ),
}


def score(
    criterion: str,
    network: nn.Module,
    sample: Sample | None = None,
    *,
    seed: int = 0,
    seen: Sequence[Statistics] | None = None,
) -> dict[str, Tensor]:
    """The scores of a network's weights or units, float64; higher stays.

    Args:
        criterion: one of `CRITERIA`.
        network: a flow, or any module of Linear and Conv2d layers that can be followed.
        sample: rows, and the loss of a classifier; for the criteria that need them.
        seed: of the random criteria.
        seen: what `observe(network, sample)` gave, where it is known already.

    Returns:
        Weights: name of each weight → a tensor of its shape. Units: name of each hidden layer's weight → (size,).

    Raises:
        InputError: an unknown criterion, one that needs data without data or a loss without a loss, or a network
            that cannot be followed.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = network[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0], [-1.0, 1.0]]))
        >>> score("neuron_l1", network)["0.weight"].tolist()
        [3.0, 0.5, 2.0]
    """
    rule = lookup("criterion", criterion, CRITERIA)
    if not isinstance(network, nn.Module):
        raise InputError(f"a {type(network).__name__} cannot be scored; give a flow, or an nn.Module")
    links = [link for chain in chains(network) for link in chain]
    statistics: Sequence[Statistics | None] = [None] * len(links)
    if rule.needs != "nothing":
        statistics = seen or observe(network, _needed(criterion, rule, sample), rule.needs == "loss")
        if rule.needs == "loss" and _seen(statistics[0]).mean_gradient is None:
            raise InputError(f"criterion '{criterion}' needs the gradient of a loss; give Sample(rows, loss)")
    parameters = dict(network.named_parameters())
    following = dict(zip([link.weight for link in links], [*statistics[1:], None], strict=True))
    hidden = {layer.link.weight for layer in hidden_layers(network)}
    found = {}
    for number, (link, own) in enumerate(zip(links, statistics, strict=True)):
        weight = parameters[link.weight].detach().double().cpu()
        given = Scored(
            weight.flatten(1), own, following[link.weight], torch_generator(seed, f"criterion/{criterion}/{number}")
        )
        if rule.kind == "weights":
            found[link.weight] = rule.rule(given).view(weight.shape)
        elif link.weight in hidden:
            found[link.weight] = rule.rule(given)
    return found


def _needed(criterion: str, rule: Criterion, sample: Sample | None) -> Sample:
    if sample is None:
        what = "rows of data" if rule.needs == "rows" else "rows of data and the gradient of a loss"
        raise InputError(f"criterion '{criterion}' needs {what}; give sample=Sample(rows, …)")
    if not isinstance(sample, Sample):
        raise InputError(f"sample is a {type(sample).__name__}; wrap the rows as Sample(rows, …)")
    return sample
