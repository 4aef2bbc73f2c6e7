"""Densities in the data's own coordinates where the flow sees columns through maps: they integrate to 1 over them."""

import copy

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from support import truths
from torch import nn

from sparseflows import load_file, save
from sparseflows.data.transforms.maps import Circular, Log, Logit, Power, Rank
from sparseflows.data.transforms.transformed import fit_transformed
from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver
from sparseflows.specs import FlowSpec

RNG = np.random.default_rng(0)
N = 800
SKEWED = np.exp(0.8 * RNG.normal(size=N))
SIGNED = np.exp(RNG.normal(size=N)) * RNG.choice([-1.0, 1.0], N)
SHARES = RNG.beta(2.0, 1.3, size=N)
DEGREES = np.degrees(RNG.vonmises(2.0, 0.6, size=N)) % 360
COLUMNS = {"log": SKEWED, "power": SIGNED, "logit": SHARES, "rank": SIGNED, "circular": DEGREES}
KINDS = {kind: kind for kind in COLUMNS} | {"logit": {"logit": [0.0, 1.0]}, "circular": {"circular": [0, 360]}}
MAPS = {
    "log": Log(),
    "power": Power.fit(SIGNED),
    "power 0": Power(0.0, 0.5, 2.0),
    "power 2": Power(2.0, 0.5, 2.0),
    "logit": Logit(0.0, 1.0),
    "rank": Rank.fit(SIGNED),
    "circular": Circular.fit(DEGREES, 0.0, 360.0),
}


def mapped(*kinds, seed=3):
    """A flow of curved paths that sees its columns through these maps ('' for none)."""
    rows = np.stack([COLUMNS[kind] if kind else RNG.normal(170, 9, N) for kind in kinds], 1)
    spec = FlowSpec(hidden=[16, 16], activation="tanh", time="concat", gain=1.5)
    flow = build_flow(spec, len(kinds), seed=seed).double()
    flow.solver = Solver("dopri5", 1e-7, 1e-7)
    wanted = {str(place): KINDS[kind] for place, kind in enumerate(kinds, 1) if kind}
    flow.standardiser = fit_transformed(rows, wanted, None, "rows")
    return flow


def density(flow, x):
    """p (N,) of rows (N, D) in own coordinates."""
    with torch.no_grad():
        return flow.distribution(coordinates="data", chunk=4000).log_prob(torch.from_numpy(x)).exp().numpy()


def spread(flow, column, n, reach=9.0):
    """Own values of a column, rising: n that the flow sees evenly; of a circle all of one period, evenly itself.

    The density of ranks jumps at their knots: a value just below and one just above each are there too.
    """
    one = dict(flow.standardiser.maps).get(column)
    if isinstance(one, Circular):
        return np.linspace(one.low, one.high, n)
    rows = np.zeros((n, len(flow.standardiser.shift)))
    rows[:, column] = np.linspace(-reach, reach, n)
    knots = np.array(one.values) if isinstance(one, Rank) else np.empty(0)
    beside = np.nextafter(knots, -np.inf), knots
    return np.unique(np.concatenate([flow.standardiser.invert(rows)[:, column], *beside]))


@pytest.mark.parametrize("kind", KINDS)
def test_it_integrates_to_1_over_the_columns_own_space(kind):
    flow = mapped(kind)
    x = spread(flow, 0, 8001)
    assert integrate.trapezoid(density(flow, x[:, None]), x) == pytest.approx(1, abs=2e-3)


def test_a_circle_has_one_density_whichever_turn_is_asked_for():
    flow = mapped("circular")
    x = np.linspace(0, 359, 50)[:, None]
    np.testing.assert_allclose(density(flow, x + 720), density(flow, x), rtol=1e-6)
    samples = flow.distribution(coordinates="data").sample((500,))
    assert ((samples >= 0) & (samples < 360)).all()


