"""What stands between two weight layers of a module, and what it makes of a neuron that is constant."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.pruning.graph.chains import ACTIVATIONS, Step
from sparseflows.pruning.graph.modules.trace import ADVICE, Call, Value

WeightLayer = nn.Linear | nn.Conv2d
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d)
POINTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Identity)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
POOL_FUNCTIONS: dict[Any, tuple[type[nn.Module], str]] = {
    F.max_pool2d: (nn.MaxPool2d, "kernel_size stride padding dilation ceil_mode return_indices"),
    torch.max_pool2d: (nn.MaxPool2d, "kernel_size stride padding dilation ceil_mode"),
    F.avg_pool2d: (nn.AvgPool2d, "kernel_size stride padding ceil_mode count_include_pad divisor_override"),
    F.adaptive_avg_pool2d: (nn.AdaptiveAvgPool2d, "output_size"),
    F.adaptive_max_pool2d: (nn.AdaptiveMaxPool2d, "output_size return_indices"),
}
KNOWN = (
    "batch norm, ReLU, Tanh, Sigmoid, Softplus, SiLU, GELU, LeakyReLU, ELU, "
    "max and average pooling in two dimensions, dropout and flatten"
)


@dataclass
class Passage:
    """A weight layer and the way from it to the next.

    Attributes:
        call: where the way starts.
        layer: the weight layer, which is called there.
        norms: names of the batch norms on the way.
        steps: what the way does to constants, one operation after the other; NaN where that is no constant.
        flat: channels were flattened, so that a neuron is several columns of what follows.
        even: a constant neuron is still the same everywhere at the end, whatever its value.
    """

    call: Call
    layer: WeightLayer
    norms: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    flat: bool = False
    even: bool = True

    @property
    def conv(self) -> bool:
        """Whether the neurons are channels."""
        return isinstance(self.layer, nn.Conv2d)

    def add(self, call: Call) -> None:
        """Go on by one operation.

        Raises:
            InputError: it is not known, or mixes neurons, or uses a tensor of its own.
        """
        target = call.target
        if call.tensors:
            raise InputError(f"{call.where} uses '{call.tensors[0]}' by itself; {ADVICE}: use nn.Linear and nn.Conv2d")
        if isinstance(target, NORMS):
            self._add_norm(call, target)
        elif (pool := _pool(call)) is not None:
            self._add_pool(call, pool)
        elif _is_flatten(call):
            self.flat = True
        elif (step := _pointwise(call)) is not None:
            self.steps += (step,)
        else:
            raise InputError(
                f"{call.where} after {self.call.where} cannot be followed; {ADVICE}, between them {KNOWN}: "
                "use these, or prune the parts before and after it as modules of their own"
            )

    def _add_norm(self, call: Call, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        check_norm(call)
        if self.flat or isinstance(norm, nn.BatchNorm2d) is not self.conv:
            expected = "BatchNorm2d before Flatten" if self.conv else "BatchNorm1d"
            raise InputError(
                f"{call.where} does not norm the neurons of {self.call.where} one by one: put a {expected} there"
            )
        self.norms += (call.name,)
        self.steps += (lambda values: _normed(norm, values),)

    def _add_pool(self, call: Call, pool: nn.Module) -> None:
        if not self.conv or self.flat:
            raise InputError(
                f"{call.where} pools over the neurons of {self.call.where}: pool before Flatten, or leave it out"
            )
        if not _keeps_constants(pool):
            self.even = False
            self.steps += (lambda values: values.masked_fill(values != 0, torch.nan),)


def check_norm(call: Call) -> None:
    """Raise InputError where a batch norm takes its statistics from the batch even in eval mode."""
    if isinstance(call.target, NORMS) and call.target.running_mean is None:
        raise InputError(
            f"{call.where} keeps no running statistics, so examples depend on each other: set track_running_stats=True"
        )


def _normed(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    rows = values.unsqueeze(0)
    return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)[0]


def _pointwise(call: Call) -> Step | None:
    """The function of one value that `call` applies to all; None where it is another operation."""
    target, args, kwargs = call.target, call.args, call.kwargs
    if any(isinstance(value, Value) for value in (*args, *kwargs.values())):
        return None
    if isinstance(target, DROPOUTS) or (target is F.dropout and not _named(call, "p training").get("training", True)):
        return Tensor.clone
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if name not in (*ACTIVATIONS, "contiguous") and not isinstance(target, POINTWISE):
        return None
    function = getattr(Tensor, target, None) if isinstance(target, str) else target
    return None if function is None else lambda values: function(values.clone(), *args, **kwargs)  # some work in place


def _named(call: Call, names: str) -> dict[str, Any]:
    return dict(zip(names.split(), call.args, strict=False)) | call.kwargs


def _pool(call: Call) -> nn.Module | None:
    """The pooling as a module, also where it was a function; None where it is another operation."""
    if isinstance(call.target, POOLS):
        return call.target
    if call.target not in POOL_FUNCTIONS:
        return None
    kind, names = POOL_FUNCTIONS[call.target]
    return kind(**_named(call, names))


def _keeps_constants(pool: nn.Module) -> bool:
    """Does a map that is the same everywhere stay so? Padding with zeros under an average says no."""
    if isinstance(pool, nn.AvgPool2d):
        padded = pool.count_include_pad and pool.padding not in (0, (0, 0), [0, 0])
        return not padded and not pool.ceil_mode and pool.divisor_override is None
    if isinstance(pool, nn.MaxPool2d):  # a window spread by dilation may lie in the padding alone
        return pool.padding in (0, (0, 0), [0, 0]) or pool.dilation in (1, (1, 1), [1, 1])
    return True


def _is_flatten(call: Call) -> bool:
    """Does the operation flatten all but the examples, whatever the size of what it flattens?"""
    if isinstance(call.target, nn.Flatten):
        return (call.target.start_dim, call.target.end_dim) == (1, -1)
    if call.target in (torch.flatten, "flatten"):
        given = {"start_dim": 0, "end_dim": -1, **_named(call, "start_dim end_dim")}
        return (given["start_dim"], given["end_dim"]) == (1, -1)
    if call.target in (torch.reshape, "reshape", "view"):
        shape = call.args[0] if call.args and isinstance(call.args[0], tuple | list) else call.args
        return tuple(shape) == (Value.ROWS, -1)
    return False
