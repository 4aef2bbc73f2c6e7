"""A flow as a torch distribution, against the Gaussian that a linear field makes."""

import copy
import math

import numpy as np
import pytest
import torch
from support import truths
from support.arrays import pairwise
from torch import distributions as td
from torch import nn

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow
from sparseflows.flow.distribution import FlowDistribution
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs import FlowSpec

TIGHT = Solver("dopri5", 1e-9, 1e-9)
CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # some tens of steps at 1e-9 each
SHIFT, SCALE = np.array([1.0, -2.0]), np.array([0.5, 3.0])


def linear(matrix=truths.SPIRAL):
    return Flow(LinearField(torch.tensor(matrix, dtype=torch.float64)), solver=TIGHT)


def gaussian(matrix=truths.SPIRAL):
    """Of x with e^A x ~ N(0, I)."""
    carried = torch.linalg.matrix_exp(torch.tensor(matrix, dtype=torch.float64))
    return td.MultivariateNormal(torch.zeros(len(matrix)).double(), precision_matrix=carried.T @ carried)


def standardised():
    flow = linear()
    flow.standardiser = Standardiser(SHIFT, SCALE)
    return flow


def gaussian_of_data():
    of_z = gaussian()
    scale = torch.diag(torch.from_numpy(SCALE))
    return td.MultivariateNormal(torch.from_numpy(SHIFT), scale @ of_z.covariance_matrix @ scale)


def curved(seed=0):
    """A small network that moves the noise well off a Gaussian."""
    spec = FlowSpec(hidden=[16, 16], activation="tanh", time="concat", gain=2.5)
    return build_flow(spec, 2, seed=seed).double()


@pytest.mark.parametrize(
    *pairwise(
        matrix=[truths.SPIRAL, truths.SHEAR, truths.FULL],
        batch=[(), (3,), (2, 3)],
        rows=[(), (3,), (2, 3), (5, 1, 3), (4, 2, 1)],
    )
)
def test_log_prob_is_a_gaussians_and_has_its_shape(matrix, batch, rows):
    ours, theirs = linear(matrix).distribution(dim=len(matrix)).expand(batch), gaussian(matrix).expand(batch)
    value = truths.normal(*rows, len(matrix))
    found, wanted = ours.log_prob(value), theirs.log_prob(value)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, **CLOSE)


def test_gradients_reach_the_value_and_the_parameters():
    flow, value = linear(), truths.normal(4, 3, 2).requires_grad_(True)
    flow.distribution(dim=2).expand((3,)).log_prob(value).sum().backward()
    again = value.detach().clone().requires_grad_(True)
    matrix = torch.tensor(truths.SPIRAL, dtype=torch.float64, requires_grad=True)
    carried = torch.linalg.matrix_exp(matrix)
    td.MultivariateNormal(torch.zeros(2).double(), precision_matrix=carried.T @ carried).log_prob(
        again
    ).sum().backward()
    torch.testing.assert_close(value.grad, again.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(next(flow.parameters()).grad, matrix.grad, rtol=1e-5, atol=1e-5)


def test_data_coordinates_are_the_change_of_variables():
    ours, theirs = standardised().distribution(coordinates="data"), gaussian_of_data()
    value = truths.normal(7, 2, seed=3) * 2
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), **CLOSE)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), **CLOSE)
    samples = ours.expand((20_000,)).sample()
    # Six standard errors of the mean and of the covariance of 20,000 samples.
    deviation = theirs.covariance_matrix.diagonal().sqrt()
    assert ((samples.mean(0) - theirs.mean).abs() < 6 * deviation / math.sqrt(20_000)).all()
    bound = 6 * math.sqrt(2 / 20_000) * deviation[:, None] * deviation
    assert ((torch.cov(samples.T) - theirs.covariance_matrix).abs() < bound).all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("shape", [(), (4,), (4, 5)])
def test_samples_have_torchs_shapes_and_copies_are_independent(batch, shape):
    ours, theirs = linear().distribution(dim=2).expand(batch), gaussian().expand(batch)
    assert ours.batch_shape == theirs.batch_shape
    assert ours.event_shape == theirs.event_shape
    samples = ours.sample(shape)
    assert samples.shape == theirs.sample(shape).shape
    assert not samples.requires_grad
    assert len(samples.reshape(-1, 2).unique(dim=0)) == max(1, math.prod(shape) * math.prod(batch))


