"""Hessian-vector products against the Hessian that autograd gives, and against independent discretisations."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from support.tiny import WHITENING, autograd_hessian, rows, tiny_flow
from support.truths import generator, normal
from torch import Tensor, nn

from analysis.curvature.figures import kappa_exact
from analysis.curvature.held_steps import HeldSteps
from analysis.curvature.losses import NLL, FlowMatchingLoss, MeanLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.runs.memory import peak_mib, reset_peak
from sparseflows.errors import InputError, RunError
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.cutting.structured import shrink
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons

COARSE = HeldSteps(((0.3, 0.7),))  # for comparisons on the same steps, however wrong


def operator_of(flow: Flow, loss: MeanLoss, kept: Masks | None = None, **options: object) -> HessianOperator:
    """By double backpropagation; test_in_engine.py holds the engine against it."""
    return HessianOperator(flow, loss, Survivors(flow, kept or {}), **({"compiled": False} | options))


def matrix_of(operator: HessianOperator) -> np.ndarray:
    return operator.matmat(np.eye(operator.shape[0]))


def mean(loss: MeanLoss) -> Callable[[Flow], Tensor]:
    """All terms at once."""
    return lambda flow: loss.total(flow, slice(0, loss.terms)) / loss.terms


def matching(x: Tensor, draws: int = 2) -> FlowMatchingLoss:
    return FlowMatchingLoss.of(x, 1.0, generator(5), draws)


def difference(found: np.ndarray, expected: np.ndarray | Tensor) -> float:
    """Of two matrices, relative to the size of the second."""
    truth = np.asarray(expected)
    return float(np.abs(found - truth).max() / np.linalg.norm(truth, 2))


@dataclass(frozen=True)
class Quadratic:
    """Terms ½ θᵀAᵢθ + bᵢᵀθ in all the params θ of a flow: H = mean Aᵢ."""

    matrices: Tensor
    slopes: Tensor
    terms: int = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "terms", len(self.matrices))

    def total(self, flow, chosen):
        theta = torch.cat([p.flatten() for p in flow.parameters()])
        quadratic = torch.einsum("i,nij,j->", theta, self.matrices[chosen], theta)
        return quadratic / 2 + self.slopes[chosen].sum(0) @ theta


def quadratic(terms: int = 7) -> tuple[Flow, Quadratic, np.ndarray]:
    """A flow of two matrices (13 params), a loss, its Hessian."""
    flow = Flow([LinearField(normal(2, 2)), LinearField(normal(3, 3, seed=1))])
    matrices = normal(terms, 13, 13, seed=2)
    loss = Quadratic(matrices + matrices.transpose(1, 2), normal(terms, 13, seed=3))
    return flow, loss, loss.matrices.mean(0).numpy()


# --- the Hessian


ACTIVATIONS_AND_TIMES = [
    ("sigmoid", "none"),
    ("tanh", "concat"),
    ("softplus", "concat_squash"),
    ("relu", "concat"),
    ("silu", "concat_squash"),
]


@pytest.mark.parametrize(("activation", "time"), ACTIVATIONS_AND_TIMES)
@pytest.mark.parametrize("kind", ["nll", "flow_matching"])
def test_against_autograd_on_the_same_loss(kind, activation, time):
    flow, x = tiny_flow((4, 4), activation, time), rows()
    loss = NLL(x, COARSE) if kind == "nll" else matching(x)
    expected = autograd_hessian(flow, mean(loss))
    assert difference(matrix_of(operator_of(flow, loss)), expected) < 1e-9  # rounding is at 1e-15


def test_against_autograd_with_everything_a_flow_may_have():
    flow = tiny_flow((4,), "silu", blocks=2, train_end_time=True, whitening=WHITENING)
    loss = NLL(rows(), HeldSteps(((0.3, 0.7), (0.5, 0.5))))
    assert difference(matrix_of(operator_of(flow, loss)), autograd_hessian(flow, mean(loss))) < 1e-9


def naive_matching(x: Tensor, loss: FlowMatchingLoss, flow: Flow) -> Tensor:
    """The mean of |f(t, (1 − t)x + tz) − (z − x)|², a row at a time, by autograd alone."""
    total, draws = torch.zeros((), dtype=x.dtype), loss.terms // len(x)
    vector_field = next(flow.fields())
    for number in range(loss.terms):
        start, z, t = x[number % len(x)], loss.noise[number], loss.times[number, 0]
        velocity = vector_field(t, ((1 - t) * start + t * z)[None])[0]
        total = total + (velocity - z + start).pow(2).sum()
    return total / (draws * len(x))


INDEPENDENT = [
    ("nll", "tanh", "none"),
    ("nll", "sigmoid", "concat"),
    ("nll", "softplus", "concat_squash"),
    ("flow_matching", "relu", "concat"),  # not smooth in z: a likelihood of it has kinks that no step size resolves
    ("flow_matching", "silu", "concat_squash"),
]


@pytest.mark.parametrize(("kind", "activation", "time"), INDEPENDENT)
def test_against_the_hessian_of_an_independent_discretisation(kind, activation, time):
    flow, x = tiny_flow((4, 3), activation, time), rows(10)
    if kind == "nll":
        loss: MeanLoss = NLL.of(flow, x, 1e-9)
        # Backpropagation through torchdiffeq's own steps, another method, norm and tolerance.
        expected = autograd_hessian(flow, lambda f: -f.log_prob(x, solver=Solver("dopri8", 1e-10, 1e-10)).mean())
    else:
        loss = matching(x, draws=1)
        expected = autograd_hessian(flow, lambda f: naive_matching(x, loss, f))
    found, truth = matrix_of(operator_of(flow, loss)), expected.numpy()
    ours, theirs = np.linalg.eigvalsh((found + found.T) / 2), np.linalg.eigvalsh(truth)
    # Errors of 1e-9 a step, some tens of steps, twice differentiated: 1e-8 to 1e-7 of the largest eigenvalue.
    size = np.abs(theirs).max()
    assert ours[-1] == pytest.approx(theirs[-1], rel=1e-6)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6 * size)
    assert np.trace(found) == pytest.approx(np.trace(truth), rel=1e-6)
    (kappa, below), (kappa_truth, below_truth) = kappa_exact(ours), kappa_exact(theirs)
    assert below == below_truth
    assert kappa == pytest.approx(kappa_truth, rel=1e-4)


def test_a_quadratic():
    flow, loss, hessian = quadratic()
    operator = operator_of(flow, loss)
    assert difference(matrix_of(operator), hessian) < 1e-14
    value, gradient = operator.value_and_gradient()
    theta = torch.cat([p.detach().flatten() for p in flow.parameters()]).numpy()
    slope = loss.slopes.mean(0).numpy()
    assert value == pytest.approx(theta @ hessian @ theta / 2 + slope @ theta, rel=1e-13)
    np.testing.assert_allclose(gradient, hessian @ theta + slope, rtol=0, atol=1e-13)
    assert operator.value == value
    assert operator.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-14)


def test_symmetric():
    flow = tiny_flow()
    found = matrix_of(operator_of(flow, NLL(rows(), COARSE)))
    assert np.abs(found - found.T).max() < 1e-13 * np.linalg.norm(found, 2)  # rounding
    operator = operator_of(flow, NLL(rows(), COARSE))
    assert operator.H is operator


@pytest.mark.parametrize("columns", [1, 3])
def test_a_linear_loss_has_none(columns):
    flow, loss, _ = quadratic()
    flat = replace(loss, matrices=torch.zeros_like(loss.matrices))
    operator = operator_of(flow, flat)
    assert not operator.matmat(np.ones((13, columns))).any()

    @dataclass(frozen=True)
    class Linear:  # not even a graph to go back through
        terms: int = 3

        def total(self, flow, chosen):
            return sum(p.sum() for p in flow.parameters()) * len(range(3)[chosen])

    assert not operator_of(flow, Linear()).matmat(np.ones((13, columns))).any()


# --- the survivors


def test_masked_entries_are_no_directions():
    flow, loss = tiny_flow(), NLL(rows(), COARSE)
    names = [name for name, p in flow.named_parameters() if p.ndim == 2]
    kept = {name: normal(*flow.get_parameter(name).shape, seed=i) > 0.3 for i, name in enumerate(names)}
    kept["blocks.0.field.layers.1.bias"] = torch.zeros(5, dtype=torch.bool)  # a tensor without survivors
    Masks(kept).apply_(flow)
    whole = autograd_hessian(flow, mean(loss)).numpy()
    everything = [kept.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in flow.named_parameters()]
    chosen = torch.cat([mask.flatten() for mask in everything]).numpy()
    operator = operator_of(flow, loss, kept)
    assert operator.shape[0] == chosen.sum() < len(chosen)
    assert difference(matrix_of(operator), whole[np.ix_(chosen, chosen)]) < 1e-12
    slices = operator.survivors.slices()
    assert "blocks.0.field.layers.1.bias" not in slices
    assert [s.start for s in slices.values()] == [0, *[s.stop for s in slices.values()][:-1]]
    assert list(slices.values())[-1].stop == operator.shape[0]
    lengths = {name: s.stop - s.start for name, s in slices.items()}
    assert lengths == {name: int(m.sum()) for name, m in Masks.full(flow).items() if name not in kept} | {
        name: int(m.sum()) for name, m in kept.items() if m.any()
    }


def test_scatter_and_gather_are_each_others_inverse():
    flow = tiny_flow()
    survivors = Survivors(flow, {"blocks.0.field.layers.0.weight": normal(5, 2) > 0})
    vector = normal(survivors.size)
    tensors = survivors.scatter(vector)
    assert [t.shape for t in tensors] == [p.shape for p in flow.parameters()]
    assert torch.equal(survivors.gather(tuple(tensors)), vector)
    assert sum(int((t != 0).sum()) for t in tensors) == survivors.size
    assert not survivors.gather((None,) * len(tensors)).any()


@pytest.mark.parametrize("time", ["none", "concat_squash"])
def test_a_masked_flow_and_its_shrunk_twin_have_the_same_eigenvalues(time):
    flow = tiny_flow((6, 5), "sigmoid", time)
    keep = [torch.tensor([1, 0, 1, 1, 0, 1]).bool(), torch.tensor([0, 1, 1, 0, 1]).bool()]
    masks = masks_of_neurons(flow, keep)
    masked, small = copy.deepcopy(flow), shrink(flow, keep)
    masks.apply_(masked)
    loss = NLL(rows(), COARSE)
    of_masked = np.linalg.eigvalsh(matrix_of(operator_of(masked, loss, masks)))
    of_small = np.linalg.eigvalsh(matrix_of(operator_of(small, loss)))
    np.testing.assert_allclose(of_masked, of_small, rtol=0, atol=1e-12 * np.abs(of_small).max())  # rounding
    # The zero weights would be directions of their own: other extremes, more eigenvalues.
    of_all = np.linalg.eigvalsh(matrix_of(operator_of(masked, loss)))
    assert len(of_all) > len(of_small)
    assert abs(of_all[-1] - of_small[-1]) > 1e-6 * of_small[-1]


# --- chunks, threads, blocks of vectors


TERMS = 6


def heavy() -> tuple[Flow, NLL]:
    """A term's graph takes some hundreds of KiB."""
    return tiny_flow((60, 60)), NLL(rows(TERMS), COARSE)


