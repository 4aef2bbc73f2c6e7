"""Modules followed: names, sizes and constants are the ones a forward pass shows; what cannot be followed is named."""

import copy
from itertools import pairwise

import pytest
import torch
from support.networks import CASES, MODULES, assert_same_state, make, sample, state_of
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sparseflows.errors import InputError
from sparseflows.pruning.graph.modules.chains import follow


def test_a_multilayer_perceptron_is_a_chain():
    links = follow(make("mlp"))
    assert [(x.name, x.kind, x.weight, x.vectors, x.bias) for x in links] == [
        (n, "linear", f"{n}.weight", (f"{n}.bias",), f"{n}.bias") for n in "024"
    ]
    assert [(x.n_in, x.n_out, x.per_neuron) for x in links] == [(4, 7, 1), (7, 5, 1), (5, 3, 1)]
    assert all(x.foldable and not x.sees_time for x in links)
    assert [x.constants is None for x in links] == [False, False, True]


def test_channels_own_their_batch_norm_and_their_pixels():
    chain = follow(make("conv"))
    assert [(x.name, x.kind, x.n_in, x.n_out, x.per_neuron) for x in chain] == [
        ("0", "conv", 2, 5, 9),
        ("4", "conv", 5, 4, 6),
        ("9", "linear", 4, 6, 4),
        ("11", "linear", 6, 3, 1),
    ]
    assert [x.vectors for x in chain] == [
        ("0.bias", "1.weight", "1.bias"),
        ("5.weight", "5.bias"),
        ("9.bias",),
        ("11.bias",),
    ]
    assert [x.norms for x in chain] == [("1",), ("5",), (), ()]
    assert [x.bias for x in chain] == ["0.bias", None, "9.bias", "11.bias"]
    assert [x.foldable for x in chain] == [True, False, True, True]  # without a bias nothing is taken up


def test_zero_padding_cannot_take_up_a_constant():
    assert [x.foldable for x in follow(make("padded"))] == [False, False, True, False]  # the third reflects
    points = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1, padding="same"), nn.Conv2d(2, 2, 3, padding="valid"))
    assert all(x.foldable for x in follow(points))


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_has_its_place(name):
    module = make(name)
    links = follow(module)
    placed = [own for link in links for own in (link.weight, *link.vectors)]
    assert len(placed) == len(set(placed))
    before = {"0.weight", "0.bias"} if name == "norm_mlp" else set()  # of the inputs' own batch norm
    assert set(placed) == {own for own, _ in module.named_parameters()} - before
    for link in links:
        assert module.get_parameter(link.weight).flatten(1).shape == (link.n_out, link.n_in * link.per_neuron)
        assert all(module.get_parameter(own).shape == (link.n_out,) for own in link.vectors)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_constants_are_what_the_next_layer_sees(name, activation):
    module = make(name, activation)
    links = follow(module)
    for link, following in pairwise(links):
        silent, seen = copy.deepcopy(module), []
        with torch.no_grad():
            silent.get_parameter(link.weight).zero_()
        silent.get_submodule(following.name).register_forward_pre_hook(
            lambda _, given, seen=seen: seen.append(given[0])
        )
        with torch.no_grad():
            silent(sample(name))
        neurons = seen[0].reshape(len(seen[0]), link.n_out, -1)
        # 1e-14: averages over pixels round.
        torch.testing.assert_close(neurons, link.constants()[None, :, None].expand_as(neurons), rtol=1e-13, atol=1e-14)


def test_constants_follow_the_parameters():
    module = make("mlp", "tanh")
    link = follow(module)[0]
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(0.5)
    assert torch.equal(link.constants(), torch.full((7,), 0.5, dtype=torch.float64).tanh())
    assert not link.constants().requires_grad


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2, padding=1), nn.AvgPool2d(2, ceil_mode=True)])
def test_a_pool_that_bends_constants_is_not_folded(pool):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), pool, nn.Sigmoid(), nn.Flatten(), nn.Linear(27, 2))
    with torch.no_grad():
        module[0].bias.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    links = follow(module)
    assert not links[1].foldable
    assert links[0].constants().isnan().tolist() == [False, False, True]
    assert links[0].constants()[:2].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2, padding=1), nn.AvgPool2d(2, padding=1, count_include_pad=False)])
def test_a_pool_that_keeps_constants_is_folded(pool):
    module = nn.Sequential(nn.Conv2d(1, 3, 3), pool, nn.Flatten(), nn.Linear(12, 2))
    assert follow(module)[1].foldable
    assert torch.equal(follow(module)[0].constants(), module[0].bias)


@pytest.mark.parametrize("name", MODULES)
def test_following_leaves_the_module_alone(name):
    module = make(name).train()
    module.get_submodule(follow(module)[0].name).eval()
    before = state_of(module)
    follow(module)
    assert_same_state(before, state_of(module))


# --- what cannot be followed


class Net(nn.Module):
    """Two layers; `middle` says what happens between them, with the module at hand."""

    def __init__(self, middle, second=None, **parts):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = second or nn.Conv2d(4, 4, 1)
        self.middle = middle
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.second(self.middle(self, self.first(x)))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, t, x):
        return self.layer(x) * t


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        h = self.layer(x)
        return h, h.relu()


def tied():
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    module[2].weight = module[0].weight
    return module


def twice():
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


