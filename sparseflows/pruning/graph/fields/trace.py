"""What a vector field of one's own does to its values, call by call, as seen in a few evaluations.

Not symbolically (`tracing`): a field may ask for the shape of t or the number of rows, and branch on it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import map_aggregate
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparseflows.errors import InputError
from sparseflows.pruning.graph.chains import ACTIVATIONS, Step
from sparseflows.pruning.graph.modules.trace import evaluating

TIMES = (0.0, 0.37, 1.0)  # a field may do other things at other times
ROWS = 3
_FURTHER = (
    "relu6 selu celu mish softsign logsigmoid hardtanh hardsigmoid hardswish tanhshrink sin cos exp expm1 log1p erf "
    "square abs neg pow clone contiguous mul __rmul__ add __radd__ sub __rsub__ div true_divide dropout"
)
POINTWISE = ACTIVATIONS.union(_FURTHER.split())
"""Functions and methods of PyTorch that treat every entry of their one tensor alike."""


@dataclass(frozen=True, eq=False)
class Called:
    """One call of a PyTorch function that read a value of the field.

    Attributes:
        name: of the function.
        weight: of a linear layer: the weight itself.
        output: number of the value that came out; None where no tensor did.
        apply: of a pointwise function: itself; None of others.
    """

    name: str
    weight: Tensor | None
    output: int | None
    apply: Step | None


@dataclass
class Trace:
    """One evaluation.

    Attributes:
        linears: the calls of linear layers, in order.
        readers: number of a value → the calls that read it.
    """

    linears: list[Called] = field(default_factory=list)
    readers: dict[int | None, list[Called]] = field(default_factory=lambda: defaultdict(list))

    def reader(self, call: Called) -> Called | None:
        """The one call that reads what `call` gave; None where there are several, or none."""
        found = self.readers.get(call.output, [])
        return found[0] if len(found) == 1 else None

    def way(self, call: Called) -> tuple[list[Step], Called]:
        """The pointwise operations that what `call` gave goes through, and the last of these calls."""
        steps = []
        while (reader := self.reader(call)) is not None and reader.apply is not None:
            steps.append(reader.apply)
            call = reader
        return steps, call


class _Recorder(TorchFunctionMode):
    """Numbers every tensor that comes out of a call; what works in place makes a new value of its tensor."""

    def __init__(self, start: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.trace = Trace()
        self._held: list[Tensor] = []  # or another tensor might get the id of one that is gone
        self._numbers: dict[int, int] = {}
        for tensor in start:
            self._number(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = [number for tensor in _tensors((args, kwargs)) if (number := self._numbers.get(id(tensor))) is not None]
        result = func(*args, **kwargs)
        outputs = _tensors(result)
        name = getattr(func, "__name__", str(func)).strip()
        if not outputs and name in ("__get__", "__len__", "size", "dim", "numel", "is_floating_point", "ndimension"):
            return result  # shapes and the like
        weight = args[1] if func is F.linear and len(args) > 1 else None
        numbers = [self._number(tensor) for tensor in outputs]
        called = Called(name, weight, numbers[0] if len(numbers) == 1 else None, _pointwise(func, name, args, kwargs))
        for value in set(read):
            self.trace.readers[value].append(called)
        if weight is not None:
            self.trace.linears.append(called)
        return result

    def finish(self, result: Tensor) -> Trace:
        """The trace, in which the result is read by whoever called."""
        number = self._numbers.get(id(result))
        if number is not None:
            self.trace.readers[number].append(Called("the field's result", None, None, None))
        return self.trace

    def _number(self, tensor: Tensor) -> int:
        self._held.append(tensor)
        self._numbers[id(tensor)] = len(self._held)
        return len(self._held)


def _tensors(value: Any) -> list[Tensor]:
    found: list[Any] = []
    map_aggregate(value, found.append)
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def _pointwise(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Step | None:
    if name not in POINTWISE or len(_tensors((args, kwargs))) != 1:
        return None
    place = next((i for i, value in enumerate(args) if isinstance(value, Tensor)), None)
    if place is None or "out" in kwargs:
        return None
    if name == "dropout":
        training = kwargs.get("training", args[2] if len(args) > 2 else True)
        return None if training else Tensor.clone
    return lambda values: func(*args[:place], values.clone(), *args[place + 1 :], **kwargs)


@torch.no_grad()
def traces(module: nn.Module, dim: int) -> list[Trace]:
    """`module` (f(t, z), in eval mode) evaluated at a few times on points (3, `dim`).

    Raises:
        InputError: it cannot be evaluated, or gives something else than rates (3, `dim`).
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    z = torch.randn(ROWS, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    found = []
    with evaluating(module):
        for time in TIMES:
            t = z.new_tensor(time)
            recorder = _Recorder((t, z))
            try:
                with recorder:
                    result = module(t, z)
            except InputError:
                raise
            except Exception as error:  # whatever the user's forward does
                reason = " ".join(str(error).split())[:160]
                raise InputError(f"{_name(module)} cannot be evaluated at points ({ROWS}, {dim}): {reason}") from None
            if not isinstance(result, Tensor) or result.shape != z.shape:
                given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise InputError(f"{_name(module)} gives {given} for points ({ROWS}, {dim}); a field gives their shape")
            found.append(recorder.finish(result))
    return found


def find_dim(module: nn.Module, dim: int | None) -> int:
    """D: `dim` where it is known, else the width of one of the module's Linear layers with which it can be evaluated.

    Raises:
        InputError: it cannot be evaluated with any.
    """
    if dim is not None:
        return dim
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    widths = [*(layer.out_features for layer in reversed(layers)), *(layer.in_features for layer in layers)]
    reason: InputError | None = None
    for width in dict.fromkeys(widths):
        try:
            traces(module, width)
        except InputError as error:
            if reason is None or " gives " in str(error):  # the more telling one
                reason = error
        else:
            return width
    raise InputError(f"{reason}; give the field an attribute dim, D")


def _name(module: nn.Module) -> str:
    return f"the field {type(getattr(module, 'module', module)).__name__}"
