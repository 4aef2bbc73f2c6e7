"""What removing neurons buys: measured, dense against shrunk, in one interleaved run."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.specs import FlowSpec

CHUNKS = (1024, 4096, 8192)


@torch.no_grad()
def seconds(flow: Flow, points: torch.Tensor, chunk: int) -> float:
    begun = time.perf_counter()
    flow.log_prob(points, solver=Solver(method="rk4", steps=20), chunk=chunk)
    return time.perf_counter() - begun


@pytest.mark.slow
def test_a_flow_shrunk_by_80_percent_is_twice_as_fast() -> None:
    dense = build_flow(FlowSpec(hidden=[64, 64, 64]), 2, seed=0)
    shrunk = prune("structured", unpruned(dense), dense, round(0.2 * 8642)).flow
    points = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    best = [min(CHUNKS, key=lambda chunk, flow=flow: seconds(flow, points, chunk)) for flow in (dense, shrunk)]
    ratios = [seconds(dense, points, best[0]) / seconds(shrunk, points, best[1]) for _ in range(7)]
    print(f"chunks {best}: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    assert statistics.median(ratios) >= 2
