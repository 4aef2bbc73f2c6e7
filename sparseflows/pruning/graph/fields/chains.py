"""The chains of weight layers in a vector field of one's own: any module f(t, z) with Linear layers.

A field may branch: add a residual, concatenate t, gate by another network. So it has several chains. One Linear layer
follows another in a chain where all that reads the first's neurons is the second, through operations that treat
each neuron by itself. The neurons between them can be removed and a constant one can be folded. Whatever else reads a
layer's neurons (a sum, a product, a concatenation, a norm, the field's result) ends its chain: these neurons stay, its
weights can be masked.

A field of one's own, trained by its likelihood, pruned, retrained:

>>> import torch
>>> from torch import nn
>>> import sparseflows as sf
>>> from sparseflows.specs import TrainSpec
>>> from sparseflows.training.loop import Hooks, train
>>> from sparseflows.training.objectives import NegativeLogLikelihood
>>> class Residual(nn.Module):
...     def __init__(self, dim, width=8, inner=12):
...         super().__init__()
...         self.lift, self.head = nn.Linear(dim + 1, width), nn.Linear(width, dim)
...         self.block = nn.Sequential(nn.Linear(width, inner), nn.Tanh(), nn.Linear(inner, width))
...     def forward(self, t, z):
...         h = torch.tanh(self.lift(torch.cat([z, t.expand(len(z), 1)], 1)))
...         return self.head(h + self.block(h))
>>> _ = torch.manual_seed(0)
>>> flow = sf.Flow(Residual(2))
>>> rows = 0.4 * torch.randn(512, 2) + 1.0
>>> loss = NegativeLogLikelihood(sf.Solver("dopri5", 1e-3, 1e-3))
>>> settings = TrainSpec(steps=10, batch=128, lr=0.05)
>>> _ = train(flow, loss, rows, settings, seed=0, purpose="dense")
>>> smaller = sf.prune("structured", sf.unpruned(flow), flow, 200)  # whole neurons: the block's
>>> flow.chain()[0].field.module.block[0], smaller.flow.chain()[0].field.module.block[0]
(Linear(in_features=8, out_features=12, bias=True), Linear(in_features=8, out_features=8, bias=True))
>>> pruned = sf.prune("snip", sf.unpruned(flow), flow, 150, sample=sf.Sample(rows[:32]))  # single weights
>>> keep = Hooks(after_step=pruned.masks.keeper(pruned.flow))
>>> _ = train(pruned.flow, loss, rows, settings, seed=0, purpose="pruned", hooks=keep)
>>> pruned.params, pruned.masks.kept(pruned.flow)
(150, 150)
>>> with torch.no_grad():
...     nll = -pruned.flow.log_prob(rows).mean().item()  # the entropy of the rows' density is 1.01
>>> 0.9 < nll < 1.4
True
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import UninitializedParameter

from sparseflows.errors import InputError
from sparseflows.flow.fields import AutogradField
from sparseflows.pruning.graph.chains import Chain, Link, Step, constants_of
from sparseflows.pruning.graph.fields.trace import Trace, find_dim, traces


@dataclass(frozen=True)
class _Layer:
    name: str  # of the Linear layer within the field
    module: nn.Linear


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
        key: follows[0][key]
        for key in follows[0]
        if all(key in other and other[key][0] == follows[0][key][0] for other in follows)
    }
    used = dict.fromkeys(id(call.weight) for trace in seen for call in trace.linears if id(call.weight) in layers)
    order = [*used, *(key for key in layers if key not in used)]
    read = {following for following, _ in pairs.values()}
    chains = []
    for key in order:
        if key in read:
            continue
        chain = []
        at: int | None = key
        while at is not None:
            following, steps = pairs.get(at, (None, []))
            chain.append(_link(layers[at], prefix, steps, last=following is None))
            at = following
        chains.append(tuple(chain))
    return chains


def why_no_neurons(field: nn.Module, dim: int | None = None) -> str:
    """What reads the neurons of the field's first layer, where none of its neurons can be removed."""
    layers = _layers(field)
    trace = traces(field, find_dim(field, dim))[0]
    for call in trace.linears:
        if id(call.weight) not in layers:
            continue
        value, names = call.output, []
        while (step := trace.reader(value)) is not None and step.apply is not None:
            value = step.output
        names = [step.name.strip("_") for step in trace.readers.get(-1 if value is None else value, [])]
        first = layers[id(call.weight)].name.removeprefix("module.")
        return f"the neurons of '{first}' are read by {' and '.join(names) or 'nothing'}"
    return "none of its Linear layers is evaluated"


def _layers(field: nn.Module) -> dict[int, _Layer]:
    """id of a weight → its layer."""
    parameters = {name for name, _ in field.named_parameters()}
    found: dict[int, _Layer] = {}
    for name, module in field.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        own = name.removeprefix("module.") if isinstance(field, AutogradField) else name
        if isinstance(module.weight, UninitializedParameter):
            raise InputError(f"'{own}' (Linear) has no weights yet: pass one batch through the field first")
        own_tensors = ["weight"] if module.bias is None else ["weight", "bias"]
        if any(f"{name}.{kind}" not in parameters for kind in own_tensors):
            raise InputError(
                f"'{own}' (Linear) shares its weight or bias or computes it (a parametrization); pruning follows "
                "Linear layers that own them: give it its own, or remove the parametrization"
            )
        found[id(module.weight)] = _Layer(name, module)
    if not found:
        kind = type(getattr(field, "module", field)).__name__
        raise InputError(f"the field {kind} has no Linear layer; pruning follows the nn.Linear layers of a field")
    return found


def _next_layers(trace: Trace, layers: dict[int, _Layer]) -> dict[int, tuple[int, list[Step]]]:
    """Weight of a layer → that of the layer which alone reads its neurons, and the operations between the two."""
    calls = [call for call in trace.linears if id(call.weight) in layers]
    times = {id(call.weight): sum(other.weight is call.weight for other in calls) for call in calls}
    found = {}
    for call in calls:
        steps: list[Step] = []
        at = trace.reader(call.output)
        while at is not None and at.apply is not None:
            steps.append(at.apply)
            at = trace.reader(at.output)
        if at is None or at.weight is None or id(at.weight) not in layers or at.weight is call.weight:
            continue
        fits = layers[id(at.weight)].module.in_features == layers[id(call.weight)].module.out_features
        if fits and times[id(call.weight)] == times[id(at.weight)] == 1:
            found[id(call.weight)] = (id(at.weight), steps)
    return found


def _link(layer: _Layer, prefix: str, steps: list[Step], *, last: bool) -> Link:
    name, module = f"{prefix}.{layer.name}", layer.module
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
        constants=None if last else constants_of(module, steps),
    )
