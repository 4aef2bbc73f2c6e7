"""Vector fields of one's own, pruned by the same calls as the package's."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from support import truths
from torch import nn
from torch.nn import functional as F

import sparseflows as sf
from sparseflows.errors import InputError
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.cutting.unstructured import prune_weights
from sparseflows.pruning.graph.fields.chains import field_chains
from sparseflows.pruning.graph.groups import chains, count_params, hidden_layers, least_params
from sparseflows.pruning.graph.masks import masks_of_neurons, neurons_of_masks
from sparseflows.pruning.methods import METHODS, Pruned
from sparseflows.pruning.observing.observe import observe
from sparseflows.specs import TrainSpec
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import NegativeLogLikelihood

LOOSE = Solver("dopri5", 1e-3, 1e-3)
WEIGHT_METHODS = sorted(name for name, method in METHODS.items() if method.kind == "weights")
NEURON_METHODS = sorted(name for name, method in METHODS.items() if method.kind == "neurons")


class Residual(nn.Module):
    """t beside z, a block around which a residual goes, and a head."""

    def __init__(self, dim=2, width=8, inner=10):
        super().__init__()
        self.lift = nn.Linear(dim + 1, width)
        self.block = nn.Sequential(nn.Linear(width, inner), nn.Tanh(), nn.Linear(inner, width))
        self.head = nn.Linear(width, dim)

    def forward(self, t, z):
        if t.ndim < 2:  # a scalar in a solve, (B, 1) in flow matching
            t = t.expand(len(z), 1)
        h = torch.tanh(self.lift(torch.cat([z, t], 1)))
        return self.head(h + self.block(h))


class Fourier(nn.Module):
    """sin and cos of t are embedded by a network of their own, whose output is added."""

    def __init__(self, dim=2, width=8):
        super().__init__()
        self.register_buffer("rates", torch.tensor([1.0, 2.0, 4.0]))
        self.embed = nn.Sequential(nn.Linear(6, 7), nn.SiLU(), nn.Linear(7, width))
        self.first, self.second, self.last = nn.Linear(dim, width), nn.Linear(width, 9), nn.Linear(9, dim)

    def forward(self, t, z):
        angles = math.pi * t.reshape(-1, 1) * self.rates  # (1, 3): the same for all rows
        time = self.embed(torch.cat([angles.sin(), angles.cos()], 1))
        h = F.softplus(self.first(z) + time)
        return self.last(0.5 * torch.sigmoid(self.second(h)) + 1)


class Plain(nn.Module):
    """A Sequential that does not look at t."""

    def __init__(self, dim=2):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim, 9), nn.Tanh(), nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, dim)
        )

    def forward(self, t, z):
        return self.net(z)


class Timed(nn.Module):
    """t beside z, then a chain: all hidden neurons can go."""

    def __init__(self, dim=2):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, 9), nn.Softplus(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, dim))

    def forward(self, t, z):
        return self.net(torch.cat([z, t.expand(z.size(0), 1)], dim=-1))


FIELDS = [Residual, Fourier, Plain, Timed]
WEIGHT_CASES = [*((Fourier, name) for name in WEIGHT_METHODS), *((kind, "snip") for kind in FIELDS[:1] + FIELDS[2:])]
NEURON_CASES = [*((Timed, name) for name in NEURON_METHODS), *((kind, "structured") for kind in FIELDS[:3])]


def make(kind, seed=0):
    torch.manual_seed(seed)
    return sf.Flow(kind().double(), solver=Solver("dopri5", 1e-8, 1e-8))


def names(kind):
    prefix = "blocks.0.field.module."
    return [[link.name.removeprefix(prefix) for link in chain] for chain in chains(make(kind))]


def sample(seed=1):
    return sf.Sample(truths.normal(4, 2, seed=seed), fresh=truths.normal(10, 2, seed=seed + 1))


def velocities(flow, seed=9):
    z = truths.normal(20, 2, seed=seed)
    field = next(flow.fields())
    return torch.stack([field(torch.tensor(t).double(), z) for t in (0.0, 0.4, 1.0)])


def test_chains_end_where_something_else_reads_the_neurons():
    assert names(Residual) == [["lift"], ["block.0", "block.2"], ["head"]]
    assert names(Fourier) == [["embed.0", "embed.2"], ["first"], ["second", "last"]]
    assert names(Plain) == [["net.0", "net.2", "net.4"]]
    assert names(Timed) == [["net.0", "net.2", "net.4"]]


@pytest.mark.parametrize("kind", FIELDS)
def test_following_leaves_the_field_as_it_was(kind):
    flow = make(kind)
    before, modes = copy.deepcopy(flow.state_dict()), [part.training for part in flow.modules()]
    chains(flow)
    assert all(torch.equal(before[name], tensor) for name, tensor in flow.state_dict().items())
    assert [part.training for part in flow.modules()] == modes


@pytest.mark.parametrize(("kind", "method"), WEIGHT_CASES)
def test_weights_are_masked_to_the_count(kind, method):
    flow = make(kind)
    total = count_params(flow)
    target = round(0.7 * total)
    pruned = sf.prune(method, sf.unpruned(flow), flow, target, sample=sample(), seed=3)
    tensors = dict(pruned.flow.named_parameters())
    assert pruned.params == sum(int(mask.sum()) for mask in pruned.masks.values())
    assert abs(pruned.params - target) <= max(2, total // 50 if "sipp_" in method else 2)
    assert set(pruned.masks) == set(tensors)
    for name, mask in pruned.masks.items():
        assert not tensors[name][~mask].any()
        assert method.startswith("sipp") or not (tensors[name][mask] == 0).any()
    with torch.no_grad():
        log_prob = pruned.flow.log_prob(truths.normal(5, 2))
    assert log_prob.isfinite().all()


@pytest.mark.parametrize(("kind", "method"), NEURON_CASES)
def test_the_smaller_field_is_the_silenced_one(kind, method):
    flow = make(kind)
    least = least_params(flow, "neurons")
    target = (least + count_params(flow)) // 2
    pruned = sf.prune(method, sf.unpruned(flow), flow, target, sample=sample(), seed=3)
    assert pruned.masks is None
    assert pruned.params == count_params(pruned.flow) == pruned.dense_masks.kept(flow) < count_params(flow)
    assert abs(pruned.params - target) <= 25  # one neuron of the widest layer
    keep = neurons_of_masks(flow, pruned.dense_masks)
    # Some methods reweight what they keep: the weights are those of the smaller field, put back in their places.
    placed = copy.deepcopy(flow)
    tensors = dict(pruned.flow.named_parameters())
    with torch.no_grad():
        for name, mask in pruned.dense_masks.items():
            placed.get_parameter(name)[mask] = tensors[name].flatten()
    pruned.dense_masks.apply_(placed)
    torch.testing.assert_close(velocities(pruned.flow), velocities(placed), rtol=1e-12, atol=1e-12)
    if method in ("structured", "neuron_l2", "taylor", "fisher_neurons", "random_neurons"):
        silenced = copy.deepcopy(flow)
        masks_of_neurons(flow, keep).apply_(silenced)
        torch.testing.assert_close(velocities(pruned.flow), velocities(silenced), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Residual, Timed])
def test_compensation_and_a_second_step(kind):
    flow = make(kind)
    state = sf.unpruned(flow)
    least = least_params(flow, "neurons")
    for share in (0.6, 0.3):
        target = least + round(share * (count_params(flow) - least))
        state = sf.prune("taylor", state, flow, target, sample=sample(), compensated=True)
        assert state.params == state.dense_masks.kept(flow)
    with torch.no_grad():
        assert state.flow.log_prob(truths.normal(5, 2)).isfinite().all()


@pytest.mark.parametrize("kind", [Residual, Timed])
def test_masked_entries_stay_0_through_a_training(kind):
    flow = make(kind)
    state = sf.prune("unstructured", sf.unpruned(flow), flow, round(0.5 * count_params(flow)))
    before = copy.deepcopy(state.flow.state_dict())
    state.masks.hold_(state.flow)
    settings = TrainSpec(steps=5, batch=16, lr=0.02, weight_decay=0.1, optimiser="adamw")
    outcome = train(
        state.flow,
        NegativeLogLikelihood(LOOSE),
        truths.normal(64, 2, seed=4) * 0.4,
        settings,
        seed=0,
        purpose="test",
        hooks=Hooks(after_step=state.masks.keeper(state.flow)),
    )
    assert outcome.steps == 5
    tensors = dict(state.flow.named_parameters())
    for name, mask in state.masks.items():
        assert not tensors[name][~mask].any()
    assert any(not torch.equal(before[name], tensor) for name, tensor in tensors.items())
    assert state.params == state.masks.kept(state.flow)


def test_trained_pruned_and_retrained_the_rows_density_is_found():
    torch.manual_seed(0)
    flow = sf.Flow(Residual(inner=12))
    rows = 0.4 * torch.randn(512, 2) + 1.0
    settings = TrainSpec(steps=10, batch=128, lr=0.05)
    train(flow, NegativeLogLikelihood(LOOSE), rows, settings, seed=0, purpose="dense")
    smaller = sf.prune("structured", sf.unpruned(flow), flow, 200)  # whole neurons: the block's
    inner = [one.chain()[0].field.module.block[0].out_features for one in (flow, smaller.flow)]
    assert inner == [12, 8]
    pruned = sf.prune("snip", sf.unpruned(flow), flow, 150, sample=sf.Sample(rows[:32]))
    keep = Hooks(after_step=pruned.masks.keeper(pruned.flow))
    train(pruned.flow, NegativeLogLikelihood(LOOSE), rows, settings, seed=0, purpose="pruned", hooks=keep)
    assert pruned.params == pruned.masks.kept(pruned.flow) == 150
    with torch.no_grad():
        nll = -pruned.flow.log_prob(rows).mean().item()
    assert 0.9 < nll < 1.4  # the entropy of the rows' density is 1.01


@pytest.mark.parametrize("kind", FIELDS)
def test_log_prob_after_pruning_has_the_exact_divergence(kind):
    """∫ tr ∂f/∂z along the solver's path, beside log|det| of the whole map by reverse-mode autograd."""
    flow = make(kind)
    flow = sf.prune("unstructured", sf.unpruned(flow), flow, round(0.6 * count_params(flow))).flow
    x = truths.normal(6, 2, seed=11)
    jacobians = truths.jacobians(flow.to_noise, x)
    wanted = truths.gaussian_log_prob(flow.to_noise(x)) + torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(flow.log_prob(x), wanted, rtol=1e-5, atol=1e-5)  # solves at 1e-8 a step


