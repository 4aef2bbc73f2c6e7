"""The Hessian by the engine and by double backpropagation: the same to rounding; and which of them is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.arrays import pairwise
from support.tiny import WHITENING, rows, tiny_flow
from support.truths import generator, normal
from torch import nn

from analysis.curvature.held_steps import DOPRI5, HeldSteps
from analysis.curvature.in_engine import TOGETHER, EngineProducts, takes
from analysis.curvature.losses import NLL, FlowMatchingLoss
from analysis.curvature.operators import HessianOperator, Survivors
from sparseflows.flow.compiled.build import library
from sparseflows.flow.compiled.second_order import memory_of
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow

pytestmark = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")


def nll(flow, x):
    return NLL(x, HeldSteps(((0.4, 0.6),) * len(flow.chain())))


def matching(flow, x):
    return FlowMatchingLoss.of(x, 2.0, generator(5), 3)


def both(flow, loss, survivors, **options):
    found = HessianOperator(flow, loss, survivors, **options)
    assert found.engine is not None
    return found, HessianOperator(flow, loss, survivors, compiled=False)


def assert_same(ours, theirs, vectors):
    (value, gradient), (value_twin, gradient_twin) = ours.value_and_gradient(), theirs.value_and_gradient()
    assert value == pytest.approx(value_twin, rel=1e-12)
    np.testing.assert_allclose(gradient, gradient_twin, rtol=0, atol=1e-12 * np.linalg.norm(gradient_twin))
    wanted = theirs @ vectors
    assert np.linalg.norm(ours @ vectors - wanted) < 1e-12 * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    *pairwise(
        time=["none", "concat", "concat_squash"], blocks=[1, 2], train_end_time=[False, True],
        whitening=[None, WHITENING], activation=["sigmoid", "softplus", "relu"], threads=[1, 2],
    )
)  # fmt: skip
def test_products_of_the_likelihood(time, blocks, train_end_time, whitening, activation, threads) -> None:
    flow = tiny_flow((5, 4), activation, time, blocks=blocks, train_end_time=train_end_time, whitening=whitening)
    survivors = Survivors(flow, {})
    vectors = np.random.default_rng(0).standard_normal((survivors.size, 19))  # more than go together
    assert_same(*both(flow, nll(flow, rows(21)), survivors, threads=threads), vectors)


@pytest.mark.parametrize("loss", [nll, matching])
def test_masked_and_frozen_params_are_none_of_them(loss) -> None:
    flow, seed = tiny_flow((5, 4), whitening=WHITENING), generator(2)
    kept = {name: torch.rand(p.shape, generator=seed) < 0.6 for name, p in flow.named_parameters()}
    list(flow.parameters())[2].requires_grad_(False)
    with torch.no_grad():
        for name, p in flow.named_parameters():
            p.mul_(kept[name])
    survivors = Survivors(flow, kept)
    vectors = np.random.default_rng(0).standard_normal((survivors.size, 3))
    assert_same(*both(flow, loss(flow, rows(21)), survivors), vectors)


def test_flow_matching_takes_more_columns_than_an_exact_trace() -> None:
    flow = Flow(MLPField(43, [6, 5], "tanh", "concat")).double()
    survivors = Survivors(flow, {})
    vectors = np.random.default_rng(0).standard_normal((survivors.size, 3))
    assert_same(*both(flow, matching(flow, normal(11, 43)), survivors), vectors)


@pytest.mark.parametrize(("loss", "tableau"), [(nll, DOPRI5), (matching, None)])
def test_fewer_vectors_go_together_where_memory_is_short(loss, tableau) -> None:
    flow = tiny_flow((60, 60))
    survivors, given = Survivors(flow, {}), loss(flow, rows(21))
    of_five = memory_of([flow.chain()[0].field], [(0.4, 0.6)], tableau, 5) / 2**20
    ample, short, least = (EngineProducts(flow, given, survivors.index, 1, mib) for mib in (32, of_five, 0))
    assert (ample.together, short.together, least.together) == (TOGETHER, 5, 1)
    vectors, seen = np.random.default_rng(0).standard_normal((survivors.size, 12)), []
    found, wanted = short.multiply(vectors, seen.append), ample.multiply(vectors, lambda done: None)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-14 * np.abs(wanted).max())
    assert seen == [5, 10, 12]


def test_products_are_counted() -> None:
    flow, seen = tiny_flow(), []
    survivors = Survivors(flow, {})
    operator = HessianOperator(flow, nll(flow, rows()), survivors, on_product=seen.append)
    operator @ np.ones((survivors.size, 20))
    operator @ np.ones(survivors.size)
    assert operator.products == 21
    assert seen == [16, 20, 21]


def test_what_is_left_to_double_backpropagation() -> None:
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2).double()

        def forward(self, t, z):
            return torch.tanh(self.layer(z))

    x = rows()
    for flow in (tiny_flow(), tiny_flow(blocks=2, train_end_time=True)):
        assert takes(flow, nll(flow, x))
    assert not takes(Flow(Own()), nll(Flow(Own()), x))
    assert not takes(tiny_flow(()), nll(tiny_flow(()), x))  # no hidden layer
    assert not takes(tiny_flow().float(), nll(tiny_flow(), x))  # in another precision than the rows
    hooked = tiny_flow()
    hooked.chain()[0].field.layers[1].register_forward_hook(lambda module, args, found: 2 * found)
    assert not takes(hooked, nll(hooked, x))
    tied = tiny_flow((5, 5))
    tied.chain()[0].field.layers[1].bias = tied.chain()[0].field.layers[0].bias
    assert not takes(tied, nll(tied, x))
    many = Flow(MLPField(17, [4])).double()
    assert not takes(many, nll(many, normal(5, 17)))  # an exact trace has as many tangents as columns
    two = tiny_flow(blocks=2)
    assert not takes(two, matching(two, x))

    class OwnLoss(NLL):
        pass

    flow = tiny_flow()
    assert not takes(flow, OwnLoss(x, HeldSteps(((1.0,),))))
