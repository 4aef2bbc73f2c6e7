"""`Flow.to_sparse`: the function stays, zeros are not multiplied."""

import copy
import warnings

import pytest
import torch
from support.arrays import pairwise
from support.sparse_flows import GRID, points, zeroed_field, zeroed_flow
from support.truths import jacobians, normal

from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import likelihood
from sparseflows.flow.activations import ACTIVATIONS
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import BASES, Field, LinearField, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.sparse import BREAK_EVEN, TILE_BYTES, SparseField, SparseLayer, paths, sparsity
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs import FlowSpec

TIMES = ["none", "concat", "concat_squash"]
# Which matrices are CSR: all, the first (no paths through two), the middle (paths from a dense first), the last.
PATTERNS = [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
# Sums of at most 12 terms of order 1 in another order, through three layers; single precision has 2^29 times the eps.
CLOSE = {torch.float64: {"rtol": 1e-12, "atol": 1e-12}, torch.float32: {"rtol": 1e-5, "atol": 1e-5}}


def basis(dtype=torch.float64):
    return torch.eye(3, dtype=dtype)[:, None]


@pytest.mark.parametrize(*pairwise(activation=ACTIVATIONS, time=TIMES, base=BASES, dtype=CLOSE))
def test_a_sparse_field_is_the_masked_field(activation, time, base, dtype):
    field = zeroed_field(activation=activation, time=time, base=base).to(dtype)
    z = points(dtype=dtype)
    with torch.no_grad():
        for pattern in PATTERNS:
            sparse = SparseField(field, [bool(one) for one in pattern])
            for t in (torch.tensor(0.3, dtype=dtype), normal(9, 1, seed=5, dtype=dtype).sigmoid()):
                torch.testing.assert_close(sparse(t, z), field(t, z), **CLOSE[dtype])
                for v in (basis(dtype), normal(4, 1, 3, dtype=dtype), normal(2, 9, 3, dtype=dtype)):
                    value, pushed = sparse.tangents(t, z, v)
                    theirs = field.tangents(t, z, v)
                    assert pushed.shape == (len(v), 9, 3)
                    torch.testing.assert_close((value, pushed), theirs, **CLOSE[dtype])


@pytest.mark.parametrize("hidden", [(7,), (12, 11), (8, 9, 7), (6, 5, 7, 6)])
def test_depths_and_the_jacobian_by_automatic_differentiation(hidden):
    field = zeroed_field(hidden, 0.6, base="gaussian", activation="softplus")
    sparse = SparseField(field, [True] * (len(hidden) + 1))
    t, z = torch.tensor(0.6, dtype=torch.float64), points()
    value, columns = sparse.tangents(t, z, basis())
    torch.testing.assert_close(columns.permute(1, 2, 0), jacobians(lambda x: field(t, x), z), **CLOSE[torch.float64])
    torch.testing.assert_close(value, sparse(t, z), **CLOSE[torch.float64])


@pytest.mark.parametrize("pattern", PATTERNS[:3])
def test_batches_in_tiles(pattern):
    width = TILE_BYTES // 8 // 10  # ten rows a tile
    field = zeroed_field((width, 4), 0.5)
    sparse = SparseField(field, [bool(one) for one in pattern])
    with torch.no_grad():
        for rows in (1, 9, 10, 11, 29, 41):
            z = points(rows)
            for t in (torch.tensor(0.3, dtype=torch.float64), normal(rows, 1, dtype=torch.float64).sigmoid()):
                for v in (basis(), normal(2, rows, 3, dtype=torch.float64)):
                    # 1e-11: sums of 3,000 terms
                    torch.testing.assert_close(sparse.tangents(t, z, v), field.tangents(t, z, v), rtol=0, atol=1e-11)
                torch.testing.assert_close(sparse(t, z), field(t, z), rtol=0, atol=1e-11)


def test_paths_are_the_two_layers_between_one_input_and_all_neurons():
    first, second, _ = zeroed_field(shares=0.7).linear_layers()
    found = paths(SparseLayer(first, True), SparseLayer(second, True))
    assert len(found) == 3
    for k, product_ in enumerate(found):
        expected = second.weight * first.weight[:, k]
        assert torch.equal(product_.to_dense(), expected.detach())
        assert product_.values().numel() == int(torch.count_nonzero(expected))
    assert paths(SparseLayer(first, True), SparseLayer(second, False)) == []


@pytest.mark.parametrize("dtype", list(CLOSE))
@pytest.mark.parametrize("time", TIMES)
def test_the_flow_keeps_its_outputs(time, dtype):
    flow = zeroed_flow(time=time, base="gaussian" if time == "concat" else "none", like=dtype)
    sparse = flow.to_sparse(threshold=0.5)
    assert all(isinstance(field, SparseField) for field in sparse.fields())
    x = points(dtype=dtype)
    close = {"rtol": 1e-11, "atol": 1e-11} if dtype is torch.float64 else CLOSE[dtype]
    with torch.no_grad():
        ours, theirs = sparse.transform(x, regularise=True), flow.transform(x, regularise=True)
        assert ours.nfe == theirs.nfe == 2 * 4 * 4
        for name in ("points", "trace", "kinetic", "jacobian"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), **close)
        torch.testing.assert_close(sparse.log_prob(x), flow.log_prob(x), **close)
        torch.testing.assert_close(sparse.to_data(x), flow.to_data(x), **close)
        draws = [one.sample(5, generator=torch.Generator().manual_seed(1)) for one in (sparse, flow)]
        torch.testing.assert_close(*draws, **close)
        noisy = [
            one.log_prob(x, divergence="hutchinson", generator=torch.Generator().manual_seed(1))
            for one in (sparse, flow)
        ]
        torch.testing.assert_close(*noisy, **close)