class Twin(nn.Module):
    """The layers of an `MLPField` as a stranger would write them."""

    def __init__(self, field):
        super().__init__()
        widths = [field.dim, *field.hidden, field.dim]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        for layer, own in zip(layers, field.linear_layers(), strict=True):
            layer.weight, layer.bias = nn.Parameter(own.weight.clone()), nn.Parameter(own.bias.clone())
        self.layers = nn.ModuleList(layers)

    def forward(self, t, z):
        for layer in self.layers[:-1]:
            z = F.softplus(layer(z))
        return self.layers[-1](z)


def twins():
    field = MLPField(2, [7, 6], "softplus").double()
    field.initialise(truths.generator(3), 2.0)
    return sf.Flow(field), sf.Flow(Twin(field))


@pytest.mark.parametrize("rows", [5, 40])  # one chunk of gradients, and several
@pytest.mark.parametrize("loss", [None, "classes"])
def test_statistics_are_those_of_the_same_mlp_field(rows, loss):
    ours = truths.normal(rows, 2, seed=6)
    judge = None if loss is None else sf.classification_loss(torch.arange(rows) % 2)
    for one, two in zip(*(observe(flow, sf.Sample(ours, judge)) for flow in twins()), strict=True):
        for name in ("mean_gradient", "squared_gradients", "contributions", "means", "shares"):
            torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_pruning_is_that_of_the_same_mlp_field(method):
    known, own = twins()
    target = round(0.6 * count_params(known))
    one, two = (sf.prune(method, sf.unpruned(flow), flow, target, sample=sample(), seed=5) for flow in (known, own))
    assert one.params == two.params
    torch.testing.assert_close(velocities(two.flow), velocities(one.flow), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", FIELDS)
def test_scores_and_masks_of_ones_own(kind):
    flow = make(kind)
    scores = sf.score("magnitude", flow)
    target = round(0.7 * count_params(flow))
    pruned = sf.prune_by_scores(flow, scores, target)
    assert abs(pruned.params - target) <= 2
    again = sf.prune_by_masks(flow, pruned.masks)
    assert again.params == pruned.params
    neurons = sf.score("neuron_l1", flow)
    assert list(neurons) == [layer.link.weight for layer in hidden_layers(flow)]
    smaller = sf.prune_by_scores(flow, neurons, (least_params(flow, "neurons") + count_params(flow)) // 2)
    assert smaller.masks is None
    assert smaller.params < count_params(flow)


@pytest.mark.parametrize("kind", FIELDS)
def test_a_constant_neuron_is_folded_and_the_function_stays(kind):
    flow = make(kind)
    layer = hidden_layers(flow)[0]
    scores = {name: torch.ones_like(value) for name, value in sf.score("magnitude", flow).items()}
    scores[layer.link.weight][2] = 0.0  # all that neuron 2 reads goes first
    whole = copy.deepcopy(flow)
    with torch.no_grad():
        whole.get_parameter(layer.link.weight)[2] = 0.0
    pruned = copy.deepcopy(flow)
    gone = layer.link.n_in + layer.next_link.n_out + len(layer.link.vectors)
    masks = prune_weights(
        pruned, Pruned(flow, None, sf.Masks.full(flow)).dense_masks, count_params(flow) - gone, scores
    )
    if layer.next_link.bias is None:  # nothing could take it up
        return
    assert not masks[layer.next_link.weight][:, 2].any()
    torch.testing.assert_close(velocities(pruned), velocities(whole), rtol=1e-12, atol=1e-12)


def test_dead_neurons_of_a_masked_field_can_be_taken_out():
    flow = make(Timed)
    state = sf.prune("unstructured", sf.unpruned(flow), flow, round(0.25 * count_params(flow)))
    smaller = sf.shrink(state.flow, neurons_of_masks(state.flow, state.masks))
    assert state.params <= count_params(smaller) < count_params(flow)
    torch.testing.assert_close(velocities(smaller), velocities(state.flow), rtol=1e-12, atol=1e-12)


def test_two_blocks_one_of_them_the_packages_own():
    torch.manual_seed(1)
    flow = sf.Flow([Residual().double(), MLPField(2, [6]).double()])
    assert [len(chain) for chain in chains(flow)] == [1, 2, 1, 2]
    with torch.no_grad():
        for layer in next(reversed(list(flow.fields()))).linear_layers():
            layer.initialise(truths.generator(2))
    for method in ("snip", "taylor"):
        pruned = sf.prune(method, sf.unpruned(flow), flow, round(0.8 * count_params(flow)), sample=sample())
        assert abs(pruned.params - 0.8 * count_params(flow)) <= 12
        with torch.no_grad():
            assert pruned.flow.log_prob(truths.normal(3, 2)).isfinite().all()


class Of(nn.Module):
    """A field by a function of (itself, t, z)."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, t, z):
        return self.function(self, t, z)


def linears():
    return {"one": nn.Linear(2, 5), "two": nn.Linear(5, 2)}


FOLLOWED = {  # the way from one layer to the next → is it followed?
    "scaled": (lambda h: 2 * h / 3 - 1, True),
    "reversed": (lambda h: 1 - h.sin(), True),
    "in place": (lambda h: F.relu(h, inplace=True), True),
    "dropout, which is off": (nn.Dropout(0.5), True),
    "shape is looked at": (lambda h: torch.tanh(h) if h.shape[1] and len(h) and h.dim() else h, True),
    "dropout, always on": (lambda h: F.dropout(h, 0.5), False),
    "softmax": (lambda h: h.softmax(1), False),
    "residual": (lambda h: h + h.tanh(), False),
    "norm": (nn.LayerNorm(5), False),
    "a slice of it is read": (lambda h: h.tanh() * (h[:, :1] > 0), False),
    "flipped": (lambda h: h.flip(1), False),
    "branches on a value": (lambda h: h.tanh() if h.sum() > 0 else h, False),
}


@pytest.mark.parametrize("way", FOLLOWED)
def test_what_is_followed(way):
    function, followed = FOLLOWED[way]
    layers = linears() | ({"way": function} if isinstance(function, nn.Module) else {})
    flow = sf.Flow(Of(lambda self, t, z: self.two(function(self.one(z))), **layers))
    found = [[link.name.rpartition(".")[2] for link in chain] for chain in chains(flow)]
    assert found == ([["one", "two"]] if followed else [["one"], ["two"]])


def test_the_constants_of_a_passage():
    flow = sf.Flow(Of(lambda self, t, z: self.two(2 * F.softplus(self.one(z), beta=3) - 1), **linears()))
    (chain,) = chains(flow)
    bias = next(flow.fields()).module.one.bias.detach()
    torch.testing.assert_close(chain[0].constants(), 2 * F.softplus(bias, beta=3) - 1)


def test_a_way_that_differs_with_time_is_not_followed():
    function = lambda self, t, z: self.two(self.one(z).tanh() if t < 0.5 else self.one(z).softmax(1))  # noqa: E731
    assert [len(chain) for chain in chains(sf.Flow(Of(function, **linears())))] == [1, 1]


def test_a_layer_used_twice_keeps_its_neurons_and_can_be_masked():
    middle = nn.Linear(5, 5)
    flow = sf.Flow(
        Of(lambda self, t, z: self.two(self.mid(self.mid(self.one(z).tanh()).tanh()).tanh()), **linears(), mid=middle)
    )
    assert [len(chain) for chain in chains(flow)] == [1, 1, 1]
    pruned = sf.prune("magnitude", sf.unpruned(flow), flow, 30)
    assert pruned.params == 30


def test_the_dimension_may_be_said():
    class Named(Timed):
        dim = 2

    assert [len(chain) for chain in field_chains(Named(), "field", 2)] == [3]
    assert sf.Flow(Named()).dim == 2


REFUSED = {
    "no Linear": (LinearField(torch.eye(2)), "the field LinearField has no Linear layer"),
    "takes no t": (
        nn.Linear(2, 2),
        r"the field Linear cannot be evaluated at points \(3, 2\): .*; give the field an attr",
    ),
    "other shape": (
        Of(lambda self, t, z: self.one(z), one=nn.Linear(2, 5)),
        r"the field Of gives \(3, 5\) for points \(3, 2\)",
    ),
    "parametrization": (
        Of(lambda self, t, z: self.one(z), one=nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
        r"'one' \(Linear\) shares its weight or bias or computes it",
    ),
}


@pytest.mark.parametrize("method", ["unstructured", "structured", "taylor"])
@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(which, method):
    field, message = REFUSED[which]
    flow = sf.Flow(field)
    with pytest.raises(InputError, match=f"block 0: .*{message}") as caught:
        sf.prune(method, sf.unpruned(flow), flow, 3, sample=sf.Sample(torch.randn(4, 2)))
    assert "\n" not in str(caught.value)


def test_neurons_that_all_stay_are_said_to():
    function = lambda self, t, z: self.two(self.one(z).softmax(1))  # noqa: E731
    flow = sf.Flow(Of(function, **linears()))
    message = r"no Linear layer alone reads another one's neurons \(the neurons of 'one' are read by softmax\), so it"
    with pytest.raises(InputError, match=message):
        sf.prune("structured", sf.unpruned(flow), flow, 20)


def test_a_field_that_needs_its_old_sizes_is_refused():
    function = lambda self, t, z: self.two(self.one(z).tanh()) + 0 * self.one.weight[4, 0]  # noqa: E731
    flow = sf.Flow(Of(function, **linears()))
    with pytest.raises(InputError, match="block 0: the field Of cannot be evaluated"):
        sf.prune("structured", sf.unpruned(flow), flow, 12)


def test_a_layer_that_is_never_evaluated_cannot_be_judged_by_data():
    flow = sf.Flow(Of(lambda self, t, z: self.two(self.one(z).tanh()), **linears(), idle=nn.Linear(2, 2)))
    assert sf.prune("magnitude", sf.unpruned(flow), flow, 20).params == 20
    with pytest.raises(InputError, match=r"layer 'blocks\.0\.field\.module\.idle' is not evaluated"):
        sf.prune("sipp", sf.unpruned(flow), flow, 20, sample=sf.Sample(torch.randn(4, 2)))
