"""PyHessian beside our own products: the same loss, the same survivors, and nothing left behind."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from support.tiny import rows, tiny_flow
from support.truths import generator

from analysis.curvature import pyhessian_check
from analysis.curvature.losses import FlowMatchingLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.pyhessian_check import PROBES, compare, require_pyhessian
from sparseflows.errors import InputError
from sparseflows.pruning.graph.masks import Masks

LOSS = FlowMatchingLoss.of(rows(12), 1.0, generator(), 2)


def operator(threads: int = 1) -> HessianOperator:
    flow = tiny_flow()
    kept = Masks({"blocks.0.field.layers.1.weight": torch.arange(25).view(5, 5) % 3 > 0})
    kept.apply_(flow)
    return HessianOperator(flow, LOSS, Survivors(flow, kept), threads=threads)


@pytest.mark.parametrize("threads", [1, 2])  # one chunk, which PyHessian takes as a batch, or a loader of several
def test_largest_eigenvalue_and_trace_agree(threads):
    pytest.importorskip("pyhessian")
    ours = operator(threads)
    assert len(ours.bounds()) == threads
    matrix = ours.matmat(np.eye(ours.shape[0]))
    eigenvalues, trace = np.linalg.eigvalsh(matrix), float(np.trace(matrix))
    assert eigenvalues[-1] > -eigenvalues[0]  # the largest in magnitude is the largest
    state = torch.get_rng_state()
    values = {"lambda_max": float(eigenvalues[-1]), "trace_se": 0.01 * trace, "seconds": 2.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(ours, values, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert found["lambda_max"] == pytest.approx(eigenvalues[-1], rel=5e-3)
    assert found["lambda_ratio"] == pytest.approx(1, abs=5e-3)
    assert abs(found["trace"] - trace) < 4 * found["trace_se"]
    # Rademacher probes: the variance of one is 2 Σ_{i≠j} h_ij², and the estimate of it from 30 is within a half.
    exact_se = np.sqrt(2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / PROBES)
    assert found["trace_se"] == pytest.approx(exact_se, rel=0.5)
    assert found["trace_probes"] == PROBES
    # At our standard error it would need as many more probes as the square of the ratio says.
    assert found["seconds_at_our_trace_se"] >= found["seconds"] > 0
    assert found["time_ratio"] == pytest.approx(found["seconds_at_our_trace_se"] / 2.0)
    assert all(p.grad is None for p in ours.flow.parameters())
    assert all(chunk.gradients is None for chunk in ours._chunks)


def test_seeds(monkeypatch):
    pytest.importorskip("pyhessian")
    monkeypatch.setattr(pyhessian_check, "PROBES", 2)
    monkeypatch.setattr(pyhessian_check, "ITERATIONS", 2)
    values = {"lambda_max": 1.0, "trace_se": 0.0, "seconds": 1.0}
    ours = operator()
    one, again, other = (compare(ours, values, seed) for seed in (1, 1, 2))
    assert one["trace"] == again["trace"] != other["trace"]
    assert one["time_ratio"] is None  # ours was computed, not estimated


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    with pytest.raises(InputError, match="pip install pyhessian"):
        require_pyhessian()
    with pytest.raises(InputError, match="pip install pyhessian"):
        compare(operator(), {}, 0)
