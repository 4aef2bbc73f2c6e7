"""Rows that weigh differently, drawn so that batches need not know: row i is w_i copies, a fraction by chance."""

import torch
from torch import Tensor


def draw_copies(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Row numbers (N,), as many as there are weights, in which row i is there N w_i / Σw times on average.

    This is systematic sampling (Madow 1949): N equally spaced points, with one common random offset, fall on the
    weights laid end to end. Row i is there ⌊N w_i / Σw⌋ or ⌈N w_i / Σw⌉ times, so the variance of its count is at most
    ¼; of rows drawn independently it would be about the mean. The weights are laid in a random order, so that which
    rows come together is not a matter of the order they were given in.

    Args:
        weights: (N,), at least 0, not all 0.
        generator: of the offset and the order; on the CPU.

    Example:
        >>> drawn = draw_copies(torch.tensor([2.0, 0.0, 1.0, 1.0]), torch.Generator().manual_seed(0))
        >>> drawn.sort().values.tolist()
        [0, 0, 2, 3]
    """
    n = len(weights)
    order = torch.randperm(n, generator=generator)
    ends = weights.to(torch.float64)[order].cumsum(0)
    points = (torch.arange(n) + torch.rand((), generator=generator, dtype=torch.float64)) / n * ends[-1]
    last = int(torch.searchsorted(ends, ends[-1]))  # rounding may lead a point to the very end
    return order[torch.searchsorted(ends, points, right=True).clamp(max=last)]
