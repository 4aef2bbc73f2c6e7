"""What a flow and its calls are given beside the points, checked before anything is computed."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from sparseflows.errors import InputError, lookup
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs.choices import NOISES

EXAMPLE = "Solver('rk4', steps=40)"


def check_options(solver: Any, divergence: Any, noise: Any, generator: Any, chunk: Any) -> None:
    """Check what a call was given beside the points, before anything is computed.

    Raises:
        InputError: no solver, no divergence or noise that is known, no generator of PyTorch's, or no number of rows.
    """
    check_kind("solver", solver, Solver, EXAMPLE)
    check_kind("generator", generator, torch.Generator, "torch.Generator().manual_seed(0)")
    if divergence is None:
        raise InputError(
            "divergence is None, and a density needs it; take exact or hutchinson (to_noise gives z alone)"
        )
    if isinstance(noise, str):
        lookup("noise", noise, dict.fromkeys(NOISES))
    check_chunk(chunk)


def check_chunk(chunk: Any) -> None:
    """Check how many rows are to be solved together.

    Raises:
        InputError: it is no whole number, nor None for all.
    """
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, Integral) or chunk < 0):
        raise InputError(f"chunk is {chunk!r}; rows to solve together are a whole number from 1 on, or None for all")


def check_kind(name: str, given: Any, kind: type, example: str) -> None:
    """Check that an option is left out (None) or of its kind.

    Raises:
        InputError: it is something else.
    """
    if given is not None and not isinstance(given, kind):
        raise InputError(f"{name} is {given!r}; give a {kind.__name__}, as {example}, or leave it out")


def check_parts(fields: Sequence[object], whitening: object) -> None:
    """Check the fields of a flow, and that a whitening (D, D) fits them.

    Raises:
        InputError: there are none, no modules, or those of several dimensions; or the whitening is of another.
    """
    if not fields:
        raise InputError("a flow needs at least one vector field")
    for field in fields:
        if not isinstance(field, nn.Module):
            raise InputError(f"a vector field is an nn.Module f(t, z), not {field!r:.60}; write a class with a forward")
    dims = sorted({d for field in fields if isinstance(d := getattr(field, "dim", None), int)})
    if len(dims) > 1:
        raise InputError(f"the fields are of {' and '.join(map(str, dims))} dimensions; blocks of a flow share one")
    if whitening is None:
        return
    if not isinstance(whitening, Tensor) or whitening.ndim != 2 or whitening.shape[0] != whitening.shape[1]:
        shape = getattr(whitening, "shape", None)
        raise InputError(f"whitening is a {type(whitening).__name__} of shape {shape}; it is a tensor (D, D)")
    if dims and len(whitening) != dims[0]:
        raise InputError(f"whitening has the shape {tuple(whitening.shape)}, the fields have {dims[0]} dimensions")
