"""What PyTorch runs when a module is called, beyond the module's own formula: hooks, masks, parametrizations.

Fast paths read a field's tensors and never call its layers. They are right only where a call would do nothing else;
everything else takes `tangents_of_call`, which calls the field as PyTorch does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sparseflows.errors import InputError

AnyModule = TypeVar("AnyModule", bound=nn.Module)

MAKERS = (BasePruningMethod, SpectralNorm, WeightNorm)
"""PyTorch's own hooks that make a weight before a call and change nothing else."""


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` runs the `forward` that `kind` was written with, and nothing else.

    A hook changes what goes in or comes out, or a weight just before (`torch.nn.utils.prune`, the older `weight_norm`);
    a parametrization makes a class of its own, and any subclass may override what `forward` uses; a `forward` may be
    put on the object or into the class. (`kind.formula` is the one that it was written with.)
    """
    state = vars(module)
    return (
        type(module) is kind
        and kind.forward is getattr(kind, "formula", kind.forward)
        and "forward" not in state
        and not (state["_forward_pre_hooks"] or state["_forward_hooks"])
        and not (state["_backward_pre_hooks"] or state["_backward_hooks"])
        and not _has_any_global_hook()
    )


def has_made_weights_only(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of `module` computes what one of `kind` would with the tensors that it has during the call.

    Masks and parametrizations say no more than that; of any other hook nobody knows what it does elsewhere.
    """
    state, own = vars(module), type(module)
    return (
        (own is kind or (hasattr(module, "parametrizations") and own.__bases__ == (kind,)))
        and kind.forward is getattr(kind, "formula", kind.forward)
        and "forward" not in state
        and not state["_forward_hooks"]
        and all(isinstance(hook, MAKERS) for hook in state["_forward_pre_hooks"].values())
        and not _has_any_global_hook()
    )


def tangents_of_call(
    call: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """f(t, z) (B, D) and (∂f/∂z)v (K, B, D) of any call f, for t () or (B, 1), z (B, D) and v (K, B or 1, D), K passes.

    By PyTorch's dual numbers, which leave plain tensors where a hook keeps one; inside transforms of `torch.func`, and
    where dual numbers are in use already, by `torch.func.jvp`, which can be nested. Backward hooks see the gradient of
    the value alone.

    Raises:
        InputError: the field has no derivative of that kind, or hides it.
    """
    hooks = _backward_hooks(call)
    with _hidden(hooks):
        pushed = [_one_tangent(call, t, z, row.expand_as(z)) for row in v]
    value = call(t, z) if hooks and torch.is_grad_enabled() else pushed[0][0]
    return value, torch.stack([tangent for _, tangent in pushed])


def _backward_hooks(call: Callable[[Tensor, Tensor], Tensor]) -> list[dict[int, Any]]:
    """What holds the backward hooks that a call would run; empty where there are none."""
    found = [torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks]
    if isinstance(call, nn.Module):
        found += [held for part in call.modules() for held in (part._backward_hooks, part._backward_pre_hooks)]
    return [held for held in found if held]


@contextmanager
def _hidden(hooks: list[dict[int, Any]]) -> Iterator[None]:
    """Backward hooks out of the way: they change no value, but forward mode does not pass the place of one."""
    before = [dict(held) for held in hooks]
    for held in hooks:
        held.clear()
    try:
        yield
    finally:
        for held, kept in zip(hooks, before, strict=True):
            held.update(kept)


def _one_tangent(call: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        value, tangent = torch.func.jvp(lambda y: call(t, y), (z,), (v,))[:2]
        return value, tangent
    # Enabled by hand: within an autograd.Function, as torchdiffeq's adjoint is, tangents are dropped without a word.
    try:
        with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
            value, tangent = forward_ad.unpack_dual(call(t, forward_ad.make_dual(z, v)))
    except NotImplementedError as error:  # an autograd.Function, or an operation, that has none
        why = " ".join(str(error).split())[:120]
        raise InputError(
            f"the field has no forward-mode derivative, which its divergence needs ({why}); give its autograd.Function "
            "a `jvp`, or the field a method tangents(t, z, v)"
        ) from None
    if tangent is None:
        _check_constant(call, t, z, v, value)
        return value, torch.zeros_like(value)
    return value, tangent


def _check_constant(call: Callable[[Tensor, Tensor], Tensor], t: Tensor, z: Tensor, v: Tensor, value: Tensor) -> None:
    """Raise InputError where a call (B, D) that told no derivative along v (B, D) changes along it all the same."""
    with torch.no_grad():
        moved = call(t, z + v)
    if not torch.allclose(moved, value.detach(), rtol=0, atol=0, equal_nan=True):
        raise InputError(
            "the field changes with z but PyTorch sees no derivative (a detached tensor, NumPy, a quantised layer), so "
            "its divergence would be wrong; write it in differentiable operations, or give it tangents(t, z, v)"
        )


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