REFUSED = {
    "skip": (nn.Sequential(nn.Linear(2, 4), Skip(), nn.Linear(4, 2)), "add in '1' joins two branches"),
    "cat": (Net(lambda net, x: torch.cat([x, x.relu()], 1), nn.Conv2d(8, 4, 1)), "cat (cat) joins two branches"),
    "branch": (Net(lambda net, x: (net.side(x), x.relu())[1], side=nn.Conv2d(4, 4, 1)), "relu (relu) reads a value"),
    "inputs": (TwoInputs(), "TwoInputs takes several inputs (t, x)"),
    "outputs": (TwoOutputs(), "TwoOutputs returns more than"),
    "control flow": (Net(lambda net, x: x if x.sum() > 0 else -x), "Net cannot be traced (symbolically traced"),
    "length": (Net(lambda net, x: x.view(len(x), -1)), "Net cannot be traced"),
    "groups": (Net(lambda net, x: x, nn.Conv2d(4, 4, 1, groups=2)), "'second' (Conv2d) has groups=2"),
    "transposed": (
        Net(lambda net, x: net.up(x), up=nn.ConvTranspose2d(4, 4, 2)),
        "'up' (ConvTranspose2d) after 'first'",
    ),
    "layer norm": (
        nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        "'1' (LayerNorm) after '0' (Linear)",
    ),
    "softmax": (nn.Sequential(nn.Linear(2, 4), nn.Softmax(1), nn.Linear(4, 2)), "'1' (Softmax) after '0' (Linear)"),
    "first": (nn.Sequential(nn.Embedding(2, 4), nn.Linear(4, 2)), "'0' (Embedding) has parameters"),
    "last": (nn.Sequential(nn.Linear(4, 2), nn.LayerNorm(2)), "'1' (LayerNorm) has parameters"),
    "prelu": (nn.Sequential(nn.Linear(2, 4), nn.PReLU(4), nn.Linear(4, 2)), "'1' (PReLU) after '0' (Linear)"),
    "times": (Net(lambda net, x: x * 2), "mul (mul) after 'first' (Conv2d)"),
    "noise": (Net(lambda net, x: F.dropout(x, 0.5)), "dropout (dropout) after 'first' (Conv2d)"),
    "own": (Net(lambda net, x: F.relu(x) * net.second.bias[0]), "getitem (getitem) reads"),
    "direct": (Net(lambda net, x: F.conv2d(x, net.second.weight)), "conv2d (conv2d) uses 'second.weight' by itself"),
    "view": (Net(lambda net, x: x.view(-1, 4), nn.Linear(4, 2)), "view (view) after 'first' (Conv2d)"),
    "flatten": (Net(lambda net, x: torch.flatten(x), nn.Linear(4, 2)), "flatten (flatten) after 'first' (Conv2d)"),
    "flat pool": (
        Net(lambda net, x: F.max_pool2d(x.flatten(1), 2), nn.Linear(4, 2)),
        "max_pool2d (max_pool2d) pools over",
    ),
    "no flatten": (Net(lambda net, x: x, nn.Linear(4, 2)), "'second' (Linear) reads the maps of 'first' (Conv2d)"),
    "pixels": (Net(lambda net, x: x.flatten(1), nn.Linear(6, 2)), "'second' (Linear) reads 6 values of the 4 neurons"),
    "late conv": (Net(lambda net, x: x.flatten(1)), "'second' (Conv2d) reads no maps"),
    "late norm": (
        Net(lambda net, x: net.norm(x.flatten(1)), nn.Linear(16, 2), norm=nn.BatchNorm1d(16)),
        "'norm' (BatchNorm1d) does not norm the neurons of 'first' (Conv2d)",
    ),
    "statistics": (
        nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
        "'1' (BatchNorm1d) keeps no running statistics",
    ),
    "twice": (twice(), "'0' is used twice"),
    "tied": (tied(), "'2' (Linear) shares its weight or computes it"),
    "computed": (
        nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 4)), nn.Linear(4, 2)),
        "a parametrization",
    ),
    "alone": (nn.Linear(2, 4), "a Linear alone is no chain"),
    "none": (nn.Sequential(nn.ReLU()), "Sequential has no Linear or Conv2d layer"),
    "lazy": (nn.Sequential(nn.Linear(2, 4), nn.LazyLinear(4)), "'1' (LazyLinear) has no weights yet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_followed_is_named(case):
    module, words = REFUSED[case]
    before = [part.training for part in module.modules()]
    with pytest.raises(InputError) as caught:
        follow(module)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == [part.training for part in module.modules()]


def test_what_is_said_also_says_what_to_do():
    with pytest.raises(InputError) as caught:
        follow(REFUSED["skip"][0])
    assert str(caught.value) == (
        "add in '1' joins two branches; pruning follows chains of Linear and Conv2d layers: "
        "prune its branches as modules of their own"
    )


def test_one_activation_may_serve_several_places():
    sigma = nn.Tanh()
    assert len(follow(nn.Sequential(nn.Linear(2, 3), sigma, nn.Linear(3, 3), sigma, nn.Linear(3, 2)))) == 3


@pytest.mark.parametrize("write", ["view", "reshape", "flatten"])
def test_ways_to_write_flatten(write):
    ways = {
        "view": lambda net, x: x.view(x.shape[0], -1),
        "reshape": lambda net, x: torch.reshape(x, (x.size()[0], -1)),
        "flatten": lambda net, x: torch.flatten(x, 1),
    }
    assert follow(Net(ways[write], nn.Linear(16, 2)))[1].per_neuron == 4