@pytest.fixture(scope="module")
def products_of_all_at_once() -> tuple[np.ndarray, np.ndarray]:
    flow, loss = heavy()
    operator = operator_of(flow, loss)
    assert operator.bounds() == [(0, TERMS)]
    vectors = np.random.default_rng(0).standard_normal((operator.shape[0], 3))
    return vectors, operator.matmat(vectors)


@pytest.mark.parametrize(("memory_mib", "threads"), [(1, 1), (1, 2), (2, 1), (1024, 2), (1024, 50)])
def test_chunks_threads_and_blocks_do_not_change_the_products(products_of_all_at_once, memory_mib, threads):
    vectors, expected = products_of_all_at_once
    flow, loss = heavy()
    before = torch.get_num_threads()
    operator = operator_of(flow, loss, memory_mib=memory_mib, threads=threads)
    assert difference(operator.matmat(vectors), expected) < 1e-12  # rounding, sums in another order
    assert difference(operator.matvec(vectors[:, 0])[:, None], expected[:, :1]) < 1e-12
    bounds = operator.bounds()
    assert (len(bounds) > 1) == (memory_mib < 1024 or threads > 1)
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds[:-1])]
    assert bounds[-1][1] == TERMS
    assert operator.threads == min(threads, TERMS)
    assert torch.get_num_threads() == before


