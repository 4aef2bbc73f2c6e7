"""What sipp and pfp promise of a layer's output, beside the error that is observed, layer by layer.

The layer is looked at by itself: its inputs are those of the unpruned network. Errors are relative, as in `bounds`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from sparseflows.pruning.scoring.bounds import FRESH, observed_error


@dataclass(frozen=True)
class Promise:
    """One layer after pruning.

    Attributes:
        layer: name of its weight.
        promised, observed: largest over its neurons on the sample; random choices promise with probability 1 − δ,
            δ = 0.05.
        mean_promised, mean_observed: means over the neurons, of the largest over the sample.
        kept: whether every neuron kept its promise on the sample.
        fresh_promised, fresh_observed: largest over the neurons on rows that were not in the sample, under the
            assumption of `bounds.FRESH`; None without such rows.
        fresh_kept: share of the fresh inputs at which all neurons kept it.
    """

    layer: str
    promised: float
    observed: float
    mean_promised: float
    mean_observed: float
    kept: bool
    fresh_promised: float | None = None
    fresh_observed: float | None = None
    fresh_kept: float | None = None


def promise_of(
    layer: str,
    before: Tensor,
    after: Tensor,
    inputs: Tensor,
    promised: Callable[[float], Tensor],
    fresh: Tensor | None = None,
) -> Promise:
    """Promise and observation at one layer.

    Args:
        layer: its name.
        before, after: its matrix (n_out, C), unpruned and pruned (reweighted too).
        inputs: of the sample, (X, C).
        promised: inflation → relative error promised to each neuron, (n_out,).
        fresh: inputs of other rows, (Y, C).
    """
    own, seen = promised(1.0), observed_error(before, after, inputs)
    slack = 1e-9  # rounding of sums of some hundred terms in float64
    found = Promise(
        layer,
        float(own.max()),
        float(seen.max()),
        float(own.mean()),
        float(seen.amax(0).mean()),
        bool((seen <= own + slack).all()),
    )
    if fresh is None:
        return found
    wide, others = promised(FRESH), observed_error(before, after, fresh)
    held = (others <= wide + slack).all(1).double().mean()
    return replace(found, fresh_promised=float(wide.max()), fresh_observed=float(others.max()), fresh_kept=float(held))
