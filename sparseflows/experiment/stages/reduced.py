"""A narrower dense network of a wanted size: what a pruned one of that size has to beat."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from sparseflows.experiment.plan import dense_params, with_widths
from sparseflows.specs import Spec


def narrowed(spec: Spec, dim: int, classes: int | None, target: int) -> Spec:
    """`spec` with every hidden layer narrower by one factor, so that its dense params are nearest to `target`.

    Args:
        spec: the experiment.
        dim: D.
        classes: of the labels, for classifiers.
        target: params wanted. Widths below 1 are 1.
    """
    widths = sorted({width for layer in _widths(spec) for width in _steps(layer)})
    tried = [with_widths(spec, functools.partial(_narrower, factor)) for factor in widths]
    return min(tried, key=lambda one: abs((dense_params(one, dim, classes) or 0) - target))


def _widths(spec: Spec) -> Sequence[int]:
    return spec.flow.hidden if spec.network is None else [*spec.network.channels, *spec.network.hidden]


def _steps(width: int) -> list[float]:
    """Factors at, and on either side of, each at which a layer of `width` loses one more neuron."""
    edges = [(kept + 0.5) / width for kept in range(width)]
    return [edge * (1 + sign * 1e-9) for edge in edges for sign in (-1, 0, 1)]


def _narrower(factor: float, width: int) -> int:
    return max(1, round(factor * width))
