"""The loss along leading eigenvectors of its Hessian, beside the parabola that the eigenvalue promises."""

import math

import numpy as np
import torch

from analysis.curvature.operators import HessianOperator

POINTS = 41
RISE = 1.0  # nats, by which the parabola rises to both ends


def loss_along(operator: HessianOperator, vectors: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    """The mean loss at θ + a v for the unit vectors v, the columns of `vectors` (P, k), of eigenvalues `values` (k,).

    a goes to ±√(2/|λ|), where the parabola λa²/2 rises or falls by 1 nat. The arrays: `along_steps` (k, 41),
    `along_losses` (k, 41), NaN where the loss is not finite, `along_values` (k,). The params are put back.
    """
    flow, survivors = operator.flow, operator.survivors
    before = {name: p.detach().clone() for name, p in survivors.parameters.items()}
    ends = [math.sqrt(2 * RISE / abs(value)) if value else 1.0 for value in values]
    steps = np.stack([np.linspace(-end, end, POINTS) for end in ends]) if len(ends) else np.empty((0, POINTS))
    losses = np.full(steps.shape, np.nan)
    chosen = slice(0, operator.loss.terms)
    try:
        for row, vector in enumerate(vectors.T):
            like = next(iter(before.values()))
            towards = survivors.scatter(torch.as_tensor(vector, dtype=like.dtype, device=like.device))
            for column, step in enumerate(steps[row]):
                with torch.no_grad():
                    for (name, p), direction in zip(survivors.parameters.items(), towards, strict=True):
                        p.copy_(before[name] + step * direction)
                    value = float(operator.loss.total(flow, chosen)) / operator.loss.terms
                losses[row, column] = value if math.isfinite(value) else math.nan
    finally:
        with torch.no_grad():
            for name, p in survivors.parameters.items():
                p.copy_(before[name])
    return {"along_steps": steps, "along_losses": losses, "along_values": np.asarray(values, dtype=np.float64)}
