"""What layers see and their gradients, against loops over single examples, positions and kernels."""

import copy
from itertools import product

import pytest
import torch
from support.networks import CASES, MODULES, assert_same_state, make, sample, state_of
from torch import nn

from sparseflows.errors import InputError
from sparseflows.pruning.graph.modules.chains import follow
from sparseflows.pruning.observing.observe import patches, record


def loss(y):
    """Per example, and no two outputs alike."""
    y = y.flatten(1)
    return (y.sin() * torch.arange(1, y.shape[1] + 1)).sum(1) + y.pow(2).sum(1)


@pytest.mark.parametrize(("name", "activation"), CASES)
def test_weight_gradients_of_single_examples(name, activation):
    # Σ_s δ_s a_sᵀ is the gradient of the weight by autograd, one example after the other.
    module, x = make(name, activation), sample(name)
    seen = record(module, x, loss)
    links = follow(module)
    assert len(seen) == len(links)
    for n in range(len(x)):
        weights = [module.get_parameter(link.weight) for link in links]
        expected = torch.autograd.grad(loss(module(x[n : n + 1])).sum(), weights)
        for link, own, gradient in zip(links, seen, expected, strict=True):
            ours = own.gradients[n].T @ own.inputs[n]
            # 1e-10, as the criteria are held to.
            torch.testing.assert_close(ours, gradient.flatten(1), rtol=1e-10, atol=1e-10)
            assert own.values == own.inputs.shape[1]
            assert own.inputs.shape == (len(x), own.values, link.n_in * link.per_neuron)
            assert own.gradients.shape == (len(x), own.values, link.n_out)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_at_the_products_one_example_at_a_time(name):
    module, x = make(name), sample(name)
    seen = record(module, x, loss)
    for index, link in enumerate(follow(module)):
        for n in range(len(x)):
            kept = []
            layer = module.get_submodule(link.name)
            handle = layer.register_forward_hook(lambda _, given, sent, kept=kept: kept.append(sent))
            (gradient,) = torch.autograd.grad(loss(module(x[n : n + 1])).sum(), kept, retain_graph=False)
            handle.remove()
            gradient = gradient[0].flatten(1).T if link.kind == "conv" else gradient
            torch.testing.assert_close(seen[index].gradients[n], gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODULES)
def test_inputs_times_weights_are_the_layers_outputs(name):
    module, x = make(name), sample(name)
    for own, link in zip(record(module, x), follow(module), strict=True):
        kept = []
        handle = module.get_submodule(link.name).register_forward_hook(lambda _, given, sent, k=kept: k.append(sent))
        module(x)
        handle.remove()
        ours = own.inputs @ module.get_parameter(link.weight).flatten(1).T
        if link.bias is not None:
            ours = ours + module.get_parameter(link.bias)
        sent = kept[0].flatten(2).transpose(1, 2) if link.kind == "conv" else kept[0].unsqueeze(1)
        torch.testing.assert_close(ours, sent, rtol=1e-12, atol=1e-12)
        assert own.gradients is None
        assert not own.inputs.requires_grad


def naive_patches(maps, kernel, stride, padding, dilation):
    """By loops; `padding` is (above, below, left, right) zeros."""
    rows, channels, height, width = maps.shape
    above, below, left, right = padding
    spans = [dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
    tops = range(-above, height + below - spans[0] + 1, stride[0])
    lefts = range(-left, width + right - spans[1] + 1, stride[1])
    found = []
    for n, top, start in product(range(rows), tops, lefts):
        values = []
        for c, i, j in product(range(channels), range(kernel[0]), range(kernel[1])):
            y, x = top + i * dilation[0], start + j * dilation[1]
            values.append(float(maps[n, c, y, x]) if 0 <= y < height and 0 <= x < width else 0.0)
        found.append(values)
    return torch.tensor(found, dtype=maps.dtype).view(rows, len(tops) * len(lefts), -1)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "sides"),
    [
        ((3, 3), (1, 1), 0, (1, 1), (0, 0, 0, 0)),
        ((3, 2), (2, 1), (1, 2), (1, 1), (1, 1, 2, 2)),
        ((2, 3), (1, 2), (2, 0), (2, 1), (2, 2, 0, 0)),
        ((2, 3), (1, 1), "same", (1, 2), (0, 1, 2, 2)),
        ((1, 1), (3, 3), "valid", (1, 1), (0, 0, 0, 0)),
    ],
)
def test_patches_are_the_loop_over_kernels(kernel, stride, padding, dilation, sides):
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation)
    maps = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(patches(layer, maps), naive_patches(maps, kernel, stride, sides, dilation))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(2, 1), "same"])
