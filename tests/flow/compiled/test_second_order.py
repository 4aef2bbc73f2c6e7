"""The engine's Hessian-vector products against autograd, twice through the textbook loop; 1e-12 is rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.arrays import pairwise
from support.plain_solve import drawn, drawn_field, plain_solve

from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.second_order import likelihood_products, match_products
from sparseflows.flow.compiled.structures import ACTIVATION_ORDER
from sparseflows.flow.fields import BASES, TIMES, MLPField
from sparseflows.flow.solvers.tableaus import TABLEAUS
from sparseflows.flow.transform import standard_normal_log_prob

pytestmark = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")

STEPS = (0.2, 0.5, 0.3)
ROUNDING = 1e-12
FIELDS = {
    "activation": ACTIVATION_ORDER,
    "time": TIMES,
    "hidden": ([18, 7, 6], [5, 40], [64, 64], [3]),
    "base": BASES,
}


def twice(loss, inputs, directions):
    """The gradient and the products with directions (K, P), as vectors over all inputs."""
    gradient = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
    products = []
    for direction in directions:
        parts = direction.split([one.numel() for one in inputs])
        along = sum((g * part.view_as(g)).sum() for g, part in zip(gradient, parts, strict=True))
        found = torch.autograd.grad(along, inputs, retain_graph=True, materialize_grads=True)
        products.append(torch.cat([one.flatten() for one in found]))
    return torch.cat([one.detach().flatten() for one in gradient]), torch.stack(products)


def assert_near(found, wanted, tolerance=ROUNDING):
    for ours, theirs in zip(found, wanted, strict=True):
        assert float((ours - theirs).norm() / (1e-3 + theirs.norm())) < tolerance


@pytest.mark.parametrize(*pairwise(**FIELDS, dim=[1, 2, 5], method=["dopri5", "bosh3"], threads=[1, 3]))
def test_likelihood(activation, time, hidden, base, dim, method, threads) -> None:
    field, points = drawn_field(dim, hidden, activation, time, base), drawn(21, dim)
    end_time = torch.tensor(1.0 if base == "gaussian" else 1.3, dtype=torch.float64, requires_grad=True)
    inputs = [*field.tensors(), end_time]
    directions = drawn(3, sum(one.numel() for one in inputs), seed=4)
    if base == "gaussian":  # it goes with T = 1
        directions[:, -1] = 0
    end, trace = plain_solve(field, end_time, points, STEPS, TABLEAUS[method], None)
    loss = -(standard_normal_log_prob(end) + trace).mean()
    gradient, products = twice(loss, inputs, directions)
    found = likelihood_products([field], [end_time.item()], [STEPS], TABLEAUS[method], points, directions, threads)
    known = slice(None) if base == "none" else slice(-1)
    assert found.loss == pytest.approx(loss.item(), rel=ROUNDING)
    assert_near([found.gradient[known]], [gradient[known]])
    assert_near(found.products[:, known], products[:, known])


def test_several_blocks() -> None:
    fields = [drawn_field(2, [9], "tanh", "concat_squash", seed=0), drawn_field(2, [7, 5], "silu", "concat", seed=1)]
    ends, grids = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (0.8, 1.2)], [STEPS, (0.5, 0.5)]
    points, tableau = drawn(19, 2), TABLEAUS["dopri5"]
    middle, first = plain_solve(fields[0], ends[0], points, grids[0], tableau, None)
    end, second = plain_solve(fields[1], ends[1], middle, grids[1], tableau, None)
    loss = -(standard_normal_log_prob(end) + first + second).mean()
    inputs = [one for field, t in zip(fields, ends, strict=True) for one in (*field.tensors(), t)]
    directions = drawn(2, sum(one.numel() for one in inputs), seed=4)
    gradient, products = twice(loss, inputs, directions)
    found = likelihood_products(fields, [t.item() for t in ends], grids, tableau, points, directions)
    assert_near([found.gradient, *found.products], [gradient, *products])


@pytest.mark.parametrize(*pairwise(**FIELDS, threads=[1, 2]))
def test_flow_matching(activation, time, hidden, base, threads) -> None:
    field, points, targets = drawn_field(3, hidden, activation, time, base), drawn(37, 3), drawn(37, 3, seed=2)
    t = drawn(37, 1, seed=3).sigmoid()
    inputs = field.tensors()
    directions = drawn(3, 1 + sum(one.numel() for one in inputs), seed=4)
    loss = (field(t, points) - targets).square().sum(1).mean()
    gradient, products = twice(loss, inputs, directions[:, :-1])
    found = match_products(field, t, points, targets, directions, threads)
    assert found.loss == pytest.approx(loss.item(), rel=ROUNDING)
    assert_near([found.gradient[:-1], *found.products[:, :-1]], [gradient, *products])
    assert not found.products[:, -1].any()


@pytest.mark.parametrize(("activation", "steps"), [("silu", STEPS), ("sigmoid", (1 / 9,) * 9)])
def test_float32_is_as_good_as_float32(activation, steps) -> None:
    # With sigmoid every activation is about 1/2: what the rows add up to is large beside what they leave.
    field, points = MLPField(2, [64, 64, 64], activation), drawn(512, 2)
    field.initialise(torch.Generator().manual_seed(0), 1.3)
    size = sum(one.numel() for one in field.tensors()) + 1
    directions, tableau = drawn(2, size, seed=4), TABLEAUS["dopri5"]
    coarse = likelihood_products([field], [1.0], [steps], tableau, points.float(), directions.float())
    precise = likelihood_products([field.double()], [1.0], [steps], tableau, points, directions)
    for found, wanted in zip([coarse.gradient, *coarse.products], [precise.gradient, *precise.products], strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < 2e-6  # sums of 8 rows


def test_no_direction_gives_the_gradient_alone() -> None:
    field, points = drawn_field(2, [8], "tanh", "concat"), drawn(9, 2)
    size = sum(one.numel() for one in field.tensors()) + 1
    both = [
        likelihood_products([field], [1.0], [STEPS], TABLEAUS["dopri5"], points, directions)
        for directions in (drawn(0, size), drawn(1, size))
    ]
    assert torch.equal(both[0].gradient, both[1].gradient)
    assert both[0].products.shape == (0, size)


RESIDENT = """
import sys
import torch
from support.plain_solve import drawn, drawn_field
from sparseflows.flow.compiled.second_order import likelihood_products, match_products, memory_of
from sparseflows.flow.solvers.tableaus import TABLEAUS

loss, count = sys.argv[1], int(sys.argv[2])
field, points, grid = drawn_field(3, [200, 200], "tanh", "concat_squash"), drawn(8, 3), (0.05,) * 20
directions = drawn(count, sum(one.numel() for one in field.tensors()) + 1, seed=4)
tableau = TABLEAUS["dopri5"]

def products(of, towards):
    if loss == "likelihood":
        return likelihood_products([of], [1.0], [grid], tableau, points, towards)
    return match_products(of, points[:, :1].sigmoid().contiguous(), points, points, towards)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

small = drawn_field(3, [3], "tanh", "concat_squash")
products(small, drawn(1, sum(one.numel() for one in small.tensors()) + 1))
before = resident()
kept = products(field, directions)
grown = resident() - before
said = memory_of([field], [grid], tableau if loss == "likelihood" else None, count)
print(grown, said, kept.products.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc, where a thread's memory still stands")
@pytest.mark.parametrize("loss", ["likelihood", "match"])
def test_memory_is_what_is_said(loss) -> None:
    arguments = [sys.executable, "-c", RESIDENT, loss, "16"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment).stdout
    grown, said, out = map(int, found.split())
    assert 0.9 * said < grown < said + out + 2**21  # what comes out, and PyTorch's own
