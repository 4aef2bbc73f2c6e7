"""A linear map that whitens rows: the fixed first step of a flow with `data.whiten`."""

import numpy as np
import torch
from torch import Tensor


def whitening_matrix(rows: np.ndarray) -> Tensor:
    """C^(−1/2) of the rows' covariance C, shrunk as Ledoit and Wolf (2004).

    Args:
        rows: (N, D).

    Returns:
        (D, D), float64, symmetric.
    """
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(rows)
    values, vectors = np.linalg.eigh(covariance)
    return torch.from_numpy(vectors @ np.diag(values**-0.5) @ vectors.T)