def test_an_adaptive_solver_takes_the_same_steps():
    flow = zeroed_flow()
    sparse = flow.to_sparse(threshold=0.5)
    solver = Solver("dopri5", 1e-6, 1e-6, compiled=False)  # the engine solves dense fields in small tiles
    ours, theirs = (likelihood(one, points().numpy(), solver) for one in (sparse, flow))
    assert ours.nfe == theirs.nfe
    torch.testing.assert_close(ours.log_prob, theirs.log_prob, rtol=1e-9, atol=1e-9)  # steps to rounding the same


def test_matrices_above_the_threshold_are_sparse():
    flow = Flow(zeroed_field((20, 19), [0.5, 0.9, 0.7]))
    shares = [sparsity(layer.weight) for layer in next(flow.compact().fields()).linear_layers()]
    assert shares[0] < shares[2] < BREAK_EVEN < shares[1]
    for threshold in (None, *shares, 0.0):
        field = next(flow.to_sparse(threshold).fields())
        limit = BREAK_EVEN if threshold is None else threshold
        if isinstance(field, MLPField):
            assert threshold == max(shares)
        else:
            assert [layer.sparse for layer in field.sparse_layers()] == [share > limit for share in shares]
    assert sparsity(torch.tensor([[0.0, 1.0, 0.0, 2.0, -0.0]])) == 0.6


def test_a_dense_flow_stays_as_it_is():
    flow = build_flow(FlowSpec(hidden=[10, 9], time="concat_squash", blocks=2), 3, seed=1)
    same = flow.to_sparse()
    assert all(isinstance(field, MLPField) for field in same.fields())
    assert all(torch.equal(tensor, flow.state_dict()[name]) for name, tensor in same.state_dict().items())
    assert all(p.requires_grad for p in same.parameters())
    other = Flow([LinearField(torch.eye(3)), MLPField(3, [], "tanh")]).to_sparse(0.0)
    assert [type(field) for field in other.fields()] == [LinearField, MLPField]


def test_dead_neurons_go_first_and_an_empty_matrix_will_do():
    flow = Flow(zeroed_field((12, 11), [0.0, 1.0, 0.0], time="concat"), solver=GRID)
    sparse = flow.to_sparse()
    assert next(sparse.fields()).hidden[0] == 1
    with torch.no_grad():
        torch.testing.assert_close(sparse.log_prob(points()), flow.log_prob(points()), rtol=1e-12, atol=1e-12)
        raw = Flow(SparseField(next(flow.fields()), [True] * 3), solver=GRID)
        torch.testing.assert_close(raw.log_prob(points()), flow.log_prob(points()), rtol=1e-12, atol=1e-12)


