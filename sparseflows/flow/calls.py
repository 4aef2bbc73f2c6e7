"""What PyTorch runs when a module is called, beyond the module's own formula: hooks, masks, parametrizations.

Fast paths read a field's tensors and never call its layers. They are right only where a call would do nothing else;
everything else takes `tangents_of_call`, which calls the field as PyTorch does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` runs the `forward` of `kind` and nothing else.

    A hook changes what goes in or comes out, or a weight just before (`torch.nn.utils.prune`, the older `weight_norm`);
    a parametrization makes a class of its own; a `forward` may be overridden by a subclass or on the object.
    """
    state = vars(module)
    return (
        type(module).forward is kind.forward
        and "forward" not in state
        and not (state["_forward_pre_hooks"] or state["_forward_hooks"])
        and not (state["_backward_pre_hooks"] or state["_backward_hooks"])
        and "parametrizations" not in state["_modules"]
        and not _has_any_global_hook()
    )


def tangents_of_call(
    call: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """f(t, z) (B, D) and (∂f/∂z)v (K, B, D) of any call f, for t () or (B, 1), z (B, D) and v (K, B or 1, D), K passes.

    By PyTorch's dual numbers, which leave plain tensors where a hook keeps one; inside transforms of `torch.func`, and
    where dual numbers are in use already, by `torch.func.jvp`, which can be nested.
    """
    pushed = [_one_tangent(call, t, z, row.expand_as(z)) for row in v]
    return pushed[0][0], torch.stack([tangent for _, tangent in pushed])


def _one_tangent(call: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        value, tangent = torch.func.jvp(lambda y: call(t, y), (z,), (v,))[:2]
        return value, tangent
    # Enabled by hand: within an autograd.Function, as torchdiffeq's adjoint is, tangents are dropped without a word.
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(call(t, forward_ad.make_dual(z, v)))
    return value, torch.zeros_like(value) if tangent is None else tangent


def deep_copy(module: AnyModule) -> AnyModule:
    """A copy of `module` that shares nothing with it, also where a hook left a tensor with a graph on it.

    `copy.deepcopy` refuses such a tensor (a weight that was masked or normalised when the module last ran); the copy
    holds its value, which the same hook renews when the copy is called.
    """
    return copy.deepcopy(module, values_of_made_tensors(module))


def values_of_made_tensors(module: nn.Module) -> dict[int, Tensor]:
    """Tensors with a graph that lie within `module` as plain attributes: the id of each → a copy (of its shape).

    It serves `copy.deepcopy` as a memo.
    """
    return {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }


def is_same_function(
    one: Callable[[Tensor, Tensor], Tensor], other: Callable[[Tensor, Tensor], Tensor], like: Tensor, dim: int
) -> bool:
    """Whether two fields agree to rounding at some times t () and points (7, `dim`), in the precision of `like` (…)."""
    draws = torch.Generator().manual_seed(0)
    points = 2 * torch.randn(7, dim, generator=draws, dtype=torch.float64).to(like)
    for time in (0.0, 0.37, 1.0):
        t = points.new_tensor(time)
        expected, found = one(t, points), other(t, points)
        if not torch.allclose(expected, found, rtol=1e-5, atol=1e-5 * float(expected.abs().max())):  # of float32
            return False
    return True
