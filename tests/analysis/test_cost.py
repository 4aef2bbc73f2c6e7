from __future__ import annotations

import numpy as np
import pytest
import torch
from support.plain_solve import flops

from analysis import cost
from sparseflows.errors import RunError
from sparseflows.flow import divergence
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver

TIMES = ["none", "concat", "concat_squash"]


def flow_of(hidden=(5, 4), time="concat", dim=3, blocks=1):
    flow = Flow([MLPField(dim, hidden, "tanh", time) for _ in range(blocks)])
    seeded_initialise(flow, 0)
    return flow


def all_kept(flow):
    return {name: torch.ones_like(p, dtype=torch.bool) for name, p in flow.named_parameters()}


def counted(function):
    """Multiply-adds by PyTorch's own counter, which takes one for two operations."""
    return flops(function) / 2


@pytest.mark.parametrize("time", TIMES)
def test_macs_by_hand_and_against_the_flop_counter(time):
    flow, rows = flow_of(time=time), 7
    field = next(flow.fields())
    assert cost.macs(flow) == 3 * 5 + 5 * 4 + 4 * 3
    z, t = torch.randn(rows, 3), torch.tensor(0.3)
    assert counted(lambda: field(t, z)) == rows * cost.macs(flow)


@pytest.mark.parametrize("time", TIMES)
def test_macs_of_the_divergence(time):
    flow, rows = flow_of(time=time), 7
    field = next(flow.fields())
    assert cost.macs_divergence(flow) == 3 * 5 + (1 + 3) * (5 * 4 + 4 * 3)
    z, t = torch.randn(rows, 3), torch.tensor(0.3)
    once_a_batch = 3 * 3 * 5  # three tangents through the first layer
    assert counted(lambda: divergence.exact(field, t, z)) == rows * cost.macs_divergence(flow) + once_a_batch


def test_blocks_are_added_up():
    assert cost.macs(flow_of(blocks=3)) == 3 * cost.macs(flow_of())
    with pytest.raises(TypeError, match="LinearField"):
        cost.macs(Flow(LinearField(torch.eye(2))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes(dtype):
    flow = flow_of().to(dtype)
    size = torch.empty((), dtype=dtype).element_size()
    params = 3 * 5 + 5 * 4 + 4 * 3 + (5 + 4 + 3) + 5  # matrices, biases, the weights on t
    assert cost.stored_bytes(flow) == params * size
    assert cost.sparse_bytes(flow, all_kept(flow)) == params * size  # nothing to leave out


def test_sparse_bytes_of_a_masked_flow():
    flow = flow_of(hidden=(50, 40))
    kept = all_kept(flow)
    kept["blocks.0.field.layers.1.weight"][:] = False
    kept["blocks.0.field.layers.1.weight"][:, :5] = True  # 200 of 2,000
    kept["blocks.0.field.layers.1.bias"][3:] = False
    kept["blocks.0.field.layers.0.weight"][0, 0] = False  # one of 150: rows would take more than the matrix
    dense = cost.stored_bytes(flow)
    assert dense == 4 * (150 + 2000 + 120 + 93 + 50)
    assert cost.sparse_bytes(flow, kept) == dense - 4 * 2000 + (200 * (4 + 4) + 41 * 4) - 4 * 37
    assert cost.macs_kept(flow, kept) == cost.macs(flow) - 1800 - 1
    # the same bytes in scipy's own format
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(np.where(kept["blocks.0.field.layers.1.weight"].numpy(), 1, 0).astype(np.float32))
    assert matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes == 200 * (4 + 4) + 41 * 4


def test_a_shrunk_flow_does_less_than_a_masked_one():
    masked, shrunk = flow_of(hidden=(8, 8)), flow_of(hidden=(4, 4))
    kept = all_kept(masked)
    for layer, (rows, columns) in enumerate([(4, 3), (4, 4), (3, 4)]):
        mask = kept[f"blocks.0.field.layers.{layer}.weight"]
        mask[rows:], mask[:, columns:] = False, False
    assert cost.macs_kept(masked, kept) == cost.macs(shrunk)
    assert cost.macs(masked) == cost.macs(flow_of(hidden=(8, 8))) > cost.macs(shrunk)


class Clock:
    """Time that passes only where a work says so."""

    def __init__(self):
        self.now, self.order = 0.0, []

    def work(self, name, seconds):
        durations = iter(seconds)

        def function():
            self.order.append(name)
            self.now += next(durations)
            return 10 * len(self.order)

        return function


def test_rounds_are_interleaved():
    clock = Clock()
    works = {("a", "x"): clock.work("a", [9, 1, 2]), ("b", "x"): clock.work("b", [9, 3, 4])}
    steps = []
    found = cost.in_turns(works, 2, lambda *step: steps.append(step), clock=lambda: clock.now)
    assert clock.order == ["a", "b", "b", "a", "a", "b"]
    assert found["a", "x"].seconds.tolist() == [1, 2]  # the first round does not count
    assert found["b", "x"].seconds.tolist() == [3, 4]
    assert (found["a", "x"].nfe, found["b", "x"].nfe) == (50, 60)
    assert steps == [(done, 6) for done in range(1, 7)]


def test_what_fails_is_told_and_not_tried_again():
    tried = []

    def fails():
        tried.append(1)
        raise RunError("no steps left")

    found = cost.in_turns({("a", "x"): fails, ("b", "x"): lambda: 7}, 3)
    assert found["a", "x"] == "no steps left"
    assert len(tried) == 1
    assert found["b", "x"].nfe == 7
    assert len(found["b", "x"].seconds) == 3


def test_threads_come_back():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with cost.threads(1):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(RunError), cost.threads(1):
            raise RunError("in between")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_job_counts_its_evaluations():
    flow = flow_of().double()
    points = np.random.default_rng(0).standard_normal((20, 3))
    job = cost.Job(flow, flow, points, points)
    with torch.no_grad():
        forward = flow.transform(torch.as_tensor(points))
        backward = flow.transform(torch.as_tensor(points), reverse=True, divergence=None)
    assert (job.log_prob(), job.sample()) == (forward.nfe, backward.nfe)


def test_the_processor_has_a_name():
    assert cost.processor().strip()


def test_sparse_execution_where_there_are_zeros_enough():
    flow = flow_of(hidden=(40, 30))
    assert cost.sparse_execution(flow) is None
    with torch.no_grad():
        middle = next(flow.fields()).linear_layers()[1].weight
        draws = torch.Generator().manual_seed(0)
        middle[torch.rand(middle.shape, generator=draws) < 0.9] = 0.0
    sparse = cost.sparse_execution(flow.double())
    points = np.random.default_rng(0).standard_normal((20, 3))
    sparse.solver = flow.solver = Solver(compiled=False)  # the engine solves dense fields in small tiles
    ours, theirs = (cost.Job(one, one, points, points) for one in (sparse, flow))
    assert ours.log_prob() == theirs.log_prob()
    assert ours.sample() == theirs.sample()
