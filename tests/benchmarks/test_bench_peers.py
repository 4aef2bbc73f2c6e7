"""The peers compute the same densities as our flows, and the works measure what they say."""

import importlib.util
import warnings

import numpy as np
import pytest
import torch

from benchmarks.plain_ffjord import PlainFFJORD
from benchmarks.reaching import GapCheck, Watch, train_plain
from benchmarks.works.hessian import MeanLossModule, pyhessian_of
from benchmarks.works.steps import Products, products
from benchmarks.zuko_peer import ZukoCNF
from sparseflows.flow.build import build_flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.rng import torch_generator
from sparseflows.specs import FlowSpec
from sparseflows.training.objectives import NegativeLogLikelihood

HIDDEN = [16, 16]
needs_zuko = pytest.mark.skipif(importlib.util.find_spec("zuko") is None, reason="zuko is not installed (extra bench)")


def flow_and_rows(rows: int = 40):
    flow = build_flow(FlowSpec(hidden=HIDDEN, gain=4.0), 2, seed=1).double()
    return flow, torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain(flow, tolerance: float = 1e-9, gradient: str = "adjoint") -> PlainFFJORD:
    peer = PlainFFJORD(hidden=HIDDEN, tolerance=tolerance, gradient=gradient)
    peer.field.double()
    peer.copy_from(flow)
    return peer


def test_the_plain_ffjord_has_the_likelihood_of_our_flow() -> None:
    flow, rows = flow_and_rows()
    ours = flow.log_prob(rows, solver=Solver().at(1e-9))
    torch.testing.assert_close(plain(flow).log_prob(rows), ours, rtol=0, atol=1e-7)
    torch.testing.assert_close(plain(flow).as_flow().log_prob(rows, solver=Solver().at(1e-9)), ours, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", ["adjoint", "backprop"])
def test_the_plain_ffjord_has_the_gradients_of_ours(gradient: str) -> None:
    flow, rows = flow_and_rows()
    objective = NegativeLogLikelihood(Solver().at(1e-9), "hutchinson", "gaussian")
    objective(flow, rows, torch_generator(0, "test")).value.backward()
    peer = plain(flow, gradient=gradient)
    (-peer.log_prob(rows, torch_generator(0, "test")).mean()).backward()
    (field,) = flow.fields()
    for layer, own in zip(field.linear_layers(), peer.linears(), strict=True):
        torch.testing.assert_close(own.weight.grad, layer.weight.grad, rtol=0, atol=1e-7)
        torch.testing.assert_close(own.bias.grad, layer.bias.grad, rtol=0, atol=1e-7)


def test_the_plain_ffjord_is_the_published_one() -> None:
    peer = PlainFFJORD(seed=3)
    assert sum(p.numel() for p in peer.field.parameters()) == 8642
    assert peer.tolerance == 1e-5
    (group,) = peer.optimiser.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.05, 0.01)
    again = PlainFFJORD(seed=3).linears()
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(peer.linears(), again, strict=True))


def test_training_the_plain_ffjord_counts_and_learns() -> None:
    rows = 0.3 * torch.randn(128, 2, generator=torch.Generator().manual_seed(0))
    peer = PlainFFJORD(hidden=HIDDEN)
    check = GapCheck(rows.numpy().astype(float), true_log_prob(rows.numpy().astype(float), 0.3))
    found = train_plain(peer, rows, 0, check, target=0.3, most_steps=25)
    assert found.reached
    assert found.gap <= 0.3
    assert 0 < found.steps <= 25
    assert found.forward >= 7 * found.steps
    assert found.backward >= 7 * found.steps
    assert found.seconds > 0


def true_log_prob(rows: np.ndarray, deviation: float) -> np.ndarray:
    return -0.5 * (rows**2).sum(1) / deviation**2 - np.log(2 * np.pi * deviation**2)


def test_the_gap_is_that_of_the_exact_likelihood() -> None:
    flow, rows = flow_and_rows()
    points = rows.numpy()
    check = GapCheck(points, np.zeros(len(points)))
    with torch.no_grad():
        wanted = -float(flow.log_prob(rows, solver=Solver().at(1e-9)).mean())
    assert check.exact(flow) == pytest.approx(wanted, abs=1e-6)
    assert check.at_a_look(flow) == pytest.approx(wanted, abs=1e-2)
    watch = Watch(check, wanted + 0.01)
    assert watch(flow) == check.exact(flow)
    assert watch.bias == pytest.approx(check.exact(flow) - check.at_a_look(flow))
    assert Watch(check, wanted - 0.01)(flow) is None
    assert Watch(check, wanted - 1.0)(flow) is None


@needs_zuko
def test_zuko_has_the_likelihood_of_our_flow_and_counts() -> None:
    flow, rows = flow_and_rows()
    peer = ZukoCNF(flow, 1e-9)
    ours = flow.log_prob(rows, solver=Solver().at(1e-9))
    torch.testing.assert_close(peer.log_prob(rows), ours, rtol=0, atol=1e-6)
    assert peer.evaluations >= 7
    peer.cnf.eval()
    with torch.no_grad():
        assert peer.sample(5).shape == (5, 2)


@needs_zuko
def test_zuko_has_the_gradients_of_our_flow() -> None:
    flow, rows = flow_and_rows()
    peer = ZukoCNF(flow, 1e-9)
    peer.cnf.train()
    (-peer.log_prob(rows).mean()).backward()
    NegativeLogLikelihood(Solver().at(1e-9))(flow, rows, torch.Generator()).value.backward()
    (field,) = flow.fields()
    theirs = [layer for layer in peer.cnf.transform.ode if hasattr(layer, "weight")]
    for own, layer in zip(theirs, field.linear_layers(), strict=True):
        torch.testing.assert_close(own.weight.grad, layer.weight.grad, rtol=0, atol=1e-6)


def test_pyhessian_is_given_our_loss() -> None:
    from pyhessian.utils import hessian_vector_product

    from analysis.curvature.losses import NLL
    from analysis.curvature.operators import HessianOperator, Survivors

    flow, rows = flow_and_rows(8)
    loss = NLL.of(flow, rows, 1e-3)
    operator = HessianOperator(flow, loss, Survivors(flow, {}))
    model = MeanLossModule(flow, loss)
    vector = np.random.default_rng(0).standard_normal(operator.shape[0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*create_graph")  # once a process, by whoever comes first
        theirs = pyhessian_of(model)
    product = hessian_vector_product(theirs.gradsH, theirs.params, operator.survivors.scatter(torch.from_numpy(vector)))
    np.testing.assert_allclose(operator.survivors.gather(tuple(product)).numpy(), operator @ vector, atol=1e-10)
    for parameter in model.parameters():
        parameter.grad = None


def test_the_products_of_an_evaluation() -> None:
    shapes = products(10, 2, [64, 32])
    assert shapes[:3] == [(10, 2, 64), (30, 64, 32), (10, 32, 2)]
    assert len(shapes) == 9
    forward, backward = shapes[:3], shapes[3:]
    flops = [sum(2 * m * k * n for m, k, n in part) for part in (forward, backward)]
    assert flops[1] == 2 * flops[0]
    evaluation = Products(shapes)
    evaluation.run()
    assert evaluation.flops == sum(flops)
