"""Statistics of whole networks, against one example at a time: autograd by each weight and gate, captured inputs."""

import pytest
import torch
from support import naive_criteria
from support.naive_observe import logits_loss, observed_one_by_one
from support.naive_pruning import make_flow, points
from support.networks import assert_same_state, make, sample, state_of
from torch.nn import functional as F

from sparseflows.errors import InputError
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow
from sparseflows.pruning.observing import flows as observing
from sparseflows.pruning.observing.observe import Sample, classification_loss, observe
from sparseflows.pruning.observing.statistics import Statistics

WHITENING = torch.tensor([[1.3, 0.4], [-0.2, 0.7]], dtype=torch.float64)
FLOWS = {
    "none, sigmoid": {"time": "none", "activation": "sigmoid"},
    "concat, tanh, two blocks, trained end times": {
        "time": "concat",
        "activation": "tanh",
        "blocks": 2,
        "train_end_time": True,
    },
    "concat_squash, softplus, whitened": {"time": "concat_squash", "activation": "softplus", "whitening": WHITENING},
    "concat_squash, relu, two blocks": {"time": "concat_squash", "activation": "relu", "blocks": 2},
    "concat, silu, gaussian base": {"time": "concat", "activation": "silu", "base": "gaussian"},
}
LABELS = torch.tensor([1, 0, 1])
CLOSE = {"rtol": 1e-10, "atol": 1e-10}  # as the criteria are held to; a few hundred products are added up


def flow_of(case="concat, tanh, two blocks, trained end times"):
    return make_flow((4, 3), **FLOWS[case])


def assert_observed(seen, layers, examples):
    """Each statistic of `seen` is that of the examples one by one."""
    assert len(seen) == len(layers)
    for own, layer in zip(seen, layers, strict=True):
        assert own.examples == examples
        torch.testing.assert_close(own.mean_gradient, sum(layer.gradients) / examples, **CLOSE)
        torch.testing.assert_close(own.squared_gradients, sum(g**2 for g in layer.gradients), **CLOSE)
        torch.testing.assert_close(own.contributions, torch.stack(layer.gates), **CLOSE)
        assert_activations(own, layer)


def assert_activations(own, layer):
    torch.testing.assert_close(own.inputs, torch.stack(layer.points), **CLOSE)
    torch.testing.assert_close(own.means, sum(layer.points) / len(layer.points), **CLOSE)
    lists = [point.tolist() for point in layer.points]
    for found, per_neuron in ((own.shares, 1), (own.neuron_shares, layer.per_neuron)):
        expected = torch.tensor(naive_criteria.shares(layer.weight, lists, per_neuron), dtype=torch.float64)
        torch.testing.assert_close(found, expected, **CLOSE)


def assert_equal_statistics(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        for name, value in vars(b).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(a, name), value, **tolerance)
            else:
                assert getattr(a, name) == value


# --- flows


@pytest.mark.parametrize("case", FLOWS)
def test_every_statistic_of_a_flow_one_example_at_a_time(case):
    flow, rows = flow_of(case), points(rows=2)
    layers = observed_one_by_one(flow, rows)
    assert len(layers[0].points) == 2 * 8 * 4  # 8 steps of 4 evaluations, each an extra sample point
    assert_observed(observe(flow, Sample(rows)), layers, 2)


@pytest.mark.parametrize("case", ["none, sigmoid", "concat_squash, relu, two blocks"])
def test_every_statistic_of_a_flow_that_classifies(case):
    flow, rows = flow_of(case), points(rows=2)
    own = logits_loss(lambda z, n: F.cross_entropy(z, LABELS[n : n + 1]))
    layers = observed_one_by_one(flow, rows, own)
    assert_observed(observe(flow, Sample(rows, classification_loss(LABELS[:2]))), layers, 2)


