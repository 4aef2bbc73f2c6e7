"""Neurons taken out of the layers of a network, and what may be put into the next bias for them."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.fields import TENSORS
from sparseflows.pruning.graph.chains import Chain, Link
from sparseflows.pruning.graph.groups import Keep, check_keep
from sparseflows.pruning.graph.modules.passages import NORMS


def cut_chain(network: nn.Module, chain: Chain, keep: Keep) -> None:
    """Take the neurons not in `keep`, a bool tensor (n_out,) for every layer but the last, out of a chain's layers.

    Rows, biases, time gates, entries of batch norms and next columns are cut out of `network`, in place.
    """
    for link, rows, columns in zip(chain, [*keep, None], [None, *keep], strict=True):
        if columns is not None:
            read = columns if link.kind == "conv" else columns.repeat_interleave(link.per_neuron)
            _cut(network.get_submodule(link.name), "weight", read, dim=1)
        for owner in map(network.get_submodule, (link.name, *link.norms)):
            if rows is not None:
                for name in (*TENSORS, "running_mean", "running_var"):
                    _cut(owner, name, rows)
            _note_sizes(owner)


def compensate(module: nn.Module, keep: Keep, means: Sequence[Tensor]) -> nn.Module:
    """A copy of `module` in which the next biases take up the removed neurons' mean activation: b + Σ_removed w ā.

    One layer's neurons removed, the mean of every next pre-activation over the sample of the means is unchanged.
    With several layers at once the means are those of the whole network.

    Args:
        module: left as it is.
        keep: as in `structured.shrink`, which is to be called on the copy.
        means: for every weight layer but the first the mean input of each column of its weight matrix
            (n_in · per_neuron,), over examples and positions (`Statistics.means`).

    Raises:
        InputError: `keep` or `means` do not fit, or the next layer of a removed neuron has no bias.
    """
    layers = check_keep(module, keep)
    if len(means) != len(layers):
        raise InputError(f"means has {len(means)} layers; {len(layers)} read another one's neurons")
    shifted = copy.deepcopy(module)
    for layer, kept, mean in zip(layers, keep, means, strict=True):
        link = layer.next_link
        if mean.shape != (link.n_in * link.per_neuron,) or not bool(torch.isfinite(mean).all()):
            raise InputError(f"means of {link.name} must be finite, of shape ({link.n_in * link.per_neuron},)")
        if kept.all():
            continue
        if link.bias is None:
            raise InputError(f"{link.name} has no bias that could take up the means of {layer.name}'s removed neurons")
        _shift(shifted, link, ~kept, mean.reshape(link.n_in, link.per_neuron))
    return shifted


@torch.no_grad()
def _shift(module: nn.Module, link: Link, neurons: Tensor, inputs: Tensor) -> None:
    """Add Σ w · `inputs` (n_in, per_neuron) over the `neurons` before `link` to its bias."""
    assert link.bias is not None
    weight = module.get_parameter(link.weight)
    neurons = neurons.to(weight.device)
    read = weight.reshape(link.n_out, link.n_in, link.per_neuron)[:, neurons]
    module.get_parameter(link.bias).add_(read.flatten(1) @ inputs.to(weight)[neurons].flatten())


def _cut(owner: nn.Module, name: str, chosen: Tensor, dim: int = 0) -> None:
    old = getattr(owner, name, None)
    if old is None:
        return
    kept = chosen.to(old.device)
    new = old.detach()[kept] if dim == 0 else old.detach()[:, kept]
    setattr(owner, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _note_sizes(layer: nn.Module) -> None:
    """Let the layer's attributes say what its tensors' shapes say."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = layer.weight.shape[:2]
    elif isinstance(layer, NORMS) and layer.running_mean is not None:
        layer.num_features = len(layer.running_mean)