def test_no_samples_and_no_rows_are_fine():
    ours = linear().distribution(dim=2, validate_args=False)  # torch's own validation trips over empty tensors
    assert ours.sample((0,)).shape == (0, 2)
    assert ours.log_prob(torch.empty(0, 2).double()).shape == (0,)
    assert ours.expand((3,)).log_prob(torch.empty(0, 1, 2).double()).shape == (0, 3)


def test_rsample_is_the_noise_carried_and_has_its_gradient():
    flow = linear()
    ours = flow.distribution(dim=2, generator=truths.generator(5))
    samples = ours.rsample((6,))
    noise = torch.randn(6, 2, generator=truths.generator(5), dtype=torch.float64)
    matrix = torch.tensor(truths.SPIRAL, dtype=torch.float64, requires_grad=True)
    wanted = noise @ torch.linalg.matrix_exp(-matrix).T
    torch.testing.assert_close(samples, wanted, **CLOSE)
    weights = truths.normal(6, 2, seed=8)
    (samples * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(next(flow.parameters()).grad, matrix.grad, rtol=1e-5, atol=1e-5)


def test_a_gaussians_entropy_has_no_error_but_the_solvers():
    found = linear().distribution(dim=2).entropy_with_error(50)
    torch.testing.assert_close(found.value, gaussian().entropy(), **CLOSE)
    assert found.error < 1e-7


def test_entropy_is_within_its_error_of_the_mean_log_prob_of_other_samples():
    ours = curved().distribution(generator=truths.generator(1))
    with torch.no_grad():
        log_prob = ours.log_prob(ours.sample((40_000,)))
        wanted, its_error = -log_prob.mean(), log_prob.std() / 200
        found = [ours.entropy_with_error(500, truths.generator(seed)) for seed in range(40)]
    values, errors = torch.stack([one.value for one in found]), torch.stack([one.error for one in found])
    assert abs(values.mean() - wanted) < 4 * math.hypot(its_error, values.std() / math.sqrt(40))
    # A standard deviation from 40 values is known to 11 %: the stated error may be off by four times that.
    assert 0.56 < errors.mean() / values.std() < 1.44
    assert errors.mean() < log_prob.std() / math.sqrt(500)  # the control variate is worth its name


def test_entropy_has_the_gradient_of_a_gaussians():
    flow = linear(truths.SHEAR)
    flow.distribution(dim=2).entropy_with_error(10).value.backward()
    # H = D/2 log 2πe − tr A
    torch.testing.assert_close(next(flow.parameters()).grad, -torch.eye(2).double(), **CLOSE)


def test_entropy_has_the_batch_shape():
    ours = linear().distribution(dim=2).expand((2, 3))
    assert ours.entropy().shape == (2, 3)
    assert ours.entropy_with_error(5).error.shape == (2, 3)
    with pytest.raises(InputError, match="at least 3"):
        ours.entropy_with_error(2)


def test_independent_of_copies():
    ours = td.Independent(linear().distribution(dim=2).expand((4, 3)), 1)
    theirs = td.Independent(gaussian().expand((4, 3)), 1)
    value = truths.normal(5, 4, 3, 2)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), **CLOSE)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), **CLOSE)
    assert ours.rsample((5,)).shape == theirs.rsample((5,)).shape
    assert ours.expand((2, 4)).log_prob(value[0]).shape == theirs.expand((2, 4)).log_prob(value[0]).shape


@pytest.mark.parametrize(
    "transforms",
    [
        [td.AffineTransform(torch.tensor([1.0, 2.0]).double(), torch.tensor([0.5, -3.0]).double())],
        [td.ExpTransform()],
        [td.SigmoidTransform(), td.AffineTransform(1.0, 2.0)],
    ],
)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_transformed(transforms, batch):
    ours = td.TransformedDistribution(linear().distribution(dim=2).expand(batch), transforms)
    theirs = td.TransformedDistribution(gaussian().expand(batch), transforms)
    assert (ours.batch_shape, ours.event_shape) == (theirs.batch_shape, theirs.event_shape)
    value = theirs.sample((4,))
    torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), **CLOSE)
    assert ours.rsample((6,)).shape == theirs.rsample((6,)).shape
    assert ours.support.event_dim == theirs.support.event_dim