def test_vectors_go_together_only_where_that_pays_and_fits():
    flow, loss = heavy()
    vectors = np.random.default_rng(0).standard_normal((sum(p.numel() for p in flow.parameters()), 6))
    together, apart = operator_of(flow, loss), operator_of(flow, loss)
    assert together._together > 6
    apart._together = 1
    assert difference(together.matmat(vectors), apart.matmat(vectors)) < 1e-12  # rounding
    assert operator_of(flow, loss, memory_mib=1)._together == 1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("memory_mib", [1, 4, 1000])
def test_graphs_fit_the_memory(memory_mib, threads):
    flow, loss = heavy()
    operator = operator_of(flow, loss, memory_mib=memory_mib, threads=threads)
    assert 2**17 < operator.bytes_a_term < 2**20
    at_work = operator.chunk * threads * operator._together * operator.bytes_a_term
    assert at_work <= memory_mib * 2**20 or operator.chunk == 1
    if operator._keep_graphs:
        assert TERMS * operator.bytes_a_term <= memory_mib * 2**20


def test_few_terms_are_measured_too():
    flow = tiny_flow((3,))
    sizes = [operator_of(flow, NLL(rows(n), COARSE)).bytes_a_term for n in (2, 5, 9, 30)]
    assert max(sizes) < 1.2 * min(sizes)
    assert operator_of(flow, NLL(rows(1), COARSE)).bounds() == [(0, 1)]