@pytest.mark.parametrize("rows_at_once", [1, 2])
def test_chunks_change_nothing(rows_at_once, monkeypatch):
    flow, rows = flow_of("concat_squash, softplus, whitened"), points(rows=5)
    whole = observe(flow, Sample(rows))
    made, merged = [], Statistics.merged
    products = 4 * 8 * (1 + 2) * (2 + 4 + 4 + 3 + 3 + 2)  # of a row: evaluations, value and tangents, widths
    monkeypatch.setattr(observing, "ENTRIES", rows_at_once * products)
    monkeypatch.setattr(Statistics, "merged", lambda *both: made.append(both) or merged(*both))
    parts = observe(flow, Sample(rows))
    assert len(made) == (-(-5 // rows_at_once) - 1) * 3
    assert_equal_statistics(parts, whole, rtol=1e-12, atol=1e-12)  # rounding of the sums


def test_labels_stay_with_their_rows_in_chunks(monkeypatch):
    flow, rows = flow_of("none, sigmoid"), points(rows=3)
    whole = observe(flow, Sample(rows, classification_loss(LABELS)))
    monkeypatch.setattr(observing, "ENTRIES", 1)
    parts = observe(flow, Sample(rows, classification_loss(LABELS)))
    assert_equal_statistics(parts, whole, rtol=1e-12, atol=1e-12)


def test_a_single_row():
    flow, rows = flow_of("concat_squash, softplus, whitened"), points(rows=1)
    assert_observed(observe(flow, Sample(rows)), observed_one_by_one(flow, rows), 1)


def test_the_flows_own_solver_is_not_asked():
    flow, rows = flow_of(), points(rows=3)
    expected = observe(flow, Sample(rows))
    flow.solver = None
    assert_equal_statistics(observe(flow, Sample(rows)), expected, rtol=0, atol=0)


# --- the network afterwards, precision, gradients


@pytest.mark.parametrize("make_network", [flow_of, lambda: make("conv"), lambda: make("norm_mlp")])
def test_the_network_is_left_as_it_was(make_network):
    network = make_network().train()
    rows = points(rows=3) if isinstance(network, Flow) else sample("conv" if network[0].weight.ndim == 4 else "mlp", 3)
    for index, parameter in enumerate(network.parameters()):
        parameter.grad = torch.full_like(parameter, 2.0) if index % 2 else None
    before, given = state_of(network), rows.clone()
    observe(network, Sample(rows, None if isinstance(network, Flow) else classification_loss(LABELS)))
    assert_same_state(before, state_of(network))
    assert torch.equal(rows, given)
    assert rows.grad is None


@pytest.mark.parametrize("name", ["flow", "mlp"])
def test_single_precision_is_observed_in_double(name):
    network = (flow_of() if name == "flow" else make(name)).float()
    rows = (points(rows=3) if name == "flow" else sample(name, 3)).float()
    loss = classification_loss(LABELS)
    before = state_of(network)
    seen = observe(network, Sample(rows, loss))
    assert_same_state(before, state_of(network))
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert seen[0].inputs.dtype == seen[0].mean_gradient.dtype == torch.float64
    assert_equal_statistics(seen, observe(network.double(), Sample(rows.double(), loss)), rtol=0, atol=0)


@pytest.mark.parametrize("rows", [torch.tensor([[1, 0], [2, -1]]), torch.ones(2, 2, requires_grad=True)])
def test_whole_numbers_and_rows_with_gradients(rows):
    flow = flow_of()
    expected = observe(flow, Sample(rows.detach().double()))
    assert_equal_statistics(observe(flow, Sample(rows)), expected, rtol=0, atol=0)


def test_callers_without_gradients():
    flow, rows = flow_of("none, sigmoid"), points(rows=3)
    expected = observe(flow, Sample(rows))
    with torch.no_grad():
        seen = observe(flow, Sample(rows))
    assert_equal_statistics(seen, expected, rtol=0, atol=0)
    assert not any(t.requires_grad for own in seen for t in vars(own).values() if isinstance(t, torch.Tensor))


def test_frozen_flows():
    flow, rows = flow_of("none, sigmoid"), points(rows=3)
    expected = observe(flow, Sample(rows))
    seen = observe(flow.requires_grad_(False), Sample(rows))
    assert_equal_statistics(seen, expected, rtol=0, atol=0)


# --- modules


@pytest.mark.parametrize("name", ["mlp", "norm_mlp", "conv"])
def test_every_statistic_of_a_module_one_example_at_a_time(name):
    module, rows = make(name), sample(name, 3)
    labels = torch.tensor([2, 0, 1])
    layers = observed_one_by_one(module, rows, lambda m, row, n: F.cross_entropy(m(row), labels[n : n + 1]))
    assert_observed(observe(module, Sample(rows, classification_loss(labels))), layers, 3)


def test_a_module_without_a_loss_has_no_gradients():
    module, rows = make("norm_mlp"), sample("norm_mlp", 3)
    for own, layer in zip(observe(module, Sample(rows)), observed_one_by_one(module, rows), strict=True):
        assert own.mean_gradient is own.squared_gradients is own.contributions is None
        assert_activations(own, layer)


# --- what is refused


def far_flow():
    flow = make_flow((4, 3), activation="relu")
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1e60)
    return flow


def rows_with(value):
    rows = points()
    rows[3, 1] = value
    return rows


FEW = classification_loss(torch.tensor([0, 1]))
REFUSED = {
    "a row that is not a number": (flow_of, Sample(rows_with(torch.nan)), "a row of the sample is not finite"),
    "an infinite row": (lambda: make("mlp"), Sample(rows_with(torch.inf)), "a row of the sample is not finite"),
    "no rows": (flow_of, Sample(points()[:0]), "the sample has shape (0, 2); give rows (N, D)"),
    "one row without a batch": (flow_of, Sample(points()[0]), "the sample has shape (2,); give rows (N, D)"),
    "a column too many": (flow_of, Sample(points(3)), "points have shape (7, 3); the flow takes (B, 2)"),
    "a column too few": (lambda: make("mlp"), Sample(points(3)), "does not take inputs (7, 3)"),
    "a flow that blows up": (far_flow, Sample(points()), "the flow cannot be observed on this sample: the state"),
    "another field": (
        lambda: Flow(LinearField(torch.eye(2))),
        Sample(points()),
        "block 0: the field LinearField has no Linear layer",
    ),
    "a flow's loss of the batch": (
        flow_of,
        Sample(points(), lambda z: F.cross_entropy(z, z.new_zeros(7).long())),
        "the loss has shape (); give each example's own: (7,)",
    ),
    "a module's loss of the batch": (lambda: make("mlp"), Sample(sample("mlp"), torch.sum), "the loss has shape ()"),
    "fewer labels than rows, flow": (flow_of, Sample(points(), FEW), "labels"),
    "fewer labels than rows, module": (lambda: make("mlp"), Sample(sample("mlp"), FEW), "labels"),
    "a label without a logit": (flow_of, Sample(points(), classification_loss(torch.arange(7))), "label"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_observed_is_refused_in_one_line(case):
    make_network, given, words = REFUSED[case]
    network = make_network()
    before = state_of(network)
    with pytest.raises(InputError) as caught:
        observe(network, given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert_same_state(before, state_of(network))
