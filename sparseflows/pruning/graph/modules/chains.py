"""The chain of weight layers in a module of Linear and Conv2d layers."""

import math

from torch import nn

from sparseflows.errors import InputError
from sparseflows.pruning.graph.chains import Chain, Link, check_owned, constants_of
from sparseflows.pruning.graph.modules.passages import NORMS, Passage, WeightLayer, check_norm
from sparseflows.pruning.graph.modules.trace import ADVICE, Call, straight_calls


def follow(module: nn.Module) -> Chain:
    """The weight layers of `module` from input to output, and what belongs to their neurons.

    Followed is one path of Linear and Conv2d layers. Between two of them may stand batch norm, pointwise
    activations, max and average pooling, dropout, and flatten (`x.flatten(1)`, `x.reshape(x.size(0), -1)`), as
    modules or as functions. Before the first and after the last anything may that has no parameters.

    Args:
        module: traced in eval mode; left as it is.

    Returns:
        Links by the layers' names among the `named_modules`. Their `constants` read the module's parameters and
        running statistics when called: bias → batch norm, activations and pooling in their order; NaN where a
        neuron's map varies over its positions.

    Raises:
        InputError: the module branches, cannot be traced, or holds an operation that cannot be followed.
    """
    before, found = _split(straight_calls(module))
    if not found:
        raise InputError(f"{type(module).__name__} has no Linear or Conv2d layer; {ADVICE}")
    parameters = {name for name, _ in module.named_parameters()}
    _check_names(found, parameters)
    _check_ends(before)
    return tuple(
        _link(own, earlier, parameters, last=own is found[-1])
        for earlier, own in zip([None, *found], found, strict=False)
    )


def _split(calls: list[Call]) -> tuple[list[Call], list[Passage]]:
    """The operations before the first weight layer; each weight layer with its way to the next."""
    starts = [index for index, call in enumerate(calls) if isinstance(call.target, WeightLayer)]
    if not starts:
        return calls, []
    found: list[Passage] = []
    for call in calls[starts[0] : starts[-1] + 1]:
        if isinstance(call.target, WeightLayer):
            found.append(Passage(call, call.target))
        else:
            found[-1].add(call)
    for index, call in enumerate(calls[starts[-1] + 1 :], starts[-1] + 1):
        try:  # batch norms after the last layer own an entry a neuron
            found[-1].add(call)
        except InputError:  # what comes then does not matter
            _check_ends(calls[index:])
            break
    return calls[: starts[0]], found


def _check_ends(calls: list[Call]) -> None:
    for call in calls:
        check_norm(call)
        owns = isinstance(call.target, nn.Module) and any(True for _ in call.target.parameters())
        if owns and not isinstance(call.target, NORMS):
            raise InputError(f"{call.where} has parameters and cannot be followed; {ADVICE}: keep it out of the module")


def _check_names(found: list[Passage], parameters: set[str]) -> None:
    used: set[str] = set()
    for own in found:
        for name in (own.call.name, *own.norms):
            if name in used:
                raise InputError(f"'{name}' is used twice; {ADVICE} that are used once: give each place its own")
            used.add(name)
        check_owned(own.call.where, own.layer, [f"{own.call.name}.weight"], parameters)


def _link(own: Passage, before: Passage | None, parameters: set[str], *, last: bool) -> Link:
    layer, name = own.layer, own.call.name
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise InputError(
            f"{own.call.where} has groups={layer.groups}; {ADVICE} with groups=1: "
            "prune the parts before and after it as modules of their own"
        )
    n_out, n_in, *kernel = layer.weight.shape
    per_neuron = math.prod(kernel)
    if before is not None and not kernel:
        per_neuron = _pixels(own, before)
        n_in //= per_neuron
    bias = None if layer.bias is None else f"{name}.bias"
    vectors = [f"{name}.bias", *(f"{norm}.{kind}" for norm in own.norms for kind in ("weight", "bias"))]
    if before is not None and kernel and (before.flat or not before.conv):
        raise InputError(f"{own.call.where} reads no maps; {ADVICE} in which convolutions come first")
    return Link(
        name=name,
        kind="conv" if kernel else "linear",
        weight=f"{name}.weight",
        vectors=tuple(name for name in vectors if name in parameters),
        n_in=n_in,
        n_out=n_out,
        per_neuron=per_neuron,
        norms=own.norms,
        bias=bias,
        foldable=bias is not None and not _pads_zeros(layer) and (before is None or before.even),
        constants=None if last else constants_of(layer, own.steps),
    )


def _pixels(own: Passage, before: Passage) -> int:
    """Columns of a linear layer that read one neuron of the layer before it."""
    columns, neurons = own.layer.weight.shape[1], before.layer.weight.shape[0]
    if before.conv and not before.flat:
        raise InputError(f"{own.call.where} reads the maps of {before.call.where} row by row: put nn.Flatten() between")
    if columns % neurons or (columns != neurons and not before.conv):
        raise InputError(f"{own.call.where} reads {columns} values of the {neurons} neurons of {before.call.where}")
    return columns // neurons


def _pads_zeros(layer: WeightLayer) -> bool:
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros" or layer.padding == "valid":
        return False
    if layer.padding == "same":
        return any(size > 1 for size in layer.kernel_size)
    return any(layer.padding)
