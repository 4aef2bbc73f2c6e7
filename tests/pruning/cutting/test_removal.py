"""Neurons removed from modules: the function is the silenced one's; folding keeps it; compensation keeps its means."""

import copy

import pytest
import torch
from support.networks import CASES, MODULES, make, random_keep, randomised, sample
from torch import nn

from sparseflows.errors import InputError
from sparseflows.pruning.cutting.removal import compensate
from sparseflows.pruning.cutting.structured import shrink
from sparseflows.pruning.cutting.unstructured import fold_constants
from sparseflows.pruning.graph.groups import count_params, params_counter
from sparseflows.pruning.graph.masks import Masks, masks_of_neurons
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.pruning.observing.observe import record

# For every layer whose neurons can go, the module that puts out what they send on, one entry or map a neuron.
SENDS = {
    "mlp": ("1", "3"),
    "norm_mlp": ("4", "7"),
    "conv": ("3", "7", "10"),
    "padded": ("1", "3", "6"),
}


def outputs(module, x):
    with torch.no_grad():
        return module(x)


def silenced(module, name, keep):
    """The module with hooks that put 0 in the place of what the removed neurons send on."""
    muted = copy.deepcopy(module)
    for sender, kept in zip(SENDS[name], keep, strict=True):
        muted.get_submodule(sender).register_forward_hook(
            lambda _, given, sent, kept=kept: torch.where(kept.view(1, -1, *[1] * (sent.ndim - 2)), sent, 0.0)
        )
    return muted


def products(module, link, x):
    """What the layer puts out, (N, n_out, positions)."""
    seen = []
    handle = module.get_submodule(link.name).register_forward_hook(lambda _, given, sent: seen.append(sent))
    outputs(module, x)
    handle.remove()
    return seen[0].flatten(2) if link.kind == "conv" else seen[0].unsqueeze(2)


# --- removal


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_a_shrunk_module_is_the_masked_module(name, activation):
    # 1e-12: sums of at most 54 terms of order 1 in another order.
    changes = []
    for seed in range(2):
        module = make(name, activation, seed)
        keep = random_keep(module, follow(module), seed)
        masked = copy.deepcopy(module)
        masks_of_neurons(module, keep).apply_(masked)
        small, x = shrink(module, keep), sample(name)
        torch.testing.assert_close(outputs(small, x), outputs(masked, x), rtol=1e-12, atol=1e-12)
        changes.append(float((outputs(small, x) - outputs(module, x)).abs().max()))
        assert count_params(small) == params_counter(module)([int(kept.sum()) for kept in keep])
        if name in SENDS:
            torch.testing.assert_close(
                outputs(small, x), outputs(silenced(module, name, keep), x), rtol=1e-12, atol=1e-12
            )
    assert max(changes) > 1e-3  # the neurons that went had something to say (one network's relus are all shut)


@pytest.mark.parametrize("name", MODULES)
def test_layers_know_their_new_sizes(name):
    module = make(name)
    keep = random_keep(module, follow(module), 4)
    small = shrink(module, keep)
    for part in small.modules():
        if isinstance(part, nn.Linear):
            assert part.weight.shape == (part.out_features, part.in_features)
        elif isinstance(part, nn.Conv2d):
            assert part.weight.shape[:2] == (part.out_channels, part.in_channels)
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean.shape == part.running_var.shape == part.weight.shape == (part.num_features,)
    sizes = [link.n_out for link in follow(small)[:-1]]
    assert sizes == [int(kept.sum()) for kept in keep]
    small.train()(sample(name))  # batch norm takes its new channels


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_shared_or_changed(name):
    module = make(name)
    for parameter in list(module.parameters())[::2]:
        parameter.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    keep = random_keep(module, follow(module), 2)
    small = shrink(module, keep)
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in module.parameters()]
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    with torch.no_grad():
        for tensor in small.state_dict().values():
            tensor.add_(1)
    assert all(torch.equal(tensor, before[own]) for own, tensor in module.state_dict().items())


