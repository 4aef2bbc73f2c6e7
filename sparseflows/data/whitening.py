"""A linear map that whitens rows: the fixed first step of a flow with `data.whiten`."""

import numpy as np
import torch
from torch import Tensor


def whitening_matrix(rows: np.ndarray, weights: np.ndarray | None = None) -> Tensor:
    """C^(−1/2) of the rows' covariance C, shrunk as Ledoit and Wolf (2004).

    With weights, C is the weighted covariance: that of the rows (x − mean) √w, which have the mean 0. Its shrinkage is
    the stronger, the more unequal the weights are, as fewer rows then make it up.

    Args:
        rows: (N, D).
        weights: (N,), above 0, with the mean 1; None: all rows weigh the same.

    Returns:
        (D, D), float64, symmetric.
    """
    from sklearn.covariance import ledoit_wolf

    if weights is None:
        covariance, _ = ledoit_wolf(rows)
    else:
        offsets = rows - np.average(rows, axis=0, weights=weights)
        covariance, _ = ledoit_wolf(offsets * np.sqrt(weights)[:, None], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy(vectors @ np.diag(values**-0.5) @ vectors.T)