@pytest.mark.parametrize("kinds", [("log", "logit"), ("circular", ""), ("power", "log")])
def test_it_integrates_to_1_over_the_plane(kinds):
    flow = mapped(*kinds)
    axes = [spread(flow, place, 161, 7.0) for place in range(2)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = density(flow, grid.reshape(-1, 2)).reshape(grid.shape[:2])
    whole = integrate.trapezoid(integrate.trapezoid(values, axes[1], axis=1), axes[0])
    assert whole == pytest.approx(1, abs=0.01)


def test_a_field_that_stands_still_is_the_lognormal():
    flow = Flow(LinearField(torch.zeros(1, 1, dtype=torch.float64)))
    flow.standardiser = fit_transformed(SKEWED[:, None], {"1": "log"}, None, "rows")
    p, logs = flow.distribution(coordinates="data"), np.log(SKEWED)
    x = np.exp(RNG.normal(size=50))
    truth = stats.lognorm(logs.std(), scale=np.exp(logs.mean()))
    np.testing.assert_allclose(p.log_prob(torch.from_numpy(x)[:, None]).detach(), truth.logpdf(x), rtol=1e-9)
    found = p.entropy_with_error(4096, truths.generator(0))
    assert float(found.value.detach() - truth.entropy()) == pytest.approx(0, abs=5 * float(found.error))
    assert stats.kstest(p.expand((2000,)).sample().numpy()[:, 0], truth.cdf).pvalue > 1e-4


@pytest.mark.parametrize("kinds", [("log", "logit"), ("power", "circular"), ("rank", "")])
def test_samples_follow_the_density(kinds):
    """−E log p over samples is the entropy, which comes from the other direction of the solve."""
    flow = mapped(*kinds)
    p = flow.distribution(coordinates="data", generator=truths.generator(1))
    with torch.no_grad():
        log_prob = p.log_prob(p.sample((3000,)))
        found = p.entropy_with_error(3000)
    error = float(log_prob.std()) / 3000**0.5 + float(found.error)
    assert float(-log_prob.mean() - found.value) == pytest.approx(0, abs=5 * error)


def test_what_a_map_does_not_take_has_density_0():
    flow = mapped("log", "logit").requires_grad_(False)
    p = flow.distribution(coordinates="data", validate_args=False, on_failure="nan")
    rows = torch.tensor([[1.0, 0.5], [-3.0, 0.5], [2.0, 1.0], [0.0, -1.0], [torch.nan, 0.5]], dtype=torch.float64)
    rows.requires_grad_(True)
    found = p.log_prob(rows)
    assert torch.isneginf(found).tolist() == [False, True, True, True, False]
    assert torch.isnan(found).tolist() == [False, False, False, False, True]
    torch.testing.assert_close(found[0], p.log_prob(rows[:1])[0])
    found[0].backward()
    assert torch.isfinite(rows.grad[:4]).all()
    assert (rows.grad[0] != 0).all()
    assert (rows.grad[1:4] == 0).all()
    nothing = flow.distribution(coordinates="data").log_prob(rows.detach()[1:3])
    assert torch.isneginf(nothing).all()
    with pytest.raises(InputError, match="NaN"):
        flow.distribution(coordinates="data", validate_args=False).log_prob(rows.detach())


@pytest.mark.parametrize("kinds", [("log", "logit"), ("power", "circular"), ("rank", "")])
def test_gradients_reach_the_value_the_samples_and_the_parameters(kinds):
    flow = mapped(*kinds)
    flow.solver = Solver("rk4", steps=20)  # a solve whose steps do not move with the value
    value = torch.from_numpy(np.stack([COLUMNS[kind] if kind else np.full(N, 171.0) for kind in kinds], 1)[:3])
    p = flow.distribution(coordinates="data", validate_args=False)
    assert torch.autograd.gradcheck(p.log_prob, value.clone().requires_grad_(True), eps=1e-7, atol=1e-4, rtol=1e-4)
    weight = next(flow.parameters())

    def mean(of):
        return lambda: of(flow.distribution(coordinates="data", generator=truths.generator(4)))

    for function in (mean(lambda p: p.rsample((5,)).mean()), mean(lambda p: p.log_prob(value).sum())):
        flow.zero_grad()
        function().backward()
        slope, step = float(weight.grad[0, 0]), 1e-5
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                weight[0, 0] += sign * step
                ends.append(float(function()))
                weight[0, 0] -= sign * step
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", MAPS)
def test_bends_are_the_derivatives_of_slopes(kind):
    one = MAPS[kind]
    y = np.linspace(-3, 3, 61) + 0.01
    ends = (one.log_slope(y + s * 1e-6) for s in (1, -1))
    smooth = np.ones(len(y), dtype=bool)
    if isinstance(one, Rank):
        smooth = np.searchsorted(one.scores, y + 1e-6) == np.searchsorted(one.scores, y - 1e-6)
    found = np.subtract(*ends) / 2e-6
    np.testing.assert_allclose(one.bend(y)[smooth], found[smooth], atol=1e-6)


def test_what_a_flow_of_float32_draws_has_a_density():
    """Near the end of a logit float32 has no numbers left: a sample would be at the end itself."""
    flow = mapped("logit").float()
    flow.standardiser = fit_transformed(1 - 1e-9 * SKEWED[:, None], {"1": {"logit": [0.0, 1.0]}}, None, "rows")
    p = flow.distribution(coordinates="data")
    samples = p.sample((500,))
    assert samples.dtype is torch.float64
    assert (samples < 1).all()
    assert torch.isfinite(p.log_prob(samples)).all()


def test_maps_are_saved_with_the_flow(tmp_path):
    flow = mapped("log", "circular")
    again = load_file(save(flow, tmp_path / "flow.safetensors"))
    rows = torch.from_numpy(np.stack([SKEWED, DEGREES], 1)[:20])
    found, kept = (one.distribution(coordinates="data").log_prob(rows) for one in (again, copy.deepcopy(flow)))
    torch.testing.assert_close(found, kept, rtol=1e-12, atol=1e-12)
    assert isinstance(again, nn.Module)
