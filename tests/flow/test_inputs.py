"""What a person gives a flow becomes points, or one sentence says what would be right."""

import copy
import datetime

import numpy as np
import pytest
import torch
from support.truths import normal
from torch import nn
from torch.autograd import forward_ad

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.divergence import draw_noise
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

ROWS = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])


@pytest.fixture(scope="module")
def flow():
    made = Flow(MLPField(2, [8], "tanh"))
    seeded_initialise(made, 0)
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    "given",
    [
        ROWS.astype(">f8"),
        ROWS.astype(">f4"),
        ROWS.astype(np.longdouble),
        ROWS.astype(np.float16),
        ROWS.astype(object),
        np.asfortranarray(ROWS),
        ROWS[::-1][::-1],
        np.ma.masked_array(ROWS),
        [torch.tensor(row) for row in ROWS],
    ],
    ids=str,
)
def test_numbers_of_any_kind_are_the_same_points(flow, given):
    torch.testing.assert_close(flow.log_prob(given), flow.log_prob(torch.tensor(ROWS)))


def test_views_backwards_are_read_as_they_look(flow):
    torch.testing.assert_close(flow.log_prob(ROWS[::-1]), flow.log_prob(ROWS).flip(0))


@pytest.mark.filterwarnings("ignore:.*(quantize|beta state|prototype)")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ROWS + 1j, "complex128"),
        (ROWS.astype("i8").astype("M8[s]"), "datetime64"),
        (ROWS.astype("i8").astype("m8[s]"), "timedelta64"),
        (ROWS.astype(str), "<U32"),
        ([[datetime.date(2020, 1, 1), 1.0]], "datetime.date"),
        (np.array([["1", 2.0]], dtype=object), "'1'"),
        (ROWS > 0, "bool"),
        (torch.tensor(ROWS).to_sparse(), "to_dense"),
        (torch.tensor(ROWS).to("meta"), "meta"),
        (torch.quantize_per_tensor(torch.tensor(ROWS).float(), 0.1, 0, torch.qint8), "quantised"),
        (np.ma.masked_array(ROWS, mask=ROWS > 2.5), "row 2 .* NaN"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused_by_name(flow, given, said):
    with pytest.raises(InputError, match=said):
        flow.log_prob(given)


@pytest.mark.parametrize(
    "options",
    [
        {"chunk": -1},
        {"chunk": 2.5},
        {"chunk": True},
        {"divergence": None},
        {"noise": "gaus"},
        {"generator": 0},
        {"generator": np.random.default_rng(0)},
        {"solver": "rk4"},
        {"solver": 1e-3},
    ],
    ids=lambda options: f"{next(iter(options))}, {type(next(iter(options.values()))).__name__}",
)
def test_an_option_that_is_none_is_refused(flow, options):
    with pytest.raises(InputError, match=next(iter(options))):
        flow.log_prob(ROWS, **options)


def test_samples_and_distributions_refuse_options_that_are_none(flow):
    for wrong in ({"solver": "rk4"}, {"generator": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            flow.sample(2, **wrong)
    for wrong in ({"solver": "rk4"}, {"chunk": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            flow.distribution(**wrong)


def test_a_generator_of_another_device_is_refused(flow):
    elsewhere = copy.deepcopy(flow).to("meta")
    with pytest.raises(InputError, match=r"generator draws on the device cpu, the flow is on meta; give torch.Gen"):
        elsewhere.sample(2, generator=torch.Generator())
    like = torch.zeros(3, 2, device="meta")
    for noise in ("rademacher", "gaussian"):
        with pytest.raises(InputError, match="generator draws on the device cpu"):
            draw_noise(noise, like, torch.Generator())


@pytest.mark.parametrize(
    "options", [{"rtol": "1e-5"}, {"atol": True}, {"max_nfe": True}, {"compiled": "no"}, {"rtol": None}], ids=str
)
def test_a_solver_of_other_kinds_of_numbers_is_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Solver(**options)
    assert Solver("rk4", steps=np.int64(3)).steps == 3


def test_the_parts_of_a_flow_fit_each_other():
    for parts in (
        lambda: Flow([MLPField(2, [3]), MLPField(3, [3])]),
        lambda: Flow(MLPField(2, [3]), whitening=torch.eye(3)),
        lambda: Flow(MLPField(2, [3]), whitening=np.eye(2)),
        lambda: Flow(lambda t, z: z),
        lambda: Flow("field"),
        lambda: MLPField(2, [0]),
        lambda: MLPField(2, 3),
        lambda: MLPField(2.0, [3]),
    ):
        with pytest.raises(InputError):
            parts()


class Gives(nn.Module):
    dim = 2

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, t, z):
        return self.what(z)


@pytest.mark.parametrize("what", [lambda z: z[:, :1], lambda z: (z, z), lambda z: torch.ones(2)], ids=range(3))
def test_a_field_that_gives_another_shape_is_refused(what):
    with pytest.raises(InputError, match="a field gives their shape"):
        Flow(Gives(what)).log_prob(ROWS)


def test_rows_far_from_zero_keep_their_digits_on_the_way_into_standardised_coordinates(flow):
    flow.standardiser = Standardiser(np.array([1e9, -3e8]), np.array([1.0, 2.0]))
    z = normal(6, 2)
    x = z * torch.tensor([1.0, 2.0], dtype=torch.float64) + torch.tensor([1e9, -3e8], dtype=torch.float64)
    found = flow.distribution(coordinates="data").log_prob(x)
    flow.standardiser = None
    torch.testing.assert_close(found, flow.log_prob(z) - torch.tensor(2.0).log(), rtol=1e-4, atol=1e-4)


def test_forward_mode_and_maps_over_rows_are_refused_with_the_remedy(flow):
    x = normal(3, 2).float()
    with pytest.raises(InputError, match="fixed steps"), forward_ad.dual_level():
        flow.log_prob(forward_ad.make_dual(x, torch.ones_like(x)))
    with pytest.raises(InputError, match="cannot be mapped"):
        torch.func.vmap(lambda z: flow.sample(1) + z, randomness="different")(x)
