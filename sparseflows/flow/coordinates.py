"""The way between the data's own coordinates and a flow's, there and back, with the slope that a density has there."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparseflows.data.transforms.maps import Map
from sparseflows.data.transforms.transformed import TransformedStandardiser
from sparseflows.errors import InputError


class Arrived(NamedTuple):
    """Rows in the flow's coordinates: n of N that were given.

    Attributes:
        rows: (n, D).
        log_slope: log |∂w/∂x| (n,), or () where it is the same everywhere: log p(x) = log p(w) + log |∂w/∂x|.
        taken: which (N,) of the rows they are; the others have density 0. None: all.
    """

    rows: Tensor
    log_slope: Tensor
    taken: Tensor | None


class OwnCoordinates(Protocol):
    """The data's own coordinates x, and the flow's, w."""

    def arrive(self, x: Tensor, dtype: torch.dtype) -> Arrived:
        """Own rows (N, D) in the flow's coordinates and precision; gradients pass."""

    def leave(self, rows: Tensor) -> Tensor:
        """The flow's rows (N, D) in own coordinates (N, D); gradients pass."""

    def log_slope(self, rows: Tensor) -> Tensor:
        """log |∂w/∂x| at rows (N, D) of the flow's coordinates: (N,), or () where it is the same everywhere."""


class Standardised(NamedTuple):
    """w = (x − shift)/scale, both (D,) float64; rows as in `OwnCoordinates`."""

    shift: Tensor
    scale: Tensor

    def arrive(self, x: Tensor, dtype: torch.dtype) -> Arrived:
        """See `OwnCoordinates`."""
        x = x.double()  # far from 0 the rows may not be told apart in the flow's precision
        rows = ((x - self.shift.to(x)) / self.scale.to(x)).to(dtype)
        return Arrived(rows, self.log_slope(rows), None)

    def leave(self, rows: Tensor) -> Tensor:
        """See `OwnCoordinates`."""
        return rows * self.scale.to(rows) + self.shift.to(rows)

    def log_slope(self, rows: Tensor) -> Tensor:
        """See `OwnCoordinates`: the same everywhere, ()."""
        return -self.scale.to(rows).log().sum()


class Mapped:
    """w = (map(x) − shift)/scale for rows x (N, D), the maps column by column.

    All is float64: near the end of a logit float32 has no numbers left.
    """

    def __init__(self, standardiser: TransformedStandardiser) -> None:
        self.standardiser = standardiser
        self.inner = Standardised(*(torch.from_numpy(part) for part in _parts(standardiser.inner)))

    def arrive(self, x: Tensor, dtype: torch.dtype) -> Arrived:
        """See `OwnCoordinates`; a row that a map does not take is left out, one that holds NaN is not."""
        x = x.double()
        tried = _by_numpy(self.standardiser.try_apply, x)
        taken = torch.isfinite(tried).all(1) | torch.isnan(x).any(1)
        y = self._columns(x[taken], back=False)  # of these alone, or the gradient of the others were NaN
        return Arrived(self.inner.arrive(y, torch.float64).rows.to(dtype), self._log_slope(y), taken)

    def leave(self, rows: Tensor) -> Tensor:
        """See `OwnCoordinates`."""
        return self._columns(self.inner.leave(rows.double()), back=True)

    def log_slope(self, rows: Tensor) -> Tensor:
        """See `OwnCoordinates`."""
        return self._log_slope(self.inner.leave(rows.double()))

    def _columns(self, x: Tensor, back: bool) -> Tensor:
        columns = list(x.unbind(1))
        for place, one in self.standardiser.maps:
            columns[place] = cast(Tensor, _Through.apply(columns[place], one, back))
        return torch.stack(columns, dim=1)

    def _log_slope(self, y: Tensor) -> Tensor:
        """log |∂w/∂x| (N,) at what the maps give, y (N, D)."""
        total = self.inner.log_slope(y)
        for place, one in self.standardiser.maps:
            total = total + cast(Tensor, _LogSlope.apply(y[:, place], one))
        return total


def coordinates_of(statistics: object) -> OwnCoordinates:
    """The way to the data's own coordinates that a flow's `standardiser` says: shift and scale, and maps or none.

    Raises:
        InputError: there is none.
    """
    if isinstance(statistics, TransformedStandardiser):
        return Mapped(statistics)
    shift, scale = getattr(statistics, "shift", None), getattr(statistics, "scale", None)
    if shift is None or scale is None:
        raise InputError(
            'coordinates="data" needs the statistics of the data, and this flow has no standardiser; '
            'load it from a run, set flow.standardiser, or take coordinates="standardised"'
        )
    return Standardised(torch.as_tensor(shift, dtype=torch.float64), torch.as_tensor(scale, dtype=torch.float64))


class _Through(torch.autograd.Function):
    """Values (N,) of a column through a map, or back, in float64; their slopes are known."""

    @staticmethod
    def forward(x: Tensor, one: Map, back: bool) -> Tensor:
        """The map's own numbers, to the bit those that `sparseflows score` takes."""
        return _by_numpy(one.invert if back else one.apply, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, bool], output: Tensor) -> None:
        """Keep the points of the line, where the slopes are known."""
        x, ctx.one, ctx.back = inputs
        ctx.dtype = x.dtype
        ctx.save_for_backward(x if ctx.back else output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient times dy/dx, or dx/dy; it can be differentiated once more."""
        (line,) = ctx.saved_tensors
        log_slope = _LogSlope.apply(line.double(), ctx.one)
        return (grads[0] * (-log_slope if ctx.back else log_slope).exp()).to(ctx.dtype), None, None


class _LogSlope(torch.autograd.Function):
    """log dy/dx (N,) at points (N,) of the line of a map, in float64."""

    @staticmethod
    def forward(y: Tensor, one: Map) -> Tensor:
        """The map's own numbers."""
        return _by_numpy(one.log_slope, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map], output: Tensor) -> None:
        """Keep the points."""
        y, ctx.one = inputs
        ctx.save_for_backward(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient times the map's bend."""
        (y,) = ctx.saved_tensors
        return grads[0] * _by_numpy(ctx.one.bend, y), None


def _by_numpy(function: Any, values: Tensor) -> Tensor:
    with np.errstate(all="ignore"):
        found = np.asarray(function(values.detach().double().cpu().numpy()), dtype=np.float64)
    return torch.from_numpy(np.ascontiguousarray(found)).to(values.device)


def _parts(statistics: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(statistics.shift, dtype=np.float64), np.asarray(statistics.scale, dtype=np.float64)
