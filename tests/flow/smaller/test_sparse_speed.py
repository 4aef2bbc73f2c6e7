"""What pruning saves in seconds on MINIBOONE's field: neurons removed, and zeros that are not multiplied.

Everything is timed in pairs that follow one another, the order changing from pair to pair, and judged by the
median ratio. Counted is the processor time of the one thread, which is what the wall clock shows on an idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch

from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.sparse import BREAK_EVEN
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.specs import FlowSpec

SOLVER = Solver(method="rk4", steps=1)  # more steps cost the same each
DIM, ROWS = 43, 128

pytestmark = pytest.mark.slow


def miniboone(width: int = 860, dim: int = DIM) -> Flow:
    settings = FlowSpec(hidden=[width, width], activation="softplus", time="concat_squash")
    return build_flow(settings, dim, seed=0)


def with_zeros(flow: Flow, shares: list[float]) -> Flow:
    """The smallest weights of every matrix at 0, a share of each."""
    with torch.no_grad():
        for layer, share in zip(next(flow.fields()).linear_layers(), shares, strict=True):
            entries = layer.weight.view(-1)
            entries[entries.abs().argsort()[: round(share * len(entries))]] = 0.0
    return flow


def work(flow: Flow, way: str = "log_prob", chunk: int = 64, dim: int = DIM) -> Callable[[], None]:
    dtype = next(flow.parameters()).dtype
    points = torch.randn(ROWS, dim, generator=torch.Generator().manual_seed(0), dtype=dtype)

    def run() -> None:
        with torch.no_grad():
            for part in points.split(chunk):
                flow.log_prob(part, solver=SOLVER) if way == "log_prob" else flow.to_data(part, solver=SOLVER)

    return run


def seconds(function: Callable[[], None]) -> float:
    begun = time.thread_time()
    function()
    return time.thread_time() - begun


def quickest(function: Callable[[], None], runs: int = 3) -> float:
    return min(seconds(function) for _ in range(runs))


def times_as_fast(slow: Callable[[], None], fast: Callable[[], None], label: str, pairs: int = 9) -> float:
    """Median over the pairs of slow / fast; printed with its range and the medians."""
    both: list[tuple[float, float]] = []
    for number in range(pairs + 1):
        if number % 2:
            both.append((seconds(slow), seconds(fast)))
        else:
            both.append((seconds(fast), seconds(slow))[::-1])
    ratios = [a / b for a, b in both[1:]]  # the first pair warms up
    middle = [1e3 * statistics.median(one) for one in zip(*both[1:], strict=True)]
    print(
        f"{label}: {middle[0]:.0f} / {middle[1]:.1f} ms: {statistics.median(ratios):.2f} times as fast "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return statistics.median(ratios)


def test_removing_95_percent_by_neurons() -> None:
    dense = miniboone()
    params = sum(p.numel() for p in dense.parameters())
    shrunk = prune("structured", unpruned(dense), dense, round(0.05 * params)).flow
    chunks = (64, 128)
    best = [min(chunks, key=lambda c, flow=flow: quickest(work(flow, chunk=c))) for flow in (dense, shrunk)]
    works = [work(flow, chunk=c) for flow, c in zip((dense, shrunk), best, strict=True)]
    assert times_as_fast(*works, f"structured 95 %, chunks {best}", pairs=15) >= 11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("share", "wanted"), [(0.98, 4), (0.95, 2)])
def test_skipping_zeros(share: float, wanted: float, dtype: torch.dtype) -> None:
    name = f"{share:.0%} zeros, {str(dtype).removeprefix('torch.')}"
    everywhere = with_zeros(miniboone(), [share] * 3).to(dtype)
    assert times_as_fast(work(everywhere), work(everywhere.to_sparse()), f"{name}, in every matrix") >= wanted
    times_as_fast(work(everywhere, "sample"), work(everywhere.to_sparse(), "sample"), f"{name}, sampling")
    middle = with_zeros(miniboone(), [0.0, share, 0.0]).to(dtype)
    # At 98 % a good part of the time goes into the two dense matrices, which no sparse execution makes faster.
    assert times_as_fast(work(middle), work(middle.to_sparse()), f"{name}, in the middle one alone") >= 2


@pytest.mark.parametrize(("share", "wanted"), [(0.98, 4), (0.95, 2)])
def test_skipping_the_zeros_that_magnitude_pruning_leaves(share: float, wanted: float) -> None:
    dense = miniboone()
    params = sum(p.numel() for p in dense.parameters())
    masked = prune("unstructured", unpruned(dense), dense, round((1 - share) * params)).flow
    label = f"unstructured {share:.0%} by magnitude, hidden {next(masked.compact().fields()).hidden} live"
    assert times_as_fast(work(masked), work(masked.to_sparse()), label) >= wanted


@pytest.mark.parametrize(("width", "dim"), [(860, 43), (256, 6)])
def test_the_break_even_sparsity(width: int, dim: int) -> None:
    """Of the middle matrix alone, the others dense: the least that sparse execution can gain by."""
    ratios = {}
    for percent in range(60, 100, 5):
        flow = with_zeros(miniboone(width, dim), [0.0, percent / 100, 0.0])
        works = [work(one, dim=dim) for one in (flow, flow.to_sparse(0.5))]
        ratios[percent] = times_as_fast(*works, f"{width} wide, {percent} % zeros", pairs=5)
    crossed = next((percent for percent, ratio in ratios.items() if ratio >= 1), None)
    print(f"{width} wide: sparse is the faster from {crossed} % on")
    if width == 860:
        assert crossed is not None
        assert abs(crossed / 100 - BREAK_EVEN) <= 0.1
        assert ratios[85] > 1
