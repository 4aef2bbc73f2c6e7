"""The rows whose mean loss is differentiated: seeded subsets of the training set, disjoint, each with its loss."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from analysis.curvature.losses import NLL, FlowMatchingLoss, MeanLoss
from analysis.runs.study import Study
from analysis.settings import HessianSettings as Settings
from sparseflows.errors import InputError
from sparseflows.flow.model import Flow
from sparseflows.rng import numpy_generator, torch_generator

ROWS = 512  # the published analysis took a tenth of the training points, 1,638: three times the time
DRAWS = 4  # of noise and time, for every row of the flow-matching loss


def rows_for(settings: Settings, rows: int, dim: int) -> int:
    """How many of `rows` training rows the loss is over.

    By default 512, fewer in many dimensions: the exact divergence costs D tangents a row, and the
    default keeps rows · (D + 1) at what it is in two dimensions.

    Raises:
        InputError: more are asked for than there are.
    """
    if settings.subset is not None:
        if settings.subset > rows:
            raise InputError(f"--subset is {settings.subset}, but there are {rows} training rows; ask for fewer")
        return settings.subset
    wanted = ROWS if settings.loss == "flow_matching" else max(64, ROWS * 3 // (dim + 1))
    return min(rows, wanted)


def subsets_of(study: Study, settings: Settings, run_seed: int | None = None) -> list[np.ndarray]:
    """The rows (N, D) of each loss, standardised, in the order of the training set of `run_seed` (None: the first).

    No row is in two of them; where the training set is too small for as many as are asked for, there are fewer.
    """
    splits = study.splits if run_seed is None else study.splits_of(run_seed)
    train = np.asarray(splits.train)
    n = rows_for(settings, *train.shape)
    order = numpy_generator(settings.seed, "hessian/subset").permutation(len(train))
    count = max(1, min(settings.subsets, len(train) // n))
    return [train[np.sort(order[i * n : (i + 1) * n])] for i in range(count)]


def mean_losses(
    study: Study, flow: Flow, settings: Settings, tol: float, run_seed: int | None = None
) -> list[Callable[[], MeanLoss]]:
    """What makes the loss of each subset, in the precision of `flow`, over rows of `run_seed` (None: the first)."""
    like = next(flow.parameters())
    generator = torch_generator(settings.seed, "hessian/draws")

    def of(rows: Tensor) -> MeanLoss:
        if settings.loss == "nll":
            return NLL.of(flow, rows, tol)
        return FlowMatchingLoss.of(rows, study.folder.spec.train.time_power, generator, DRAWS)

    subsets = subsets_of(study, settings, run_seed)
    return [partial(of, torch.as_tensor(rows, dtype=like.dtype, device=like.device)) for rows in subsets]
