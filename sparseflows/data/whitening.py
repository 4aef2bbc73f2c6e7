"""A linear map that whitens rows: the fixed first step of a flow with `data.whiten`."""

import numpy as np
import torch
from torch import Tensor


def whitening_matrix(rows: np.ndarray, centred: bool = False) -> Tensor:
    """C^(−1/2) of the rows' covariance C, shrunk as Ledoit and Wolf (2004).

    Args:
        rows: (N, D).
        centred: their mean is 0, and is not taken off again.

    Returns:
        (D, D), float64, symmetric.
    """
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(rows, assume_centered=centred)
    values, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy(vectors @ np.diag(values**-0.5) @ vectors.T)