def test_keeping_everything_changes_nothing():
    module = make("conv")
    small = shrink(module, [torch.ones(link.n_out, dtype=torch.bool) for link in follow(module)[:-1]])
    assert all(torch.equal(tensor, module.state_dict()[own]) for own, tensor in small.state_dict().items())


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([[True] * 7], "keep has 1 layers"),
        ([[True] * 7, [True] * 4], "keep of 2 must be a bool tensor of shape (5,)"),
        ([[1] * 7, [True] * 5], "keep of 0 must be a bool tensor of shape (7,)"),
        ([[True] * 7, [False] * 5], "2 would lose all its neurons"),
    ],
)
def test_a_keep_that_does_not_fit_is_refused(keep, words):
    module, keep = make("mlp"), [torch.tensor(kept) for kept in keep]
    for function in (shrink, lambda *given: compensate(*given, means=[torch.zeros(7), torch.zeros(5)])):
        with pytest.raises(InputError) as caught:
            function(module, keep)
        assert words in str(caught.value)


# --- folding


def without_inputs(module, seed=0):
    """The module with the incoming weights of about half of each layer's neurons at 0, and which these are."""
    module, silent = copy.deepcopy(module), []
    generator = torch.Generator().manual_seed(seed)
    for link in follow(module)[:-1]:
        neurons = torch.rand(link.n_out, generator=generator) < 0.5
        neurons[0], neurons[1] = False, True
        with torch.no_grad():
            module.get_parameter(link.weight)[neurons] = 0.0
        silent.append(neurons)
    return module, silent


