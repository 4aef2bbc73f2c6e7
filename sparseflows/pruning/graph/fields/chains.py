"""The chains of weight layers in a vector field of one's own: any module f(t, z) with Linear layers.

A field may branch: add a residual, concatenate t, gate by another network. So it has several chains. One Linear layer
follows another in a chain where all that reads the first's neurons is the second, through operations that treat
each neuron by itself. The neurons between them can be removed and a constant one can be folded. Whatever else reads a
layer's neurons (a sum, a product, a concatenation, a norm, the field's result) ends its chain: these neurons stay, its
weights can be masked.
"""

from collections import Counter
from collections.abc import Sequence

from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.fields import AutogradField
from sparseflows.pruning.graph.chains import Chain, Link, Step, check_owned, constants_of
from sparseflows.pruning.graph.fields.trace import Trace, find_dim, traces

Layers = dict[int, tuple[str, nn.Linear]]
"""id of a weight → the name of its layer within the field, and the layer."""


def field_chains(field: nn.Module, prefix: str, dim: int | None = None) -> list[Chain]:
    """The chains of `field`, in the order in which it evaluates their first layers.

    Args:
        field: as a flow holds it; left as it is.
        prefix: of its parameters' names, in front of a dot.
        dim: D; None tries the widths of its layers.

    Raises:
        InputError: it has no Linear layer, cannot be evaluated, or a layer shares its weight or computes it.
    """
    layers = _layers(field)
    seen = traces(field, find_dim(field, dim))
    follows = [_next_layers(trace, layers) for trace in seen]
    pairs = {
        key: (following, steps)
        for key, (following, steps) in follows[0].items()
        if all(key in other and other[key][0] == following for other in follows)
    }
    used = dict.fromkeys(id(call.weight) for trace in seen for call in trace.linears if id(call.weight) in layers)
    read = {following for following, _ in pairs.values()}
    chains = []
    for start in (key for key in used | dict.fromkeys(layers) if key not in read):
        chain: list[Link] = []
        at = start
        while at in pairs:
            following, steps = pairs[at]
            chain.append(_link(*layers[at], prefix, steps))
            at = following
        chains.append((*chain, _link(*layers[at], prefix)))
    return chains


def why_no_neurons(field: nn.Module, dim: int | None = None) -> str:
    """What reads the neurons of the field's first layer, where none of its neurons can be removed."""
    layers = _layers(field)
    trace = traces(field, find_dim(field, dim))[0]
    for call in trace.linears:
        if id(call.weight) not in layers:
            continue
        _, last = trace.way(call)
        names = [reader.name.strip("_") for reader in trace.readers.get(last.output, [])]
        first = layers[id(call.weight)][0].removeprefix("module.")
        return f"the neurons of '{first}' are read by {' and '.join(names) or 'nothing'}"
    return "none of its Linear layers is evaluated"


def _layers(field: nn.Module) -> Layers:
    parameters = {name for name, _ in field.named_parameters()}
    found: Layers = {}
    for name, module in field.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        own = name.removeprefix("module.") if isinstance(field, AutogradField) else name
        kinds = ["weight"] if module.bias is None else ["weight", "bias"]
        check_owned(f"'{own}' (Linear)", module, [f"{name}.{kind}" for kind in kinds], parameters)
        found[id(module.weight)] = (name, module)
    if not found:
        kind = type(getattr(field, "module", field)).__name__
        raise InputError(f"the field {kind} has no Linear layer; pruning follows the nn.Linear layers of a field")
    return found


def _next_layers(trace: Trace, layers: Layers) -> dict[int, tuple[int, list[Step]]]:
    """Weight of a layer → that of the layer which alone reads its neurons, and the operations between the two."""
    times = Counter(id(call.weight) for call in trace.linears)
    once = [call for call in trace.linears if id(call.weight) in layers and times[id(call.weight)] == 1]
    found = {}
    for call in once:
        steps, last = trace.way(call)
        following = trace.reader(last)
        if following in once and following is not None:
            own, reading = layers[id(call.weight)][1], layers[id(following.weight)][1]
            if reading.in_features == own.out_features:
                found[id(call.weight)] = (id(following.weight), steps)
    return found


def _link(own: str, module: nn.Linear, prefix: str, steps: Sequence[Step] | None = None) -> Link:
    """The link of a layer whose neurons pass the `steps` to the next one; None where nothing follows."""
    name = f"{prefix}.{own}"
    bias = None if module.bias is None else f"{name}.bias"
    return Link(
        name=name,
        kind="linear",
        weight=f"{name}.weight",
        vectors=() if bias is None else (bias,),
        n_in=module.in_features,
        n_out=module.out_features,
        bias=bias,
        foldable=bias is not None,
        constants=None if steps is None else constants_of(module, steps),
    )