def test_expand_goes_on_and_refuses_what_does_not_fit():
    ours = linear().distribution(dim=2).expand((3,))
    assert ours.expand((2, 3)).batch_shape == (2, 3)
    with pytest.raises(RuntimeError):
        ours.expand((4,))
    assert ours.expand((2, 3)).log_prob(torch.zeros(2).double()).shape == (2, 3)


@pytest.mark.parametrize("wrong", [(3,), (4, 3), ()])
def test_validation_is_torchs(wrong):
    ours, theirs = linear().distribution(dim=2), gaussian()
    value = torch.zeros(wrong).double()
    for one in (ours, theirs):
        with pytest.raises(ValueError, match=r"shape|dim"):
            one.log_prob(value)


def test_nan_is_refused_and_batches_must_fit():
    ours = linear().distribution(dim=2)
    with pytest.raises(ValueError, match="support"):
        ours.log_prob(torch.tensor([[0.0, math.nan]]).double())
    with pytest.raises(ValueError, match="broadcast"):
        ours.expand((3,)).log_prob(torch.zeros(2, 2).double())
    with pytest.raises(InputError, match="NaN"):
        linear().distribution(dim=2, validate_args=False).log_prob(torch.tensor([[0.0, math.nan]]).double())


def test_validation_can_be_switched_off_and_survives_expand():
    quiet = curved().distribution(validate_args=False).expand((3,))
    assert quiet._validate_args is False
    with pytest.raises(InputError, match="the flow takes"):
        quiet.log_prob(torch.zeros(3, 3).double())
    assert curved().distribution(validate_args=True).expand((3,))._validate_args is True


def test_another_precision_is_converted_to_the_flows():
    found = linear().distribution(dim=2).log_prob(torch.ones(2))
    assert found == linear().distribution(dim=2).log_prob(torch.ones(2).double())


def test_what_is_missing_is_said():
    with pytest.raises(InputError, match="pass dim"):
        linear().distribution()
    with pytest.raises(InputError, match="dim=3, but the flow has 2"):
        curved().distribution(dim=3)
    with pytest.raises(InputError, match="no standardiser"):
        curved().distribution(coordinates="data")
    with pytest.raises(InputError, match="unknown coordinates 'raw'"):
        curved().distribution(coordinates="raw")


def test_the_dimension_is_found_where_it_is_known():
    class Own(nn.Module):
        dim = 3

        def forward(self, t, z):
            return -z

    assert Flow(Own()).distribution().event_shape == (3,)
    assert Flow(LinearField(torch.eye(2)), whitening=torch.eye(2)).distribution().event_shape == (2,)
    assert standardised().distribution().event_shape == (2,)
    assert Flow(Own()).distribution().sample((4,)).shape == (4, 3)  # no parameters: PyTorch's default precision


def test_one_generator_one_sequence():
    one, two = (curved().distribution(generator=truths.generator(2)) for _ in range(2))
    assert torch.equal(one.sample((3,)), two.sample((3,)))
    assert not torch.equal(one.sample((3,)), curved().distribution(generator=truths.generator(2)).sample((3,)))


@torch.no_grad()
def test_chunks_change_nothing_but_the_steps():
    flow = curved()
    value = truths.normal(50, 2)
    whole, parts = flow.distribution(solver=TIGHT), flow.distribution(solver=TIGHT, chunk=7)
    torch.testing.assert_close(parts.log_prob(value), whole.log_prob(value), **CLOSE)
    one, two = (p.entropy_with_error(50, truths.generator(0)).value for p in (whole, parts))
    torch.testing.assert_close(one, two, **CLOSE)


def test_it_follows_its_flow_and_copies_with_it():
    flow = curved()
    ours = flow.distribution()
    assert isinstance(ours, FlowDistribution)
    value = truths.normal(3, 2)
    before, apart = ours.log_prob(value), copy.deepcopy(ours)
    with torch.no_grad():
        next(flow.parameters()).mul_(0.5)
    assert not torch.allclose(ours.log_prob(value), before)
    torch.testing.assert_close(apart.log_prob(value), before)
    assert repr(ours.expand((2,))) == "FlowDistribution(batch_shape=(2,), event_shape=(2,), coordinates='standardised')"