def folded_of(module):
    """A copy in which what constant neurons send on has gone into the biases that read them."""
    folded = copy.deepcopy(module)
    fold_constants(folded, Masks({link.weight: folded.get_parameter(link.weight) != 0 for link in follow(folded)}))
    return folded


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_folding_keeps_the_function(name, activation):
    for seed in range(2):
        module, silent = without_inputs(make(name, activation, seed), seed)
        links, x = follow(module), sample(name)
        folded = folded_of(module)
        free = [neurons & following.foldable for following, neurons in zip(links[1:], silent, strict=True)]
        for following, neurons in zip(links[1:], free, strict=True):
            read = folded.get_parameter(following.weight).reshape(following.n_out, following.n_in, -1)
            assert not read[:, neurons].any()
        small = shrink(folded, [~neurons for neurons in free])
        torch.testing.assert_close(outputs(folded, x), outputs(module, x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(outputs(small, x), outputs(module, x), rtol=1e-12, atol=1e-12)
        assert count_params(small) < count_params(module) or not any(link.foldable for link in links[1:])


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_without_folding_the_function_would_change(activation):
    module, silent = without_inputs(make("conv", activation))
    x = sample("conv")
    assert (outputs(shrink(module, [~neurons for neurons in silent]), x) - outputs(module, x)).abs().max() > 0.01


def test_zero_padding_keeps_a_constant_from_being_folded():
    # With sigmoid a constant channel differs from the zeros around it; a bias would shift the border too.
    module, silent = without_inputs(make("padded", "sigmoid"))
    link, following = follow(module)[:2]
    assert torch.equal(folded_of(module).get_parameter(following.weight), module.get_parameter(following.weight))
    x = sample("padded")
    wrong = copy.deepcopy(module)
    with torch.no_grad():
        read = wrong.get_parameter(following.weight).flatten(2).sum(2)[:, silent[0]]
        wrong.get_parameter(following.bias).add_(read @ link.constants()[silent[0]])
        wrong.get_parameter(following.weight)[:, silent[0]] = 0.0
    shift = products(wrong, following, x) - products(module, following, x)
    inside = shift.unflatten(2, (4, 4))[:, :, 1:-1, 1:-1]
    assert inside.abs().max() < 1e-12
    assert shift.abs().max() > 0.1


def test_what_reads_constants_only_is_constant_itself():
    module = make("mlp", "sigmoid")
    with torch.no_grad():
        module.get_parameter("0.weight")[[1, 2]] = 0.0
        module.get_parameter("2.weight")[3] = 0.0
        module.get_parameter("2.weight")[3, [1, 2]] = 0.7
    folded = folded_of(module)
    read = [folded.get_parameter(name).any(0).tolist() for name in ("2.weight", "4.weight")]
    assert read == [[True, False, False, True, True, True, True], [True, True, True, False, True]]
    x = sample("mlp")
    torch.testing.assert_close(outputs(folded, x), outputs(module, x), rtol=1e-12, atol=1e-12)


# --- compensation


def means_of(module, x):
    return [seen.inputs.flatten(0, 1).mean(0) for seen in record(module, x)[1:]]


def only(keep, index):
    return [kept if i == index else torch.ones_like(kept) for i, kept in enumerate(keep)]


@pytest.mark.parametrize("name", ["mlp", "padded", "functional"])
def test_compensation_is_the_loop_over_weights(name):
    module = make(name)
    links = follow(module)
    keep = random_keep(module, links, 5)
    means = means_of(module, sample(name))
    ours = compensate(module, keep, means)
    for index, (link, kept) in enumerate(zip(links[1:], keep, strict=True)):
        weight = module.get_parameter(link.weight).flatten(1).tolist()
        expected = module.get_parameter(link.bias).tolist()
        for row in range(link.n_out):
            for column in range(link.n_in * link.per_neuron):
                if not kept[column // link.per_neuron]:
                    expected[row] += weight[row][column] * float(means[index][column])
        assert ours.get_parameter(link.bias).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    others = [own for own, _ in module.named_parameters() if own not in {link.bias for link in links[1:]}]
    assert all(torch.equal(ours.get_parameter(own), module.get_parameter(own)) for own in others)


@pytest.mark.parametrize("name", ["mlp", "padded", "functional"])
def test_compensation_keeps_the_means_of_the_next_layer(name):
    module, x = make(name), sample(name, rows=20)
    links = follow(module)
    keep, means = random_keep(module, links, 6), means_of(module, x)
    for index, following in enumerate(links[1:]):
        chosen = only(keep, index)
        dense = products(module, following, x)
        errors = [
            products(shrink(one, chosen), following, x) - dense for one in (module, compensate(module, chosen, means))
        ]
        if chosen[index].all():
            continue
        bare, compensated = errors
        # 1e-12: means over at most 20 · 64 values of order 1.
        assert compensated.mean((0, 2)).abs().max() < 1e-12
        assert bare.mean((0, 2)).abs().max() > 1e-3
        assert (compensated**2).mean() < (bare**2).mean()


def test_a_next_layer_without_bias_is_named():
    module = make("conv")
    keep = [torch.ones(link.n_out, dtype=torch.bool) for link in follow(module)[:-1]]
    means = means_of(module, sample("conv"))
    keep[1][0] = False
    compensate(module, keep, means)  # nothing goes before the layer without a bias
    keep[0][0] = False
    with pytest.raises(InputError, match="4 has no bias that could take up the means of 0's removed neurons"):
        compensate(module, keep, means)


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ([torch.zeros(7)], "means has 1 layers; 2 read"),
        ([torch.zeros(7), torch.zeros(4)], "means of 4 must be finite, of shape (5,)"),
        ([torch.full((7,), torch.nan), torch.zeros(5)], "means of 2 must be finite, of shape (7,)"),
    ],
)
def test_means_that_do_not_fit_are_refused(means, words):
    with pytest.raises(InputError) as caught:
        compensate(make("mlp"), [torch.ones(7, dtype=torch.bool), torch.ones(5, dtype=torch.bool)], means)
    assert words in str(caught.value)


def test_a_wide_network_in_single_precision():
    layers = (nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48))
    module = randomised(nn.Sequential(*layers, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48 * 9, 10)))
    module = module.float().eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        module[3].weight.mul_(0.1)
        module[8].weight.mul_(0.1)
    keep = random_keep(module, follow(module))
    masked = copy.deepcopy(module)
    with torch.no_grad():
        masked[3].weight[:, ~keep[0]] = 0.0
        masked[8].weight[:, ~keep[1].repeat_interleave(9)] = 0.0
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = outputs(masked, x)
    # Rounding of float32 in sums of 288 and 432 terms, relative to the largest output.
    assert (outputs(shrink(module, keep), x) - expected).abs().max() <= 1e-6 * expected.abs().max()
