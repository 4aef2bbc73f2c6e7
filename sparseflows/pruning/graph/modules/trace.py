"""What a module does to its input, one operation after the other; networks that branch are refused."""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from torch import fx, nn
from torch.fx.node import map_arg

from sparseflows.errors import InputError

ADVICE = "pruning follows chains of Linear and Conv2d layers"


class Value(Enum):
    """What stands in a call's arguments for something known only when the module runs."""

    DATA = "the value that is passed on"
    ROWS = "its number of examples"
    SIZE = "another of its sizes"


@dataclass(frozen=True)
class Call:
    """One operation.

    Attributes:
        name: of the module as in `named_modules`; empty for a function or a method.
        where: the operation and its place, for messages.
        target: a module, a function, or the name of a tensor's method.
        args, kwargs: all arguments but the first one, the value that is passed on.
        tensors: names of parameters and buffers that the operation reads by itself.
    """

    name: str
    where: str
    target: nn.Module | Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tensors: tuple[str, ...]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in eval mode; every submodule's own flag comes back, whatever happens."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


def straight_calls(module: nn.Module) -> list[Call]:
    """What `module` in eval mode does to its input, in order (symbolic trace by torch.fx).

    Raises:
        InputError: it cannot be traced, takes or returns several tensors, or a value is read twice.
    """
    modules = dict(module.named_modules())
    calls: list[Call] = []
    current: fx.Node | None = None
    sizes: dict[fx.Node, Value] = {}
    tensors: set[fx.Node] = set()
    for node in _graph(module).nodes:
        reads = [n for n in node.all_input_nodes if n not in sizes and n not in tensors]
        if node.op == "placeholder":
            if not node.users:
                continue
            if current is not None:
                raise InputError(f"{type(module).__name__} takes several inputs ({current}, {node}); {ADVICE} of one")
            current = node
        elif node.op == "get_attr":
            tensors.add(node)
        elif node.op == "output":
            if node.args[0] is not current:
                raise InputError(f"{type(module).__name__} returns more than its last layer's output; {ADVICE}")
        elif (size := _size(node, reads, sizes)) is not None:
            sizes[node] = size
        elif current is None or reads != [current]:
            done = "joins two branches" if len(reads) > 1 else "reads a value that another operation reads too"
            raise InputError(f"{_where(node, modules)} {done}; {ADVICE}: prune its branches as modules of their own")
        else:
            calls.append(_call(node, current, modules, sizes, tensors))
            current = node
    return calls


def _graph(module: nn.Module) -> fx.Graph:
    if isinstance(module, nn.Linear | nn.Conv2d):
        raise InputError(f"a {type(module).__name__} alone is no chain of layers: wrap it in nn.Sequential")
    with evaluating(module):
        try:
            return fx.Tracer().trace(module)
        except Exception as error:  # whatever the user's forward does with a stand-in for its input
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{type(module).__name__} cannot be traced ({reason}); {ADVICE}, and what forward does may not "
                "depend on values: take such code out, or prune the parts as modules of their own"
            ) from None


def _where(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """`'fc1' (Linear)`, or `add in 'block2'`."""
    if node.op == "call_module":
        return f"'{node.target}' ({type(modules[str(node.target)]).__name__})"
    inside = list(node.meta.get("nn_module_stack", {}))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{name.strip('_')} in '{inside[-1]}'" if inside and inside[-1] else f"{name.strip('_')} ({node.name})"


def _size(node: fx.Node, reads: list[fx.Node], sizes: dict[fx.Node, Value]) -> Value | None:
    """What `node` is where it computes a size of the value, else None."""
    if node.op == "call_method" and node.target == "size":
        return Value.ROWS if node.args[1:] == (0,) else Value.SIZE
    if node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim"):
        return Value.SIZE
    if reads or not node.all_input_nodes or not all(n in sizes for n in node.all_input_nodes):
        return None
    whole = isinstance(node.args[0], fx.Node) and node.args[0].target in ("size", getattr)
    return Value.ROWS if node.target is operator.getitem and whole and node.args[1] == 0 else Value.SIZE


def _call(
    node: fx.Node, current: fx.Node, modules: dict[str, nn.Module], sizes: dict[fx.Node, Value], tensors: set[fx.Node]
) -> Call:
    def stand_in(argument: fx.Node) -> Any:
        return Value.DATA if argument is current else sizes.get(argument, str(argument.target))

    args, kwargs = map_arg((node.args, node.kwargs), stand_in)
    rest = args[1:] if args and args[0] is Value.DATA else args
    name = str(node.target) if node.op == "call_module" else ""
    target = modules[name] if name else node.target
    own = tuple(str(n.target) for n in node.all_input_nodes if n in tensors)
    return Call(name, _where(node, modules), target, tuple(rest), dict(kwargs), own)
