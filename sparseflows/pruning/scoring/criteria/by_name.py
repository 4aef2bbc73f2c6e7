"""The scores of a network by the name of a criterion: what its rule looks at is gathered here, layer by layer.

A rule is a pure function of one layer; `specs.methods` says where it stands. It is given what its arguments are called:
`weight`, the layer's matrix, `generator`, a random one of the layer's own, or anything that the layer's `Statistics`
have; `docs/howto/own_criterion.md` lists them all with their shapes. It gives (n_out, C) for weights and (n_out,) for
neurons; higher stays.
"""

from collections.abc import Callable, Sequence
from inspect import signature
from pkgutil import resolve_name

from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.pruning.graph.groups import chains, hidden_layers
from sparseflows.pruning.observing.observe import Sample, observe
from sparseflows.pruning.observing.statistics import Statistics
from sparseflows.rng import torch_generator
from sparseflows.specs.methods import Method, criteria

OF_THE_NEXT = ("neuron_shares", "contributions")  # kept at the layer that reads the neurons


def score(
    criterion: str,
    network: nn.Module,
    sample: Sample | None = None,
    *,
    seed: int = 0,
    seen: Sequence[Statistics] | None = None,
) -> dict[str, Tensor]:
    """The scores of a network's weights or neurons, float64; higher stays.

    Args:
        criterion: one of `specs.methods.criteria()`.
        network: a flow, or any module of Linear and Conv2d layers that can be followed.
        sample: rows, and the loss of a classifier; for the criteria that need them.
        seed: of the random criteria.
        seen: what `observe(network, sample)` gave, where it is known already.

    Returns:
        Weights: name of each weight → a tensor of its shape. Neurons: name of each hidden layer's weight → (size,).

    Raises:
        InputError: an unknown criterion, one that needs data without data or a loss without a loss, or a network
            that cannot be followed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = network[0].weight.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.0], [-1.0, 1.0]]))
        >>> score("neuron_l1", network)["0.weight"].tolist()
        [3.0, 0.5, 2.0]
    """
    method = lookup("criterion", criterion, criteria())
    if not isinstance(network, nn.Module):
        raise InputError(f"a {type(network).__name__} cannot be scored; give a flow, or an nn.Module")
    links = [link for chain in chains(network) for link in chain]
    statistics: Sequence[Statistics | None] = [None] * len(links)
    if method.needs_data:
        observed = seen or observe(network, _needed(criterion, method, sample), method.needs == "loss")
        if method.needs == "loss" and observed[0].mean_gradient is None:
            raise InputError(f"criterion '{criterion}' needs the gradient of a loss; give Sample(rows, loss)")
        statistics = observed
    rule = rule_of(method)
    wanted = signature(rule).parameters.keys()
    parameters = dict(network.named_parameters())
    hidden = {layer.link.weight for layer in hidden_layers(network)}
    scores = {}
    for number, (link, own, following) in enumerate(zip(links, statistics, [*statistics[1:], None], strict=True)):
        if method.kind == "neurons" and link.weight not in hidden:
            continue
        weight = parameters[link.weight].detach().double().cpu()
        generator = torch_generator(seed, f"criterion/{criterion}/{number}")
        given: dict[str, object] = {"weight": weight.flatten(1), "generator": generator}
        for name in wanted - given.keys():
            given[name] = getattr(following if name in OF_THE_NEXT else own, name)
        found = rule(*(given[name] for name in wanted))
        scores[link.weight] = found.view(weight.shape) if method.kind == "weights" else found
    return scores


def rule_of(method: Method) -> Callable[..., Tensor]:
    """The function that scores for a method: (…) → (n_out, C) of weights, (n_out,) of neurons."""
    rule: Callable[..., Tensor] = resolve_name(method.rule)
    return rule


def _needed(criterion: str, method: Method, sample: Sample | None) -> Sample:
    if sample is None:
        what = "rows of data" if method.needs == "rows" else "rows of data and the gradient of a loss"
        raise InputError(f"criterion '{criterion}' needs {what}; give sample=Sample(rows, …)")
    if not isinstance(sample, Sample):
        raise InputError(f"sample is a {type(sample).__name__}; wrap the rows as Sample(rows, …)")
    return sample