def test_measured_memory_stays_below_the_budget():
    # The graph of all 240 rows takes some 60 MiB, of which freed memory may hide a few; the budget is 8.
    flow = tiny_flow((32, 32))
    loss = NLL(rows(240), HeldSteps(((1 / 6,) * 6,)))
    vector = np.ones(sum(p.numel() for p in flow.parameters()))

    def growth(memory_mib: int) -> float:
        operator = operator_of(flow, loss, memory_mib=memory_mib)
        reset_peak()
        before = peak_mib()
        operator.matvec(vector)
        return peak_mib() - before

    assert growth(8) < 2 * 8
    assert growth(4096) > 32


def test_products_are_counted_and_told():
    flow, loss, _ = quadratic()
    told, inside = [], threading.Lock()

    def tell(products: int) -> None:
        assert inside.acquire(blocking=False)  # by one thread at a time: what listens may be a progress bar
        told.append(products)
        inside.release()

    operator = operator_of(flow, loss, threads=3, on_product=tell)
    operator.matvec(np.ones(13))
    operator.matmat(np.ones((13, 4)))
    assert operator.products == 5
    assert len(told) == 5 * len(operator.bounds())
    assert told == sorted(told)
    assert told[-1] == 5


def test_graphs_are_kept_where_they_fit_and_can_be_forgotten():
    flow, loss = heavy()
    vector = np.ones(sum(p.numel() for p in flow.parameters()))
    operator = operator_of(flow, loss)
    first = operator.matvec(vector)
    assert all(chunk.gradients is not None for chunk in operator._chunks)
    operator.forget_graphs()
    assert all(chunk.gradients is None for chunk in operator._chunks)
    np.testing.assert_array_equal(operator.matvec(vector), first)
    small = operator_of(flow, loss, memory_mib=1)
    small.matvec(vector)
    assert all(chunk.gradients is None for chunk in small._chunks)
    assert all(p.grad is None for p in flow.parameters())


