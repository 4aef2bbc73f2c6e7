"""hessian: Hessian-vector products, largest eigenvalue and trace, against PyHessian on the same loss and rows."""

from __future__ import annotations

import contextlib
import gc
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.curvature.losses import NLL
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.spectrum import estimated
from benchmarks.context import Context
from benchmarks.measure import Measurement, in_turns
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.flow.model import Flow
from sparseflows.rng import numpy_generator

TOLERANCE = 1e-4  # of the solve whose steps are held, as `analysis hessian` has it
ROWS_QUICK, ROWS = 128, 512
PROBES, ITERATIONS, EIGENVALUE_TOLERANCE = 30, 200, 1e-4  # of PyHessian
VECTORS = 4  # a repeat


class MeanLossModule(nn.Module):
    """The loss of a flow on its rows, as PyHessian takes it: a module from (unused) inputs to the mean loss."""

    def __init__(self, flow: Flow, loss: NLL) -> None:
        super().__init__()
        self.flow, self.loss = flow, loss

    def forward(self, inputs: Tensor) -> Tensor:
        """The mean loss of all its terms."""
        return self.loss.total(self.flow, slice(0, self.loss.terms)) / self.loss.terms


def run(context: Context) -> list[Measurement]:
    """Seconds a product, in turns; then the whole: largest eigenvalue and trace to the same standard error."""
    n = ROWS_QUICK if context.settings.quick else ROWS
    flow = as_dtype(context.trained_flow, torch.float64).requires_grad_(True)
    loss = NLL.of(flow, context.rows[:n].double(), TOLERANCE)
    operator = HessianOperator(flow, loss, Survivors(flow, {}), threads=context.settings.threads)
    model = MeanLossModule(flow, loss)
    with _without_leak_warning():
        try:
            found = [_products(context, operator, model)]
            _release(model)
            found += _whole(context, operator, model)
        finally:
            _release(model)
    return found


def pyhessian_of(model: MeanLossModule) -> Any:
    """PyHessian's object: it takes the gradient with its graph once."""
    from pyhessian import hessian

    blank = torch.zeros(1)
    return hessian(model, lambda mean, _: mean, data=(blank, blank), cuda=False)


def _products(context: Context, operator: HessianOperator, model: MeanLossModule) -> Measurement:
    from pyhessian.utils import hessian_vector_product

    theirs = pyhessian_of(model)
    vectors = numpy_generator(0, "benchmark/hessian").standard_normal((operator.shape[0], VECTORS))
    parts = [operator.survivors.scatter(torch.from_numpy(column)) for column in vectors.T]

    def products() -> list[Any]:
        return [hessian_vector_product(theirs.gradsH, theirs.params, part) for part in parts]

    its = np.stack([operator.survivors.gather(tuple(product)).numpy() for product in products()], axis=1)
    off = float(np.abs(operator.matmat(vectors) - its).max() / np.abs(its).max())
    ours, peer = in_turns([lambda: operator.matmat(vectors), products], context.settings.repeats, context.part(0, 0.3))
    note = (
        f"{operator.shape[0]:,} params, {model.loss.terms} rows, NFE {model.loss.steps.nfe}, float64; "
        f"the products agree to {off:.0e}"
    )
    return Measurement("hessian", "a product", [t / VECTORS for t in ours], [t / VECTORS for t in peer], note)


def _whole(context: Context, operator: HessianOperator, model: MeanLossModule) -> list[Measurement]:
    """λ_max and trace, once each; and what PyHessian would take to our standard error of the trace, by 1/√n."""
    started = time.perf_counter()
    spectrum = estimated(operator, numpy_generator(0, "benchmark/spectrum"))
    ours = time.perf_counter() - started
    (_, lambda_max), trace = spectrum.extremes, spectrum.trace
    products = trace.products
    operator.forget_graphs()
    context.tell(0.6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        started = time.perf_counter()
        theirs = pyhessian_of(model)
        (top,), _ = theirs.eigenvalues(maxIter=ITERATIONS, tol=EIGENVALUE_TOLERANCE, top_n=1)
        half = time.perf_counter() - started
        probes = np.array(theirs.trace(maxIter=PROBES, tol=-math.inf), dtype=float)  # no early stop
        whole = time.perf_counter() - started
    se = float(probes.std(ddof=1) / math.sqrt(len(probes)))
    scaled = half + (whole - half) * max(1.0, (se / trace.se) ** 2) if trace.se else whole
    note = (
        f"λ_max {lambda_max:.5g} against {top:.5g} (power iteration); "
        f"trace {trace.value:.1f} ± {trace.se:.1f} ({products} products for all) against "
        f"{probes.mean():.1f} ± {se:.1f} "
        f"({PROBES} products); one repeat"
    )
    extra = {"products_ours": products, "trace_se_ours": trace.se, "trace_se_peer": se}
    equal = "extrapolated by 1/√n: what PyHessian's probes would take to our standard error"
    return [
        Measurement("hessian", "λ_max and trace, each its way", [ours], [whole], note, extra=extra),
        Measurement("hessian", "λ_max and trace, equal s.e.", [ours], [scaled], equal, extra=extra),
    ]


def _release(model: nn.Module) -> None:
    """Break the circle that backward(create_graph=True) leaves between params and their gradients' graph."""
    for parameter in model.parameters():
        parameter.grad = None
    gc.collect()


@contextlib.contextmanager
def _without_leak_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True", category=UserWarning)
        yield
