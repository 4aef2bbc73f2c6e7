"""PyHessian on the same loss and the same surviving params: the cross-check for the largest eigenvalue and the trace.

PyHessian 0.1 serves as a check, not as the engine: its top eigenvalue is the largest in magnitude, its
trace is plain Hutchinson, and every product needs the graph of the whole gradient at once.
"""

import gc
import importlib.util
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.curvature.operators import HessianOperator
from sparseflows.errors import InputError

PROBES = 30  # for its trace; its own stopping rule (two means agree) is off: tol = -inf
ITERATIONS, TOLERANCE = 200, 1e-4  # of its power iteration


class _OnSurvivors(nn.Module):
    """The loss of some terms as a module whose only param is the vector of the survivors."""

    def __init__(self, operator: HessianOperator) -> None:
        super().__init__()
        self._operator = [operator]  # in a list: its flow must not register its own params here
        survivors = operator.survivors
        self.vector = nn.Parameter(survivors.gather(tuple(p.detach() for p in survivors.parameters.values())))

    def forward(self, terms: Tensor) -> Tensor:
        """Mean loss of the terms from the first to the last of the index tensor `terms`."""
        operator = self._operator[0]
        names = [f"flow.{name}" for name in operator.survivors.parameters]
        values = dict(zip(names, operator.survivors.scatter(self.vector), strict=True))
        chosen = slice(int(terms[0]), int(terms[-1]) + 1)
        total: Tensor = torch.func.functional_call(_Total(operator), values, (chosen,))
        return total / len(terms)


class _Total(nn.Module):
    def __init__(self, operator: HessianOperator) -> None:
        super().__init__()
        self.flow, self.loss = operator.flow, operator.loss

    def forward(self, chosen: slice) -> Tensor:
        return self.loss.total(self.flow, chosen)


def require_pyhessian() -> None:
    """Raise InputError where PyHessian is not installed."""
    if importlib.util.find_spec("pyhessian") is None:
        raise InputError("--check pyhessian needs PyHessian: pip install pyhessian")


def compare(operator: HessianOperator, ours: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """PyHessian's largest eigenvalue and trace beside ours.

    It takes over the loss, survivors and chunks of `operator`; `ours` has `lambda_max`, `trace_se` and `seconds`.
    `seed` is that of its draws, which come from PyTorch's global generator; that is put back afterwards. `lambda_ratio`
    is its value over ours, `seconds_at_our_trace_se` its time had it gone on to our standard error, by 1/√n (None where
    ours is 0), `time_ratio` that over our time.

    Raises:
        InputError: PyHessian is not installed.
    """
    require_pyhessian()
    from pyhessian import hessian

    model = _OnSurvivors(operator)
    chunks = [torch.arange(start, stop) for start, stop in operator.bounds()]
    batches = [(chunk, torch.zeros(len(chunk))) for chunk in chunks]
    data = {"data": batches[0]} if len(batches) == 1 else {"dataloader": batches}
    operator.forget_graphs()  # only one of the two may fill the memory
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PyTorch warns that backward(create_graph=True) leaks; the reference is broken below.
        warnings.filterwarnings("ignore", r"Using backward\(\) with create_graph=True", UserWarning)
        torch.manual_seed(seed)
        started = time.perf_counter()
        its = hessian(model, lambda mean, _: mean, cuda=False, **data)
        (top,), _ = its.eigenvalues(maxIter=ITERATIONS, tol=TOLERANCE, top_n=1)
        eigenvalue_seconds = time.perf_counter() - started
        probes = np.array(its.trace(maxIter=PROBES, tol=-math.inf), dtype=float)
        seconds = time.perf_counter() - started
    model.vector.grad = None  # a gradient with a graph holds its own param: a leak otherwise
    del its
    gc.collect()
    se = float(probes.std(ddof=1) / math.sqrt(len(probes)))
    at_ours = None
    if ours["trace_se"] > 0:
        at_ours = eigenvalue_seconds + (seconds - eigenvalue_seconds) * max(1.0, (se / ours["trace_se"]) ** 2)
    return {
        "lambda_max": float(top),
        "lambda_ratio": float(top) / ours["lambda_max"] if ours["lambda_max"] else None,
        "trace": float(probes.mean()),
        "trace_se": se,
        "trace_probes": len(probes),
        "seconds": seconds,
        "seconds_at_our_trace_se": at_ours,
        "time_ratio": None if at_ours is None else at_ours / ours["seconds"],
    }