def test_only_what_is_not_zero_is_held():
    field = zeroed_field()
    sparse = SparseField(field, [True] * 3)
    nonzero = sum(int(torch.count_nonzero(layer.weight)) for layer in field.linear_layers())
    vectors = sum(p.numel() for p in field.parameters() if p.ndim == 1)
    assert sum(p.numel() for p in sparse.parameters()) == nonzero + vectors
    # a column index each, rows + 1 offsets a layer, 4 bytes each
    assert sum(b.numel() * b.element_size() for b in sparse.buffers()) == 4 * (nonzero + 13 + 12 + 4)
    assert (sparse.dim, sparse.hidden, Flow(sparse).dim) == (3, [12, 11], 3)
    assert isinstance(sparse, Field)


def test_gradients_are_refused():
    flow = zeroed_flow().to_sparse(threshold=0.5)
    x = points()
    assert not flow.log_prob(x).requires_grad  # nothing to differentiate by: no reason to refuse
    with pytest.raises(InputError, match="for inference only; use torch"):
        flow.log_prob(x.clone().requires_grad_())
    field = next(flow.fields())
    with pytest.raises(InputError, match="gradient was asked of a sparse flow"):
        field(torch.tensor(0.3, dtype=torch.float64, requires_grad=True), x)
    with pytest.raises(InputError, match="gradient was asked of a sparse flow"):
        flow.requires_grad_(True).log_prob(x)
    with torch.no_grad():
        flow.log_prob(x)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_share_is_refused(threshold):
    with pytest.raises(InputError, match="it is a share of zeros, from 0 to 1"):
        zeroed_flow().to_sparse(threshold)


def test_copies_precisions_and_loaded_states():
    flow = zeroed_flow()
    sparse = flow.to_sparse(threshold=0.5)
    t, z = torch.tensor(0.3, dtype=torch.float64), points()
    field = next(sparse.fields())
    value, _ = field.tangents(t, z, basis())  # what it multiplies by has been built
    assert torch.equal(next(copy.deepcopy(sparse).fields())(t, z), value)
    single = copy.deepcopy(field).float()
    found, _ = single.tangents(t.float(), z.float(), basis(torch.float32))
    torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-5)
    doubled = {name: 2 * tensor if name.endswith("values") else tensor for name, tensor in field.state_dict().items()}
    other = copy.deepcopy(field)
    other(t, z)
    other.load_state_dict(doubled)
    assert (other(t, z) - value).abs().max() > 0.01
    other.load_state_dict(field.state_dict())
    assert torch.equal(other(t, z), value)


def test_nobody_is_warned_of_sparse_tensors():
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # else only the first sparse tensor of the process warns
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            zeroed_flow().to_sparse(threshold=0.5).log_prob(points())
    finally:
        torch.set_warn_always(before)


def test_values_changed_behind_autograds_back_are_the_ones_that_are_multiplied():
    flow = Flow(MLPField(2, [12, 10], "tanh")).double()
    seeded_initialise(flow, 0, gain=2.0)
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(4, 2)
    with torch.inference_mode():
        weight = flow.get_parameter("blocks.0.field.layers.1.weight")
        weight[weight.abs() < weight.abs().median()] = 0.0
        made = flow.to_sparse(0.2)
    changes = (
        lambda values: values.data.mul_(0.5),
        lambda values: setattr(values, "data", 2.5 * values.data),
        lambda values: values.numpy().__imul__(0.7),
    )
    with torch.no_grad():
        made = copy.deepcopy(made)
        for index in (0, 1, 2):
            for change in changes:
                before = made.log_prob(x)
                change(made.chain()[0].field.layers[index].values)
                found = made.log_prob(x)
                assert (found - before).abs().max() > 1e-4
                torch.testing.assert_close(found, copy.deepcopy(made).log_prob(x), rtol=0, atol=1e-12)
