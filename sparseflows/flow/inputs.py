"""What a person gives a flow becomes points in its precision, or one sentence says what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sparseflows.errors import InputError
from sparseflows.flow.transform import Transformed
from sparseflows.specs.choices import FIXED

ON_FAILURE = ("raise", "nan")
# In an array of objects, as of a data frame with several kinds of columns.
NO_NUMBERS = (str, bytes, complex, date, timedelta, np.datetime64, np.timedelta64)


class Carrier(Protocol):
    """What rows are carried by: a flow (`base.BaseFlow`), as the files that it is made of know it."""

    whitening: Tensor | None
    standardiser: object | None

    @property
    def dim(self) -> int | None:
        """The dimension D, where it is known."""
        ...

    @property
    def known_dim(self) -> int | None:
        """The same, also where the whitening or the standardiser says it."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The method of any module."""
        ...

    def double(self) -> Self:
        """The method of any module."""
        ...

    def like(self) -> Tensor:
        """A tensor (…) of its precision and device."""
        ...

    def dimension(self, dim: int | None = None) -> int:
        """The dimension D, or the `dim` that is given."""
        ...

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
        """Standard normal numbers (…) in its precision."""
        ...

    @property
    def transform(self) -> Callable[..., Transformed]:
        """The call that carries points (B, D) one way."""
        ...


def as_rows(flow: Carrier, points: Any) -> tuple[Tensor, bool]:
    """Points (B, D) in the flow's precision, and whether one row (D,) was given alone.

    NumPy arrays, lists, data frames and whole numbers are converted, and so is another precision; entries that are
    masked (`numpy.ma`) are NaN. A tensor keeps its graph.

    Raises:
        InputError: no real numbers (text, dates, truth values), another shape than the flow takes, or another device.
    """
    like = next(flow.parameters(), None)
    tensor = (
        points if isinstance(points, Tensor) else _tensor(points, flow.like().device if like is None else like.device)
    )
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise InputError("points are a sparse, nested or quantised tensor; give a dense one (B, D), as by to_dense()")
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise InputError(f"points have dtype {tensor.dtype}; the flow takes real numbers")
    if like is not None and tensor.device != like.device:
        raise InputError(f"points are on the device {tensor.device}, the flow on {like.device}; points.to(...) it")
    if like is None or tensor.dtype is not like.dtype:
        own = next((p.dtype for p in flow.parameters() if p.is_floating_point()), None)
        tensor = tensor.to(own or (tensor.dtype if tensor.is_floating_point() else torch.get_default_dtype()))
    dim = flow.known_dim
    alone = tensor.ndim == 1 and len(tensor) == dim
    if alone:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 2 or tensor.numel() == 0 or (dim is not None and tensor.shape[1] != dim):
        wanted = f"(B, {dim})" if dim else "(B, D)"
        raise InputError(f"points have shape {tuple(tensor.shape)}; the flow takes {wanted}, B at least 1")
    return tensor, alone


def _tensor(points: Any, device: torch.device) -> Tensor:
    kind = type(points).__name__
    try:
        array = np.asarray(points)
        if array.dtype.kind == "O":
            wrong = next((value for value in array.flat if isinstance(value, NO_NUMBERS)), None)
            if wrong is not None:
                raise TypeError(f"{wrong!r} is none")
        elif array.dtype.kind not in "fiu":
            raise TypeError(f"dtype {array.dtype}")
        array = np.array(array, dtype=array.dtype if array.dtype.kind in "iu" else np.float64, order="C")
        if np.ma.isMaskedArray(points) and bool(np.ma.getmaskarray(points).any()):
            array = np.where(np.ma.getmaskarray(points), np.nan, array)
        return torch.tensor(array.astype(array.dtype.newbyteorder("=")), device=device)
    except (TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(
            f"points are a {kind} without real numbers only ({why}); give a tensor or array (B, D)"
        ) from None


def check_on_failure(on_failure: str) -> None:
    """Check the name of what is done with rows that cannot be solved.

    Raises:
        InputError: it is none.
    """
    if on_failure not in ON_FAILURE:
        raise InputError(f"unknown on_failure '{on_failure}' (known: {', '.join(ON_FAILURE)})")


def check_count(n: Any) -> int:
    """The number of samples that was asked for.

    Raises:
        InputError: it is no whole number from 0 on.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise InputError(f"n is {n!r}; a number of samples is a whole number, 0 or more")
    return int(n)


def check_transforms(method: str) -> None:
    """Check that no transform of `torch.func` is at work that the solver `method` cannot pass through.

    Raises:
        InputError: vmap (jacfwd and hessian use it), since a solve depends on the numbers of all rows; any other with
            an adaptive method, since torchdiffeq's have a step of their own that `torch.func` refuses.
    """
    stack = torch._C._functorch.get_interpreter_stack() or []
    if any(level.key() == torch._C._functorch.TransformType.Vmap for level in stack):
        raise InputError(
            "a flow takes all rows (B, D) at once and cannot be mapped over them (torch.func.vmap, jacfwd, hessian); "
            "give it the batch, and take torch.autograd.grad of the sum of log_prob: a row's part depends on it alone"
        )
    if (stack or forward_ad._current_level >= 0) and method not in FIXED:
        raise InputError(
            f"torch.func's transforms do not pass through {method}; take torch.autograd.grad (with create_graph=True "
            f"for a second derivative), or a solver of fixed steps: Solver('rk4', steps=40)"
        )