def test_other_paddings_give_the_layers_outputs(mode, padding):
    layer = nn.Conv2d(2, 3, (2, 3), padding=padding, padding_mode=mode, bias=False).double()
    maps = torch.randn(3, 2, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = patches(layer, maps) @ layer.weight.flatten(1).T
    torch.testing.assert_close(ours, layer(maps).flatten(2).transpose(1, 2), rtol=1e-12, atol=1e-12)


def test_a_linear_layer_on_sequences_has_positions():
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = record(module, x, lambda y: y.pow(2).sum((1, 2)))
    assert torch.equal(seen[0].inputs, x)
    assert [own.gradients.shape for own in seen] == [(5, 6, 4), (5, 6, 2)]
    for n in range(5):
        (expected,) = torch.autograd.grad(module(x[n]).pow(2).sum(), [module[0].weight])
        torch.testing.assert_close(seen[0].gradients[n].T @ seen[0].inputs[n], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODULES)
def test_chunks_are_parts_of_the_whole(name):
    module, x = make(name).train(), sample(name)
    whole = record(module, x, loss)
    parts = [record(module, part, loss) for part in x.split([1, 3, 2])]
    for own, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        for kind in ("inputs", "gradients"):
            joined = torch.cat([getattr(piece, kind) for piece in pieces])
            torch.testing.assert_close(joined, getattr(own, kind), rtol=1e-12, atol=1e-12)


# --- the module afterwards


@pytest.mark.parametrize("name", MODULES)
def test_the_module_is_left_as_it_was(name):
    module, x = make(name).train(), sample(name)
    list(module.modules())[1].eval()
    for index, parameter in enumerate(module.parameters()):
        parameter.requires_grad_(index % 2 == 0)
        parameter.grad = torch.ones_like(parameter) if index % 4 == 0 else None
    module.register_forward_hook(lambda *_: None)
    before, given = state_of(module), x.clone()
    record(module, x, loss)
    record(module, x)
    assert_same_state(before, state_of(module))
    assert torch.equal(x, given)
    with pytest.raises(RuntimeError, match="stop"):
        record(module, x, lambda y: (_ for _ in ()).throw(RuntimeError("stop")))
    assert_same_state(before, state_of(module))


def test_frozen_modules_and_callers_without_gradients():
    module, x = make("conv"), sample("conv")
    expected = record(module, x, loss)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        seen = record(module, x, loss)
    assert all(torch.equal(a.gradients, b.gradients) for a, b in zip(seen, expected, strict=True))


def test_without_a_loss_no_graph_is_built():
    module, enabled = make("mlp"), []
    module[1].register_forward_hook(lambda *_: enabled.append(torch.is_grad_enabled()))
    record(module, sample("mlp"))
    record(module, sample("mlp"), loss)
    assert enabled == [False, True]


def test_what_was_seen_is_not_the_callers_memory():
    x = sample("mlp")
    seen, expected = record(make("mlp"), x), x.clone()
    x.zero_()
    assert torch.equal(seen[0].inputs[:, 0], expected)


def test_activations_in_place_disturb_nothing():
    module = make("conv", "relu")
    placed = copy.deepcopy(module)
    for part in placed.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = True
    x = sample("conv")
    for ours, expected in zip(record(placed, x, loss), record(module, x, loss), strict=True):
        assert torch.equal(ours.inputs, expected.inputs)
        assert torch.equal(ours.gradients, expected.gradients)


# --- what is refused


def test_what_is_not_finite_is_named():
    module, x = make("mlp", "relu"), sample("mlp")
    with torch.no_grad():
        module.get_parameter("2.weight")[0, 0] = torch.inf
    with pytest.raises(InputError, match="the activations at layer '2' are not finite"):
        record(module, x)
    x[0, 0] = torch.nan
    with pytest.raises(InputError, match="the activations at layer '0' are not finite"):
        record(module, x)


def test_gradients_that_are_not_finite_are_named():
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="gradients at layer '0' are not finite"):
        record(module, x, lambda y: (y[:, 0] * 0).sqrt())


@pytest.mark.parametrize(
    ("given", "losses", "words"),
    [
        (sample("mlp"), lambda y: y.sum(), "the loss has shape (); give each example's own: (6,)"),
        (sample("mlp"), lambda y: y, "the loss has shape (6, 3)"),
        (sample("mlp"), lambda y: y.detach().sum(1), "the loss does not depend on the outputs"),
        (sample("mlp")[:0], None, "inputs have shape (0, 4)"),
        (sample("mlp")[0], None, "inputs have shape (4,)"),
        (sample("mlp")[:, :3], None, "Sequential does not take inputs (6, 3) of torch.float64"),
        (sample("mlp").float(), None, "Sequential does not take inputs (6, 4) of torch.float32"),
    ],
)
def test_samples_and_losses_that_do_not_fit_are_refused(given, losses, words):
    module = make("mlp").train()
    before = state_of(module)
    with pytest.raises(InputError) as caught:
        record(module, given, losses)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_same_state(before, state_of(module))
