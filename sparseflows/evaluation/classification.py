"""Accuracy and cross-entropy of a classifier: the one place that computes the reported ones."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.data.splits import Splits
from sparseflows.data.tables.mapped import Rows
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import reporting_solver
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.rng import numpy_generator
from sparseflows.specs import EvaluateSpec
from sparseflows.training.objectives import logits

CHUNK = 4096  # rows at a time


@dataclass(frozen=True)
class Classified:
    """What one stage's row of results.csv says of a classifier.

    Attributes:
        accuracy_test: share of the test rows whose largest logit is their label's.
        loss_test, loss_val: mean cross-entropy, nats.
        n_test: test rows.
        nfe: evaluations of the field in one solve; 1 for a network without an ODE.
    """

    accuracy_test: float
    loss_test: float
    n_test: int
    loss_val: float
    nfe: int


@torch.no_grad()
def logits_of(network: nn.Module, rows: NDArray[np.float64], solver: Solver, dtype: str) -> tuple[Tensor, Status, int]:
    """Logits (N, classes) of rows (N, D), the status of the first solve that failed, and the largest NFE of all.

    A copy is used, as it is at rest (batch norm by its running statistics) and in the precision `dtype`.
    """
    wanted = getattr(torch, dtype)
    at_rest = deep_copy(network).eval().to(wanted)
    points = torch.as_tensor(rows, dtype=wanted, device=next(at_rest.parameters()).device)
    parts, nfe, status = [], 0, Status.DONE
    for part in points.split(CHUNK):
        found, status, evaluations = logits(at_rest, part, solver)
        nfe = max(nfe, evaluations)
        parts.append(found)
        if status is not Status.DONE:
            break
    return torch.cat(parts), status, nfe


def evaluate_classifier(
    network: nn.Module, splits: Splits, settings: EvaluateSpec, data_seed: int
) -> Classified | Status:
    """Accuracy and cross-entropy on the test rows, and the cross-entropy on the validation rows.

    Args:
        network: a flow whose ODE's final state is the logits, or any module that returns them.
        splits: with labels.
        settings: tolerances, precision and `max_rows`, above which `data_seed` chooses the rows.

    Returns:
        The numbers, or the status of the solve that failed.

    Raises:
        InputError: no labels.
    """
    solver = reporting_solver(settings)
    losses, accuracy, nfe, count = {}, 0.0, 0, 0
    for part, rows, labels in (
        ("validation", splits.validation, splits.labels_validation),
        ("test", splits.test, splits.labels_test),
    ):
        if labels is None:
            raise InputError(f"data set '{splits.name}' has no labels to classify; choose another or another objective")
        chosen, own = labelled_subset(rows, labels, settings.max_rows, data_seed, part)
        found, status, nfe = logits_of(network, chosen, solver, settings.dtype)
        if status is not Status.DONE:
            return status
        wanted = torch.as_tensor(own, device=found.device)
        losses[part] = float(F.cross_entropy(found, wanted))
        accuracy, count = float((found.argmax(1) == wanted).double().mean()), len(own)
    return Classified(accuracy, losses["test"], count, losses["validation"], nfe)


def labelled_subset(
    rows: Rows, labels: np.ndarray, at_most: int | None, seed: int, purpose: str
) -> tuple[NDArray[np.float64], np.ndarray]:
    """All rows (N, D) with their labels (N,), or a seeded choice of `at_most` of them, in their order."""
    if at_most is None or len(rows) <= at_most:
        return np.asarray(rows), labels
    chosen = np.sort(numpy_generator(seed, f"evaluate/{purpose}").permutation(len(rows))[:at_most])
    return np.asarray(rows[chosen]), labels[chosen]