def test_single_precision_inside_double_outside():
    flow = tiny_flow()
    expected = matrix_of(operator_of(flow, NLL(rows(), COARSE)))
    operator = operator_of(copy.deepcopy(flow).float(), NLL(rows().float(), COARSE))
    found = matrix_of(operator)
    assert found.dtype == np.float64
    assert difference(found, expected) < 1e-4  # 1e-7 of float32, of sums and differences of larger terms


# --- refusals


class Noisy:
    """A Hutchinson estimate that draws anew at every call."""

    terms = 12

    def total(self, flow, chosen):
        x = rows()[chosen]
        noise = torch.randn_like(x)
        return (next(flow.fields())(torch.zeros((), dtype=x.dtype), x) * noise).sum().square()


def test_a_loss_that_draws_anew_is_refused():
    with pytest.raises(RunError, match="not deterministic"):
        operator_of(tiny_flow(), Noisy())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(value):
    flow = tiny_flow()
    with torch.no_grad():
        list(flow.parameters())[-1][0] = value  # of a bias that no activation hides
    with pytest.raises(RunError, match="no Hessian here"):
        operator_of(flow, matching(rows()))


def test_a_gradient_that_is_not_finite_is_refused():
    class Root:
        terms = 1

        def total(self, flow, chosen):  # √0: finite itself, its slope is not
            return sum((p - p.detach()).sum() for p in flow.parameters()).sqrt()

    with pytest.raises(RunError, match="gradient is not finite"):
        operator_of(tiny_flow(), Root())


def test_scalar_params_only():
    class Growth(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, t, z):
            return self.rate * z

    # z(1) = e^r x: log p = −½ e^{2r} |x|² + 2r + const, so H = 2 e^{2r} mean |x|².
    flow, x = Flow(Growth()), rows()
    hessian = matrix_of(operator_of(flow, NLL.of(flow, x, 1e-8)))
    assert hessian.item() == pytest.approx(2 * np.exp(0.6) * float(x.square().sum(1).mean()), rel=1e-6)


def test_frozen_params_are_no_part_of_the_hessian():
    flow = tiny_flow()
    whole = matrix_of(operator_of(flow, NLL(rows(), COARSE)))
    names = [name for name, _ in flow.named_parameters()]
    sizes = [flow.get_parameter(name).numel() for name in names]
    flow.get_parameter(names[1]).requires_grad_(False)
    free = np.concatenate([np.full(size, name != names[1]) for name, size in zip(names, sizes, strict=True)])
    found = matrix_of(operator_of(flow, NLL(rows(), COARSE)))
    assert difference(found, whole[np.ix_(free, free)]) < 1e-12  # the principal submatrix
    flow.requires_grad_(False)
    with pytest.raises(InputError, match="frozen"):
        operator_of(flow, NLL(rows(), COARSE))


def test_batch_norm_in_training_mode_is_named():
    class Normed(nn.Module):
        dim = 2

        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(2, dtype=torch.float64), nn.Linear(2, 2, dtype=torch.float64)

        def forward(self, t, z):
            return self.layer(self.norm(z))

    with pytest.raises(InputError, match=r"norm' \(BatchNorm1d\) is in training mode"):
        operator_of(Flow(Normed()), NLL(rows(), COARSE))
